"""Seeds' curves put together: the median, between the least and the greatest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID_POINTS = 120
"""Where the seeds' points differ."""

Points = tuple[Sequence[float], Sequence[float | None]]
"""xs, ascending, and the values there."""


@dataclass(frozen=True, slots=True)
class Band:
    """All four have the same length."""

    x: tuple[float, ...] = ()
    median: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def band_of(curves: Sequence[Points], *, hold: bool) -> Band:
    """The band of several seeds' curves, with straight lines between their points.

    It begins where all of them have begun.

    Args:
        hold: a curve that has ended keeps its last value until all have: right for weights, which stay what they are.
            Otherwise the band ends with the first curve.

    Example:
        >>> band_of([((0.0, 2.0), (1.0, 3.0)), ((0.0, 2.0), (3.0, 4.0))], hold=True)
        Band(x=(0.0, 2.0), median=(2.0, 3.5), low=(1.0, 3.0), high=(3.0, 4.0))
    """
    known = [_numbers(curve) for curve in curves]
    known = [(xs, values) for xs, values in known if len(xs)]
    if not known:
        return Band()
    grid = _grid([xs for xs, _ in known], hold)
    seeds = np.array([np.interp(grid, xs, values) for xs, values in known])
    return Band(_floats(grid), _floats(np.median(seeds, 0)), _floats(seeds.min(0)), _floats(seeds.max(0)))


def _numbers(curve: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = [(x, value) for x, value in zip(*curve, strict=True) if value is not None]
    return np.array([x for x, _ in found], dtype=float), np.array([value for _, value in found], dtype=float)


def _grid(xs: Sequence[NDArray[np.float64]], hold: bool) -> NDArray[np.float64]:
    """The seeds' own points if they share them."""
    if all(np.array_equal(each, xs[0]) for each in xs):
        return xs[0]
    begin = max(each[0] for each in xs)
    end = max(each[-1] for each in xs) if hold else min(each[-1] for each in xs)
    points = max(2, min(GRID_POINTS, 2 * max(len(each) for each in xs)))
    return np.linspace(begin, max(begin, end), points)


def _floats(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(map(float, values))
