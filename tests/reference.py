"""Synchronous training in one process, written out plainly: what psgd's shards and workers must match bit by bit."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import TensorDataset

from psgd.data.sampler import BatchPlan, seed_everything
from psgd.training.forms import use_fused


def train_reference(
    model: nn.Module,
    dataset: TensorDataset,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Callable[[Iterable[tuple[str, Tensor]]], Optimizer],
    schedule: Callable[[Optimizer], LRScheduler] | None,
    plan: BatchPlan,
    accepted: Mapping[int, tuple[int, ...]],
    accumulate: int = 1,
    bf16: bool = False,
    clip: Callable[[Sequence[Tensor]], object] | None = None,
) -> str:
    """Train the model in place; the hash of its float32 tensors.

    Args:
        accepted: by step, the slots that are averaged, ascending; none of them: a step without an update.
        clip: changes the mean gradient, which lies in ``.grad``.
    """
    model.train()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    buffers = dict(model.named_buffers())
    update = optimizer(parameters.items())
    use_fused(update)
    ticks = None if schedule is None else schedule(update)
    for step in sorted(accepted):
        before = {name: buffer.clone() for name, buffer in buffers.items()}
        gradients: list[dict[str, Tensor | None]] = []
        after: list[dict[str, Tensor]] = []
        for slot in accepted[step]:
            for name, buffer in buffers.items():
                buffer.copy_(before[name])
            model.zero_grad(set_to_none=True)
            seed_everything(plan.seed, step, slot)
            inputs, targets = dataset[plan.indices(step, slot)]
            size = -(-plan.batch_size // accumulate)
            for some, wanted in zip(inputs.split(size), targets.split(size), strict=True):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                    outputs = model(some)
                share = len(some) / plan.batch_size
                value = loss(outputs.float(), wanted)
                (value if share == 1 else value * share).backward()
            gradients.append({name: p.grad for name, p in parameters.items()})
            after.append({name: buffer.clone() for name, buffer in buffers.items()})
        if gradients:
            for name, parameter in parameters.items():
                parameter.grad = mean_gradient([each[name] for each in gradients])
            if clip is not None:
                clip(list(parameters.values()))
            update.step()
        for name, buffer in buffers.items():
            new = [each[name] for each in after] or [before[name]]
            buffer.copy_(mean(new) if buffer.is_floating_point() else new[0])
        if ticks is not None:
            ticks.step()
    return _hash(model)


def mean_gradient(gradients: list[Tensor | None]) -> Tensor | None:
    """Skipped if no slot has one; otherwise those who have none count as zero."""
    there = [gradient for gradient in gradients if gradient is not None]
    if not there:
        return None
    zero = torch.zeros_like(there[0])
    return mean([zero if gradient is None else gradient for gradient in gradients])


def mean(values: list[Tensor]) -> Tensor:
    """(v₀ + v₁ + …)/n, in that order."""
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total / len(values)


def _hash(model: nn.Module) -> str:
    """Over the float32 tensors in ``state_dict`` order, tied ones once."""
    digest, seen = hashlib.sha256(), set()
    for tensor in model.state_dict(keep_vars=True).values():
        if tensor.dtype is torch.float32 and id(tensor) not in seen:
            seen.add(id(tensor))
            digest.update(tensor.detach().numpy().tobytes())
    return digest.hexdigest()
