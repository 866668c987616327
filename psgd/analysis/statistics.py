"""How much of a difference is chance: intervals and tests over the few seeds that there are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
SIGNIFICANT = 1 - CONFIDENCE
ROUNDING = 1e-9
"""Values that lie closer together, relative to their size, are the same: the rest is how they were computed."""

Scale = Literal["linear", "log"]
"""What is told by differences, and what by ratios: times, throughputs."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, and how well a few values tell it.

    Args:
        mean: on the logarithmic scale the geometric one.
        ci: the 95 % confidence interval; None where the values do not tell it.
        p: how likely values as far from nothing (0, as a ratio 1) are if there is nothing; None where ``ci`` says as
            little and no other test helps.
    """

    mean: float
    ci: tuple[float, float] | None
    p: float | None


def estimate(values: Sequence[float], scale: Scale = "linear", blur: float = 0.0) -> Estimate:
    """The mean of independent values with Student's interval; on the logarithmic scale that of their logarithms.

    Args:
        blur: a standard deviation, on that scale; values that lie closer together do so by chance.

    Raises:
        ValueError: if there is no value, or one <= 0 on the logarithmic scale.

    Example:
        >>> estimate([1.0, 2.0, 3.0]).mean, estimate([1.0, 2.0, 4.0], "log").mean
        (2.0, 2.0)
    """
    if scale == "linear":
        return _student(np.asarray(values, dtype=np.float64), max(map(abs, values)), blur)
    logs = _student(np.log(np.asarray(values, dtype=np.float64)), 1.0, blur)
    ci = None if logs.ci is None else (math.exp(logs.ci[0]), math.exp(logs.ci[1]))
    return Estimate(math.exp(logs.mean), ci, logs.p)


def compare(ours: Sequence[float], theirs: Sequence[float], scale: Scale = "linear", blur: float = 0.0) -> Estimate:
    """How much larger the one is than the other: the mean difference of pairs, or ours as a multiple of theirs.

    Pairs that all differ by the same say nothing about chance in Student's way. A ratio (of constant times) is exact
    then, whereas a metric, which changes in steps, may well agree by chance: its p is the one of the sign test, two
    to the power of 1 − pairs, and there is no interval.

    Args:
        ours: one value a seed.
        theirs: those of the same seeds.
        blur: the standard deviation that ratios have for how values were measured; less than that is not believed.

    Example:
        >>> compare([2.0, 4.0], [1.0, 2.0], "log")
        Estimate(mean=2.0, ci=(2.0, 2.0), p=0.0)
    """
    if scale == "log":
        return estimate([one / other for one, other in zip(ours, theirs, strict=True)], "log", blur)
    differences = np.subtract(ours, theirs)
    found = _student(differences, max(map(abs, [*ours, *theirs])))
    if found.p == 0.0:
        return Estimate(found.mean, None, 2.0 ** (1 - len(differences)))
    return found


def compare_counts(ours: tuple[int, int], theirs: tuple[int, int]) -> float:
    """How likely two counts are that differ as much, if both arms have the same chance: Barnard's exact test.

    Args:
        ours: how many of the runs have something, and how many runs there are.
        theirs: the same of the other arm.

    Example:
        >>> round(compare_counts((3, 3), (0, 3)), 5), round(compare_counts((2, 2), (0, 2)), 5)
        (0.03125, 0.125)
    """
    if ours[0] * theirs[1] == theirs[0] * ours[1]:
        return 1.0
    columns = ((ours[0], theirs[0]), (ours[1] - ours[0], theirs[1] - theirs[0]))
    return float(stats.barnard_exact(columns).pvalue)


def _student(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", size: float, blur: float = 0.0) -> Estimate:
    """The estimate, where values may have come from some of this size by subtraction."""
    mean, count = float(values.mean()), len(values)
    if abs(mean) <= ROUNDING * size:
        mean = 0.0
    if count < 2:
        return Estimate(mean, None, None)
    if np.ptp(values) <= ROUNDING * size and (blur == 0.0 or mean == 0.0):
        return Estimate(mean, (mean, mean), 1.0 if mean == 0.0 else 0.0)
    error = max(float(values.std(ddof=1)), blur) / math.sqrt(count)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return Estimate(mean, (mean - reach, mean + reach), float(2 * stats.t.sf(abs(mean) / error, count - 1)))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """What is left of each p when so many comparisons are made at once (Holm 1979).

    Args:
        ps: of one family; None for a comparison that has none and counts for nothing.

    Example:
        >>> holm([0.01, 0.04, None, 0.03])
        [0.03, 0.06, None, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    least = 0.0
    for done, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - done) * p))
        corrected[place] = least
    return corrected
