"""How large a gradient is, summed so that no bit depends on how shards share it, and its clipping."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from psgd.config import Clip
from psgd.core.clipping import add_exactly, clip_scale, norm_of
from psgd.core.layout import MOST_IN_BLOCK, Layout, Part, Role, aligned

CHUNK = 2**17
"""Elements that are squared at a time: in float64 they stay in a core's cache."""

_ALONE = 64
"""A block of so few elements lies in memory as its tensors follow one another, padding included, which is zero."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Elements of a part's floating region that are summed in blocks of one size, the last of which may be shorter."""

    start: int
    stop: int
    block: int


class SquareSums:
    """Squares of the gradients of a part's parameters, summed in float64 over each block of its tensors.

    Blocks are those of `psgd.core.layout.TensorSpec.block`, which no cut divides: so shards and lanes together have
    the sums of the uncut gradient. Buffers, which travel beside gradients, do not count.

    Args:
        part: its parameters' bytes, padding included, are float32 and zero where a tensor has no gradient.
    """

    def __init__(self, layout: Layout, part: Part) -> None:
        runs: list[_Run] = []
        for piece in part.slices:
            spec = layout.tensors[piece.tensor]
            if spec.role is not Role.PARAMETER:
                continue
            start = piece.offset // 4
            stop = aligned(piece.offset + 4 * (piece.stop - piece.start)) // 4
            if runs and runs[-1].stop == start and runs[-1].block == spec.block == _ALONE:
                runs[-1] = _Run(runs[-1].start, stop, _ALONE)
            else:
                runs.append(_Run(start, stop, spec.block))
        self._runs = runs

    def __call__(self, gradient: torch.Tensor) -> list[float]:
        """The sums, in layout order.

        Args:
            gradient: (elements,) float32, the part's floating region.
        """
        sums = [each for run in self._runs for each in _over(gradient[run.start : run.stop], run.block)]
        values: list[float] = torch.cat(sums).tolist() if sums else []
        return values


def clip_gradient(gradients: list[torch.Tensor], clip: Clip) -> None:
    """Clip a whole gradient in place; one with NaN or Inf is left as it is, or clipping could hide that.

    Args:
        gradients: those of a model's parameters, float32.
    """
    if not gradients or not torch.stack([gradient.isfinite().all() for gradient in gradients]).all():
        return
    if clip.norm is not None:
        torch._foreach_mul_(gradients, clip_scale(norm(*gradients), clip.norm))
    clip_each(gradients, clip)


def clip_each(gradients: Sequence[torch.Tensor], clip: Clip) -> None:
    """Clip in place what the gradient of a tensor is clipped for by itself: elements, or its norm."""
    for gradient in gradients:
        if clip.value is not None:
            gradient.clamp_(-clip.value, clip.value)
        if clip.tensor_norm is not None:
            gradient.mul_(clip_scale(norm(gradient), clip.tensor_norm))


def norm(*tensors: torch.Tensor) -> float:
    """The Euclidean norm of float32 tensors taken together, at least one, in float64."""
    sums = [each for values in tensors for each in _over(values.reshape(-1), MOST_IN_BLOCK)]
    return norm_of([add_exactly(torch.cat(sums).tolist())])


def _over(values: torch.Tensor, block: int) -> Iterator[torch.Tensor]:
    """(blocks,) float64 for each chunk of the values."""
    buffer = torch.empty(min(CHUNK, values.numel()), dtype=torch.float64, device=values.device)
    for chunk in values.split(CHUNK):
        squares = buffer[: chunk.numel()].copy_(chunk).square_()
        whole = chunk.numel() // block * block
        yield squares[:whole].view(-1, block).sum(1)
        if whole < chunk.numel():
            yield squares[whole:].sum().view(1)
