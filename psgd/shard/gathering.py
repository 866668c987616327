"""Gradients that are gathered for one update: their sum, in the order in which they came."""

from collections.abc import Collection, Sequence

import torch

from psgd.shard.mean import divide


class GatheredGradients:
    """The sum of a lane's gradients; a gradient's own memory is nobody's concern once it has been added.

    Args:
        like: (floating elements,) float32, on the device where the sum is to be.
    """

    def __init__(self, like: torch.Tensor) -> None:
        self.sum = torch.zeros_like(like)
        """Of the gradients, and behind them of buffers."""
        self.absent: frozenset[int] = frozenset()
        """Indices of the tensors that have no gradient in any of them."""
        self.counts: list[torch.Tensor] = []
        """Counters, as the last arrival has them."""
        self._empty = True

    def add(self, values: torch.Tensor, absent: Collection[int], counts: Sequence[torch.Tensor]) -> None:
        """Add one, float32 by float32: g₀ + g₁ + …, in that order.

        Args:
            values: (floating elements,) float32; where a tensor is absent they are zero.
            counts: of each counter.
        """
        if self._empty:
            self.sum.copy_(values)
            self.absent = frozenset(absent)
        else:
            self.sum.add_(values)
            self.absent &= frozenset(absent)
        self.counts = [count.clone() for count in counts]
        self._empty = False

    def close(
        self, gradients: Sequence[torch.Tensor], weight: float, buffers: Sequence[torch.Tensor], count: int
    ) -> None:
        """Turn the sum into the mean; the next one that is added begins another sum.

        Args:
            gradients: pieces of the sum, divided by ``weight``.
            buffers: the others, divided by ``count``.
        """
        for pieces, divisor in ((gradients, weight), (buffers, count)):
            for piece in pieces:
                divide(piece, divisor)
        self._empty = True
