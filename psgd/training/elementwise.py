"""Whether an optimizer may be given slices of tensors instead of the tensors."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from psgd.config import OptimizerFactory
from psgd.training.forms import use_fused
from psgd.training.optimizers import ConfiguredOptimizer

PROBE_SHAPE = (5, 77)  # 385 elements: with a vector tail, whole and cut
PROBE_CUT = 192  # inside the third row, on a 64-element boundary like every slice
PROBE_GRADIENTS = (1.0, 1e4, 1e-4)  # each step's scale: below and above what an optimizer might clip at
PROBE_RATE = 0.01  # at least: with a smaller one differences would vanish in rounding


def is_elementwise(factory: OptimizerFactory, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether an optimizer gives the same bits on slices of tensors as on the tensors.

    Tried out rather than looked up by class, because a factory may give tensors other options by their shape
    (weight decay for matrices only), which slices have lost. Three steps with small stand-ins for the model's
    parameters, whole and cut in two, must end with the same bits. Whatever fails on the stand-ins counts as
    not elementwise. The global random state is left alone.

    Args:
        factory: makes the optimizer from named parameters.
        shapes: the trained parameters' shapes by name; stand-ins take over the number of dimensions.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            whole = _train_probes(factory, shapes, cut=False)
            sliced = _train_probes(factory, shapes, cut=True)
        except Exception:  # the user's factory may raise anything; on the real tensors it will raise again
            return False
    return torch.equal(whole.view(torch.int32), sliced.view(torch.int32))


def explain_whole(factory: OptimizerFactory, shapes: Mapping[str, Sequence[int]]) -> str | None:
    """Why an optimizer can not be given slices, see `is_elementwise`; None if it can.

    Example:
        >>> from psgd.training.optimizers import resolve_optimizer
        >>> explain_whole(resolve_optimizer("lamb", 0.1, {}), {"weight": (5, 7)})
        'layout must be auto or whole with optimizer lamb, got sliced: it gives other weights on slices of tensors'
    """
    if is_elementwise(factory, shapes):
        return None
    name = f"optimizer {factory.name}" if isinstance(factory, ConfiguredOptimizer) else "this optimizer"
    return f"layout must be auto or whole with {name}, got sliced: it gives other weights on slices of tensors"


def _train_probes(factory: OptimizerFactory, shapes: Mapping[str, Sequence[int]], *, cut: bool) -> Tensor:
    """All stand-ins after three steps, flat, float32 (parameters * 385,)."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    probes: list[tuple[str, nn.Parameter]] = []
    for name, shape in shapes.items():
        flat = torch.randn(math.prod(PROBE_SHAPE), generator=generator)
        if not cut:
            probes.append((name, nn.Parameter(flat.view(_probe_shape(len(shape))))))
        else:
            probes += [(name, nn.Parameter(flat[:PROBE_CUT])), (name, nn.Parameter(flat[PROBE_CUT:]))]
    optimizer = factory(iter(probes))
    use_fused(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = max(group["lr"], PROBE_RATE)
    for scale in PROBE_GRADIENTS:
        gradient = torch.randn(len(shapes) * math.prod(PROBE_SHAPE), generator=generator).mul_(scale)
        pieces = torch.split(gradient, [probe.numel() for _, probe in probes])
        for (_, probe), piece in zip(probes, pieces, strict=True):
            probe.grad = piece.view(probe.shape)
        optimizer.step()
    return torch.cat([probe.detach().flatten() for _, probe in probes])


def _probe_shape(dimensions: int) -> tuple[int, ...]:
    return PROBE_SHAPE + (1,) * (dimensions - 2) if dimensions > 1 else (math.prod(PROBE_SHAPE),)
