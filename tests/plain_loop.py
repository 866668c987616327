"""Synchronous training written out plainly, with its computation and its update each on a device of its own."""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import TensorDataset

from psgd.data.sampler import BatchPlan, seed_everything
from psgd.training.forms import use_fused


def train_plainly(
    first: nn.Module,
    dataset: TensorDataset,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer],
    plan: BatchPlan,
    steps: int,
    compute: torch.device,
    update: torch.device,
) -> dict[str, Tensor]:
    """The trained parameters by name, on the CPU; for models without buffers.

    Args:
        compute: of forward and backward.
        update: of the weights and the optimizer's state.
    """
    model = copy.deepcopy(first).to(compute).train()
    computing = dict(model.named_parameters())
    weights = {name: p.detach().to(update, copy=True).requires_grad_() for name, p in computing.items()}
    made = optimizer(weights.items())
    use_fused(made)
    for step in range(steps):
        gradients: list[dict[str, Tensor]] = []
        for slot in range(plan.slots):
            with torch.no_grad():
                for name, parameter in computing.items():
                    parameter.copy_(weights[name])
            model.zero_grad(set_to_none=True)
            seed_everything(plan.seed, step, slot)
            inputs, targets = (part.to(compute) for part in dataset[plan.indices(step, slot)])
            loss(model(inputs), targets).backward()
            gradients.append({name: p.grad.cpu() for name, p in computing.items() if p.grad is not None})
        for name, weight in weights.items():
            weight.grad = mean([each[name] for each in gradients]).to(update)
        made.step()
    return {name: weight.detach().cpu() for name, weight in weights.items()}


def mean(gradients: list[Tensor]) -> Tensor:
    """(g₀ + g₁ + …)/n, in that order; on the CPU, which divides by a number as IEEE 754 says."""
    total = gradients[0]
    for gradient in gradients[1:]:
        total = total + gradient
    return total / len(gradients)
