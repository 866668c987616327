"""From time stamps to figures: the slowest worker's steps, and how fast pushes arrive."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from psgd.errors import LostError

MS_PER_S = 1000.0


@dataclass(frozen=True, slots=True)
class StepTimes:
    """What one run of one peer has shown.

    Args:
        durations_ms: of the slowest worker's steps, one after another.
        ends: when each worker has begun and each of its steps has ended, in seconds of one clock: (workers, steps + 1).
    """

    durations_ms: tuple[float, ...]
    ends: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, ends: Iterable[Iterable[float]]) -> "StepTimes":
        """From when each worker has begun and each of its steps has ended: (workers, steps + 1)."""
        workers = tuple(map(tuple, ends))
        durations = [[(after - before) * MS_PER_S for before, after in pairwise(worker)] for worker in workers]
        return cls(tuple(max(durations, key=statistics.median)), workers)

    @property
    def median_ms(self) -> float:
        """Of the slowest worker's steps."""
        return statistics.median(self.durations_ms)

    @property
    def ms_per_push(self) -> float:
        """Wall time divided by the pushes of all workers, while all of them were at it, in ms.

        Raises:
            LostError: if there was no such time.

        Example:
            >>> StepTimes.of([(0.0, 1.0, 2.0, 3.0), (1.0, 2.0, 3.0)]).ms_per_push
            500.0
        """
        began, ended = max(worker[0] for worker in self.ends), min(worker[-1] for worker in self.ends)
        pushes = sum(began < end <= ended for worker in self.ends for end in worker)
        if pushes == 0:
            raise LostError(f"{len(self.ends)} workers were never at work at the same time: measure more steps")
        return (ended - began) * MS_PER_S / pushes


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The 10th and the 90th percentile, between values by straight lines.

    Example:
        >>> spread([0.0, 10.0])
        (1.0, 9.0)
    """
    if len(values) == 1:
        return values[0], values[0]
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return tenths[0], tenths[-1]


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times as long we take; None where something was not measured."""
    return None if ours is None or theirs is None else ours / theirs
