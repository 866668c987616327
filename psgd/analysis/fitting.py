"""Durations fitted to what was measured: which family, with which numbers, and how well it fits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from psgd.durations import LEAST_ALPHA, MOST_SIGMA, Duration, parse_duration
from psgd.errors import DataError

CONSTANT_SPREAD = 0.02
"""Standard deviation over mean below which a duration counts as constant."""
DRAWN = 5000
"""Means, to see how those of a family are distributed."""
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


def fit_all(seconds: Sequence[float], averaged: int = 1) -> list[Fit]:
    """Every family of `psgd.durations` fitted to durations; the one with the least distance first.

    They are fitted by maximum likelihood; the exponential and the Pareto distribution begin at the least duration that
    was measured. Of means, families get their mean and, as the durations are taken to be independent, so many times
    their variance; the distance is then that of means of so many draws. Numbers are rounded to four digits, and
    distances are those of the rounded ones: what is written is what was judged.

    Args:
        averaged: how many durations each of the seconds is the mean of.

    Raises:
        DataError: if there are fewer than two, or one is not > 0.

    Example:
        >>> str(fit_all([1.0, 1.001, 0.999])[0].duration)
        '1'
    """
    measured = np.asarray(seconds, dtype=np.float64)
    if measured.size < 2 or not np.all(measured > 0) or not np.all(np.isfinite(measured)):
        raise DataError(
            f"a fit needs at least two durations > 0, got {measured.size}, the least {min(seconds, default=0)}"
        )
    if _is_constant(measured, averaged):
        return [Fit(parse_duration(f"{float(np.median(measured)):.4g}"), 0.0, measured.size)]
    families = _likeliest(measured) if averaged == 1 else _alike(float(measured.mean()), averaged * measured.var())
    fits = [
        Fit(parse_duration(text), _distance(measured, distribution, averaged), measured.size)
        for text, distribution in families
    ]
    return sorted(fits, key=lambda fit: fit.distance)


def unaveraged(means: Sequence[float], averaged: int) -> list[float]:
    """Durations that have such means: the same mean, so many times the variance, and the order of the means.

    They are powers of the means, times a factor: none is negative, and they are skewed to the right, as durations are.
    Few means, or few of them that are not 0, can not always be spread so far.

    Args:
        averaged: how many durations each mean is of; they are taken to be independent.

    Example:
        >>> [round(second, 3) for second in unaveraged([1.0, 2.0, 3.0], averaged=4)]
        [0.275, 1.533, 4.192]
    """
    measured = np.asarray(means, dtype=np.float64)
    if averaged == 1 or _is_constant(measured, averaged):
        return list(means)
    relative = measured / measured.max()

    def too_far(power: float) -> float:
        return _relative_variance(relative**power) - averaged * _relative_variance(relative)

    power = optimize.brentq(too_far, 1, averaged) if too_far(averaged) > 0 else averaged
    spread: list[float] = (relative**power * (measured.mean() / (relative**power).mean())).tolist()
    return spread


def _is_constant(means: Seconds, averaged: int) -> bool:
    return bool(math.sqrt(averaged) * means.std() <= CONSTANT_SPREAD * means.mean())


def _relative_variance(seconds: Seconds) -> float:
    return float(seconds.var() / seconds.mean() ** 2)


# ------------------------------------------------------------------ families, in words and as scipy's

Family = tuple[str, Any]


def _likeliest(seconds: Seconds) -> list[Family]:
    logs = np.log(seconds)
    mean, least = float(seconds.mean()), _round(float(seconds.min()) * (1 - 1e-9))
    alpha = max(seconds.size / float(np.sum(logs - math.log(least)) or 1.0), LEAST_ALPHA)
    return [
        _lognormal(math.exp(float(logs.mean())), min(float(logs.std()), MOST_SIGMA)),
        _exponential_from(least, mean - least),
        _exponential(mean),
        _pareto(least, alpha),
    ]


def _alike(mean: float, variance: float) -> list[Family]:
    """With this mean, and this variance if the family has any."""
    relative = variance / mean**2
    deviation, sigma = math.sqrt(variance), math.sqrt(math.log1p(relative))
    alpha = 1 + math.sqrt(1 + 1 / relative)
    from_least = [_exponential_from(mean - deviation, deviation)] if deviation < mean else []
    return [
        _lognormal(mean * math.exp(-(sigma**2) / 2), sigma),
        *from_least,
        _exponential(mean),
        _pareto(mean * (alpha - 1) / alpha, alpha),
    ]


def _lognormal(median: float, sigma: float) -> Family:
    median, sigma = _round(median), _round(sigma)
    return f"lognormal:{median:g}:{sigma:g}", stats.lognorm(sigma, scale=median)


def _exponential_from(least: float, beyond: float) -> Family:
    least, beyond = _round(least), _round(beyond)
    return f"{least:g}+exp:{beyond:g}", stats.expon(least, beyond)


def _exponential(mean: float) -> Family:
    mean = _round(mean)
    return f"exp:{mean:g}", stats.expon(0, mean)


def _pareto(least: float, alpha: float) -> Family:
    least, alpha = _round(least), _round(alpha)
    return f"pareto:{least:g}:{alpha:g}", stats.pareto(alpha, scale=least)


def _round(number: float) -> float:
    return float(f"{number:.4g}")


def _distance(means: Seconds, distribution: Any, averaged: int) -> float:
    if averaged == 1:
        return float(stats.kstest(means, distribution.cdf).statistic)
    generator = np.random.default_rng(0)
    drawn = sum(distribution.rvs(DRAWN, random_state=generator) for _ in range(averaged)) / averaged
    return float(stats.ks_2samp(means, drawn, method="asymp").statistic)
