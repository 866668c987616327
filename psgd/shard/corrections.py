"""Corrections for staleness, as arithmetic over a shard's parameters; formulas and sources: `psgd.core.corrections`."""

from collections.abc import Collection, Sequence
from typing import Protocol, assert_never

import torch

from psgd.core.corrections import Correction, DelayCompensation, GapAware, LagRate
from psgd.core.ids import Version

SQUARES_EPS = 1e-7
"""Added to MeanSquare, as in the paper."""
STEP_EPS = 1e-8
"""Added to the average step, so that a weight which has never moved has one."""

Tensors = Sequence[torch.Tensor]
"""One a parameter, in one order everywhere."""


class PastWeights:
    """Copies of weights that slots may be computing at.

    Args:
        weights: (elements,) float32, as they are now.
    """

    def __init__(self, weights: torch.Tensor) -> None:
        self._weights = weights
        self._copies: dict[Version, torch.Tensor] = {}

    def hold(self, now: Version, versions: Collection[Version]) -> None:
        """Have copies of exactly these versions, see `psgd.core.effects.HoldWeights`."""
        spare = [self._copies.pop(version) for version in self._copies.keys() - set(versions)]
        if now in versions and now not in self._copies:
            copy = spare.pop() if spare else torch.empty_like(self._weights)
            self._copies[now] = copy.copy_(self._weights)

    def of(self, version: Version) -> torch.Tensor:
        """The copy of a version, (elements,) float32."""
        return self._copies[version]


class Corrector(Protocol):
    """Makes up for what the weights have changed since a gradient was computed."""

    def see(self, grads: Tensors, absent: Collection[int]) -> None:
        """A gradient has arrived; it is not to be changed.

        Args:
            absent: indices of the parameters without a gradient.
        """

    def correct(self, grads: Tensors, weights: Tensors, pulled: Tensors, absent: Collection[int]) -> None:
        """Correct the gradient that was seen last, in place.

        Args:
            weights: as they are now.
            pulled: as they were when the gradient was computed from them.
        """

    def watch(self, weights: Tensors, rates: Sequence[float], absent: Collection[int]) -> None:
        """An update with these learning rates is about to be made.

        Args:
            rates: one a parameter.
        """

    def moved(self, weights: Tensors) -> None:
        """It has been made."""


def corrector_of(correction: Correction | None) -> Corrector | None:
    """What a lane needs for a correction; None: it never changes a gradient."""
    match correction:
        case None | LagRate():
            return None
        case DelayCompensation() if not correction.compares_weights:
            return None
        case DelayCompensation():
            return DelayCompensator(correction)
        case GapAware():
            return GapPenalty(correction)
        case _:
            assert_never(correction)


class DelayCompensator:
    """g' = g + λ g ⊙ g ⊙ (w_now − w_pulled), with a constant λ or an adaptive one."""

    def __init__(self, correction: DelayCompensation) -> None:
        self._scale = correction.scale
        self._decay = correction.decay
        self._adaptive = correction.adaptive
        self._mean_square: dict[int, torch.Tensor] = {}

    def see(self, grads: Tensors, absent: Collection[int]) -> None:
        """MeanSquare = m MeanSquare + (1 − m) g ⊙ g, from zero."""
        if self._adaptive:
            for index, grad in enumerate(grads):
                if index not in absent:
                    _average_in(self._mean_square, index, grad, self._decay)

    def correct(self, grads: Tensors, weights: Tensors, pulled: Tensors, absent: Collection[int]) -> None:
        """Add the estimate of what has changed."""
        for index, (grad, now, then) in enumerate(zip(grads, weights, pulled, strict=True)):
            if index not in absent:
                change = (now - then).mul_(grad).mul_(grad)  # the way first: where it is 0, nothing can overflow
                if self._adaptive:
                    change.div_((self._mean_square[index] + SQUARES_EPS).sqrt_())
                grad.add_(change.mul_(self._scale))

    def watch(self, weights: Tensors, rates: Sequence[float], absent: Collection[int]) -> None:
        """It does not matter how."""

    def moved(self, weights: Tensors) -> None:
        """It does not matter how far."""


class GapPenalty:
    """g' = g / (1 + |w_now − w_pulled| / C), with C = η_max · (sqrt(v / (1 − β^t)) + 1e-8)."""

    def __init__(self, correction: GapAware) -> None:
        self._decay = correction.decay
        self._mean_square: dict[int, torch.Tensor] = {}
        self._steps: dict[int, int] = {}
        self._largest_rate: dict[int, float] = {}
        self._before: dict[int, torch.Tensor] = {}
        self._watched: dict[int, float] = {}

    def see(self, grads: Tensors, absent: Collection[int]) -> None:
        """Steps count, not gradients."""

    def correct(self, grads: Tensors, weights: Tensors, pulled: Tensors, absent: Collection[int]) -> None:
        """Divide by one more than the steps that the weights have gone."""
        for index, (grad, now, then) in enumerate(zip(grads, weights, pulled, strict=True)):
            if index not in absent and index in self._steps:  # a parameter without steps has no gap
                unbiased = self._mean_square[index] / (1 - self._decay ** self._steps[index])
                step = unbiased.sqrt_().add_(STEP_EPS).mul_(self._largest_rate[index])
                grad.div_((now - then).abs_().div_(step).add_(1))

    def watch(self, weights: Tensors, rates: Sequence[float], absent: Collection[int]) -> None:
        """Remember where the weights are; with a learning rate of 0 they stay there, which tells nothing of steps."""
        self._watched = {index: lr for index, lr in enumerate(rates) if index not in absent and lr > 0}
        for index in self._watched:
            if index not in self._before:
                self._before[index] = torch.empty_like(weights[index])
            self._before[index].copy_(weights[index])

    def moved(self, weights: Tensors) -> None:
        """V = β v + (1 − β) s ⊙ s with s = step / η, from zero."""
        for index, lr in self._watched.items():
            step = self._before[index].sub_(weights[index]).div_(lr)
            _average_in(self._mean_square, index, step, self._decay)
            self._steps[index] = self._steps.get(index, 0) + 1
            self._largest_rate[index] = max(self._largest_rate.get(index, 0.0), lr)


def _average_in(mean_squares: dict[int, torch.Tensor], index: int, values: torch.Tensor, decay: float) -> None:
    """Let the running average of squares, which begins at zero, take in these values."""
    if index not in mean_squares:
        mean_squares[index] = torch.zeros_like(values)
    mean_squares[index].mul_(decay).addcmul_(values, values, value=1 - decay)
