"""The global norm of a gradient that lies on several shards, and what it is scaled by.

The norm's bits do not depend on who holds what: squares are summed in float64 over blocks that no cut divides
(`psgd.core.layout.TensorSpec.block`), and these sums are added exactly, so in any order.
"""

import math
from collections.abc import Sequence
from itertools import chain

ExactSum = tuple[float, ...]
"""Numbers whose sum, were it not rounded, is the exact one: the first is the sum rounded, the next what that leaves."""


def add_exactly(numbers: Sequence[float]) -> ExactSum:
    """The sum of numbers without rounding (Shewchuk 1997, "Adaptive Precision Floating-Point Arithmetic").

    Args:
        numbers: >= 0; where one is NaN or infinite, so is the sum.

    >>> add_exactly([1.0, 1e-30, 2.0])
    (3.0, 1e-30)
    """
    parts: list[float] = []
    while rest := math.fsum(chain(numbers, (-part for part in parts))):
        parts.append(rest)
        if not math.isfinite(rest):
            break
    return tuple(parts)


def norm_of(squares: Sequence[ExactSum]) -> float:
    """The Euclidean norm, from each holder's sum of squares; NaN where these are none.

    >>> norm_of([(9.0,), (16.0,)])
    5.0
    """
    numbers = list(chain.from_iterable(squares))
    try:
        total = math.fsum(numbers)
    except (OverflowError, ValueError):  # Inf and -Inf, or more than a float64 holds
        return math.nan
    return math.sqrt(total) if 0 <= total < math.inf else math.nan


def clip_scale(norm: float, limit: float) -> float:
    """What a gradient is multiplied by so that its norm is at most ``limit``, as in `torch.nn.utils.clip_grad_norm_`.

    >>> clip_scale(norm=3.0, limit=5.0), round(clip_scale(norm=10.0, limit=5.0), 6)
    (1.0, 0.5)
    """
    return min(1.0, limit / (norm + 1e-6))
