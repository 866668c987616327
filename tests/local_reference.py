"""Local steps in rounds in one process, written out plainly: Algorithm 1 of DiLoCo (Douillard et al. 2023)."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import TensorDataset

from psgd.data.sampler import BatchPlan, seed_everything
from psgd.training.forms import use_fused
from tests.reference import mean, mean_gradient

MakeOptimizer = Callable[[Iterable[tuple[str, Tensor]]], Optimizer]


def train_local_reference(
    model: nn.Module,
    dataset: TensorDataset,
    loss: Callable[[Tensor, Tensor], Tensor],
    inner: MakeOptimizer,
    outer: MakeOptimizer,
    plan: BatchPlan,
    steps: int,
    local_steps: int,
    schedule: Callable[[Optimizer], LRScheduler] | None = None,
    clip: Callable[[Sequence[Tensor]], object] | None = None,
) -> dict[str, Tensor]:
    """Train the model in place; its parameters and buffers by name, tied ones once.

    Args:
        inner: made once a slot.
        outer: made once.
        schedule: of the inner optimizers; ticks once a step.
        clip: changes the gradient of each inner step, which lies in ``.grad``.
    """
    model.train()
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    buffers = dict(model.named_buffers())
    weights = {name: p.detach().clone().requires_grad_() for name, p in own.items()}
    update = outer(weights.items())
    use_fused(update)
    inners = [inner(own.items()) for _ in range(plan.slots)]
    for each in inners:
        use_fused(each)
    ticking = [] if schedule is None else [schedule(each) for each in inners]
    for step in range(steps):
        before = {name: buffer.clone() for name, buffer in buffers.items()}
        deltas: list[dict[str, Tensor | None]] = []
        after: list[dict[str, Tensor]] = []
        for slot in range(plan.slots):
            _restart(own, weights)
            _restart(buffers, before)
            trained = set()
            for mini_batch in range(step * local_steps, (step + 1) * local_steps):
                model.zero_grad(set_to_none=True)
                seed_everything(plan.seed, mini_batch, slot)
                inputs, targets = dataset[plan.indices(mini_batch, slot)]
                loss(model(inputs), targets).backward()
                trained |= {name for name, p in own.items() if p.grad is not None}
                if clip is not None:
                    clip([p for p in own.values() if p.grad is not None])
                inners[slot].step()
            deltas.append({n: w.detach() - own[n].detach() if n in trained else None for n, w in weights.items()})
            after.append({name: buffer.clone() for name, buffer in buffers.items()})
        for name, weight in weights.items():
            weight.grad = mean_gradient([each[name] for each in deltas])
        update.step()
        for name, buffer in buffers.items():
            new = [each[name] for each in after]
            buffer.copy_(mean(new) if buffer.is_floating_point() else new[0])
        for ticks in ticking:
            ticks.step()
    _restart(own, weights)
    return {**dict(model.named_parameters()), **buffers}


@torch.no_grad()
def _restart(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.copy_(values[name])
