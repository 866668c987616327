"""Corrections for staleness: what is done about a gradient that was computed at weights that are not the newest.

They belong to async mode. On arrival a shard knows the lag exactly, and which weights the pushing slot had pulled.
"""

from dataclasses import dataclass
from math import isfinite

from psgd.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class LagRate:
    """The learning rate divided by the lag: α_i = α / τ_i; a gradient without lag keeps α.

    Source: Zhang, Gupta, Lian, Liu 2016, "Staleness-aware Async-SGD for Distributed Deep Learning" (IJCAI; arXiv
    1511.05950).

    Example:
        >>> [LagRate().lr_factor(lag) for lag in (0, 1, 4)]
        [1.0, 1.0, 0.25]
    """

    @property
    def compares_weights(self) -> bool:
        """Whether shards have to keep the weights that each slot has pulled."""
        return False

    def lr_factor(self, lag: int) -> float:
        """What the learning rate of a gradient is multiplied by."""
        return 1.0 / max(lag, 1)

    def copies(self, slots: int) -> int:
        """How many copies of their weights shards hold for it, at most, while no pull is repeated."""
        return 0

    def __str__(self) -> str:
        return "lag-lr"


@dataclass(frozen=True, slots=True)
class DelayCompensation:
    """A first-order estimate of the gradient at the newest weights: g' = g + λ g ⊙ g ⊙ (w_now − w_pulled).

    g ⊙ g stands for the diagonal of the Hessian. Adaptive (DC-ASGD-a), λ is elementwise λ₀ / sqrt(MeanSquare + 1e-7),
    with MeanSquare = m MeanSquare + (1 − m) g ⊙ g over all gradients that arrive, this one included.

    Shards keep the weights that each slot has pulled: slots × their own size, at most, unless the network repeats a
    pull whose slot has not pushed yet; adaptive, one more for MeanSquare. With λ = 0 nothing is kept, and the bits are
    those of plain async.

    Source: Zheng, Meng, Wang, Chen, Yu, Ma, Liu 2017, "Asynchronous Stochastic Gradient Descent with Delay
    Compensation" (ICML; arXiv 1609.08326).

    Args:
        strength: λ, or adaptive λ₀; None: 0.04, or adaptive 2, as in the paper's experiments.
        adaptive: λ follows the size of the gradients.
        decay: m.

    Raises:
        ConfigurationError: if a number is out of range.

    Example:
        >>> str(DelayCompensation()), str(DelayCompensation(adaptive=True))
        ('dc=0.04', 'dca=2:0.95')
    """

    strength: float | None = None
    adaptive: bool = False
    decay: float = 0.95

    def __post_init__(self) -> None:
        if not (isfinite(self.scale) and self.scale >= 0):
            raise ConfigurationError(f"delay compensation strength must be a finite number >= 0, got {self.strength}")
        if not 0 <= self.decay < 1:
            raise ConfigurationError(f"delay compensation decay must be in [0, 1), got {self.decay}")

    @property
    def scale(self) -> float:
        """λ, or adaptive λ₀."""
        return (2.0 if self.adaptive else 0.04) if self.strength is None else self.strength

    @property
    def compares_weights(self) -> bool:
        """Whether shards have to keep the weights that each slot has pulled."""
        return self.scale > 0

    def lr_factor(self, lag: int) -> float:
        """What the learning rate of a gradient is multiplied by."""
        return 1.0

    def copies(self, slots: int) -> int:
        """How many copies of their weights shards hold for it, at most, while no pull is repeated."""
        return slots + self.adaptive if self.compares_weights else 0

    def __str__(self) -> str:
        return f"dca={_plain(self.scale)}:{_plain(self.decay)}" if self.adaptive else f"dc={_plain(self.scale)}"


@dataclass(frozen=True, slots=True)
class GapAware:
    """A gradient shrinks with the way that its weights have gone: elementwise g' = g / (1 + |w_now − w_pulled| / C).

    C, also elementwise, is how far one update moves a weight: C = η_max · (sqrt(v / (1 − β^t)) + 1e-8), with η_max the
    largest learning rate so far and v = β v + (1 − β) s ⊙ s over the updates, s being a step divided by its learning
    rate (of plain SGD the gradient, with momentum the momentum's buffer). A gradient without lag is left as it is.

    Shards keep the weights that each slot has pulled: slots × their own size, at most, unless the network repeats a
    pull whose slot has not pushed yet; and two more for s and v.

    Source: Barkai, Hakimi, Schuster 2020, "Gap-Aware Mitigation of Gradient Staleness" (ICLR; arXiv 1909.10802): the
    gap of each parameter by itself.

    Args:
        decay: β.

    Raises:
        ConfigurationError: if it is out of range.

    Example:
        >>> str(GapAware())
        'gap=0.999'
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ConfigurationError(f"gap-aware decay must be in [0, 1), got {self.decay}")

    @property
    def compares_weights(self) -> bool:
        """Whether shards have to keep the weights that each slot has pulled."""
        return True

    def lr_factor(self, lag: int) -> float:
        """What the learning rate of a gradient is multiplied by."""
        return 1.0

    def copies(self, slots: int) -> int:
        """How many copies of their weights shards hold for it, at most, while no pull is repeated."""
        return slots + 2

    def __str__(self) -> str:
        return f"gap={_plain(self.decay)}"


Correction = LagRate | DelayCompensation | GapAware
"""Printed, one is what the command line calls it."""


def _plain(number: float) -> str:
    """As few digits as tell it from every other number."""
    return repr(float(number)).removesuffix(".0")
