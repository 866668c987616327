"""Durations fitted to what was measured: which family, with which numbers, and how well it fits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from psgd.durations import LEAST_ALPHA, MOST_SIGMA, Duration, parse_duration
from psgd.errors import DataError

CONSTANT_SPREAD = 0.02
"""Standard deviation over mean below which a duration counts as constant."""
Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """A family that was tried.

    Args:
        duration: with the numbers that fit best.
        distance: of Kolmogorov and Smirnov: the largest difference between the two distribution functions, 0 … 1.
        measured: how many durations it was fitted to.
    """

    duration: Duration
    distance: float
    measured: int

    def __str__(self) -> str:
        return f"{self.duration} (largest distance {self.distance:.3f})"


def fit_all(seconds: Sequence[float]) -> list[Fit]:
    """Every family of `psgd.durations` fitted by maximum likelihood; the one with the least distance first.

    The exponential and the Pareto distribution begin at the least duration that was measured. Numbers are rounded to
    four digits, and distances are those of the rounded ones: what is written is what was judged.

    Raises:
        DataError: if there are fewer than two durations, or one is not > 0.

    Example:
        >>> str(fit_all([1.0, 1.001, 0.999])[0].duration)
        '1'
    """
    measured = np.asarray(seconds, dtype=np.float64)
    if measured.size < 2 or not np.all(measured > 0) or not np.all(np.isfinite(measured)):
        raise DataError(
            f"a fit needs at least two durations > 0, got {measured.size}, the least {min(seconds, default=0)}"
        )
    if measured.std() <= CONSTANT_SPREAD * measured.mean():
        return [Fit(parse_duration(f"{float(np.median(measured)):.4g}"), 0.0, measured.size)]
    fits = [Fit(parse_duration(text), _distance(measured, cdf), measured.size) for text, cdf in _families(measured)]
    return sorted(fits, key=lambda fit: fit.distance)


def _families(seconds: Seconds) -> list[tuple[str, Callable[[Seconds], Seconds]]]:
    """Each family in words, and its distribution function with the numbers of the words."""
    logs = np.log(seconds)
    median, sigma = _round(math.exp(float(logs.mean()))), _round(min(float(logs.std()), MOST_SIGMA))
    least = _round(float(seconds.min()) * (1 - 1e-9))
    beyond = _round(float(seconds.mean()) - least)
    alpha = _round(max(seconds.size / float(np.sum(logs - math.log(least)) or 1.0), LEAST_ALPHA))
    mean = _round(float(seconds.mean()))
    return [
        (f"lognormal:{median:g}:{sigma:g}", stats.lognorm(sigma, scale=median).cdf),
        (f"{least:g}+exp:{beyond:g}", stats.expon(least, beyond).cdf),
        (f"exp:{mean:g}", stats.expon(0, mean).cdf),
        (f"pareto:{least:g}:{alpha:g}", stats.pareto(alpha, scale=least).cdf),
    ]


def _round(number: float) -> float:
    return float(f"{number:.4g}")


def _distance(seconds: Seconds, cdf: Callable[[Seconds], Seconds]) -> float:
    return float(stats.kstest(seconds, cdf).statistic)
