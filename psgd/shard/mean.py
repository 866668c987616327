"""The mean over slots: (g₀ + g₁ + …)/n in float32, in that order; other orders and other divisions give other bits."""

from collections.abc import Callable, Sequence

import torch

CHUNK = 2**17
"""Elements whose mean a core takes at a time: all slots' and the sum stay in its cache."""

Average = Callable[[Sequence[torch.Tensor], torch.Tensor], None]
"""Takes at least two gradients, (n,) float32 each, and where their mean goes, (n,)."""


def average_in_chunks(gradients: Sequence[torch.Tensor], mean: torch.Tensor, chunk: int = CHUNK) -> None:
    """As fast as a core can, see `Average`."""
    for start in range(0, mean.numel(), chunk):
        some = [gradient[start : start + chunk] for gradient in gradients]
        _average(some, mean[start : start + chunk], len(gradients))


def average_at_once(gradients: Sequence[torch.Tensor], mean: torch.Tensor) -> None:
    """As fast as a device can, see `Average`."""
    # By a number, CUDA divides as if it multiplied with the reciprocal, which gives other bits.
    _average(gradients, mean, torch.full((), len(gradients), dtype=mean.dtype, device=mean.device))


def _average(gradients: Sequence[torch.Tensor], mean: torch.Tensor, divisor: float | torch.Tensor) -> None:
    first, second, *others = gradients
    torch.add(first, second, out=mean)
    for other in others:
        mean.add_(other)
    count = len(gradients)
    if count & (count - 1) == 0:  # then 1/n is a power of two, and to multiply gives the bits of dividing
        mean.mul_(1 / count)
    else:
        mean.div_(divisor)


def divide(values: torch.Tensor, divisor: float) -> None:
    """Divide in place, with the bits of a division also on a device."""
    values.div_(torch.full((), divisor, dtype=values.dtype, device=values.device))
