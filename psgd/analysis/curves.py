"""Quantities in the course of a run: what evaluations have measured, losses, learning rates, throughput."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psgd.analysis.iterations import Iterations
from psgd.runlog import Evaluation

MOST_POINTS = 150
"""Of a curve of means."""
MOST_BINS = 60
"""Of the throughput over a run."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """A quantity in the course of a run; all three have the same length.

    Args:
        samples: drawn so far, by all slots, ascending.
        seconds: since the run's start, ascending.
        values: None where the log has none, which after numbers means NaN or Inf.
    """

    samples: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    values: tuple[float | None, ...] = ()

    @property
    def diverged(self) -> bool:
        """Whether it began with numbers and has ended without."""
        return self.tells and self.values[-1] is None

    @property
    def tells(self) -> bool:
        """Whether there is a number in it."""
        return any(value is not None for value in self.values)

    @property
    def points(self) -> Iterator[tuple[float, float, float]]:
        """(samples, seconds, value) where there is a value."""
        for samples, seconds, value in zip(self.samples, self.seconds, self.values, strict=True):
            if value is not None:
                yield samples, seconds, value


NO_CURVE = Curve()


def samples_per_step(settings: Mapping[str, Any]) -> int:
    """How many samples the slots draw for one step, by the log's header: a mini-batch each, or several local steps.

    Example:
        >>> samples_per_step({"slots": 4, "batch_size": 32, "local_steps": {"steps": 8}})
        1024
    """
    each: int = settings["slots"] * settings["batch_size"]
    return batches_per_step(settings) * each


def batches_per_step(settings: Mapping[str, Any]) -> int:
    """How many mini-batches each slot draws for one step."""
    local = settings.get("local_steps")
    return 1 if local is None else int(local["steps"])


def curves_of(
    evaluations: Sequence[Evaluation], iterations: Iterations, settings: Mapping[str, Any], slots: int, rounds: bool
) -> dict[str, Curve]:
    """The evaluations' metrics, by their names without ``test_``.

    A point stands where the steps before the evaluation had ended, however long the evaluator took.

    Args:
        settings: the log's header.
        rounds: whether slots meet at a barrier.
    """
    ends = iterations.step_ends(slots, rounds)
    seconds = tuple(
        float(ends[min(max(each.step, 1), len(ends)) - 1]) if len(ends) else each.time_s for each in evaluations
    )
    if settings.get("slots") and settings.get("batch_size"):
        samples = tuple(float(each.step * samples_per_step(settings)) for each in evaluations)
    else:  # an own loop's batches are as large as it likes
        drawn = np.concatenate([[0], np.cumsum(iterations.samples)])
        samples = _floats(drawn[np.searchsorted(iterations.time_s, seconds, side="right")])
    names = sorted({name for each in evaluations for name in each.metrics})
    return {
        name.removeprefix("test_"): Curve(
            samples, seconds, tuple(_finite(each.metrics.get(name)) for each in evaluations)
        )
        for name in names
    }


def means_of(iterations: Iterations, values: Numbers, slots: int) -> Curve:
    """Means over equally many iterations, at least one of each slot on average; points stand where a part ends.

    What comes after the last number is NaN or Inf; gaps before it (pushes that were refused) are left out of the means.
    """
    count = len(iterations)
    parts = min(MOST_POINTS, count // max(slots, 1)) or min(1, count)
    if not parts:
        return Curve()
    ends = [(part + 1) * count // parts for part in range(parts)]
    drawn = np.cumsum(iterations.samples)
    means = [_mean(values[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]
    last = np.array(ends) - 1
    curve = Curve(_floats(drawn[last]), _floats(iterations.time_s[last]), tuple(means))
    return curve if curve.tells else Curve()


def _mean(values: Numbers) -> float | None:
    found = values[~np.isnan(values)]
    return float(found.mean()) if len(found) else None


def _finite(value: float | None) -> float | None:
    return value if is_finite(value) else None


def throughput_of(iterations: Iterations, seconds: float, slots: int) -> Curve:
    """Accepted samples a second, over equally long parts of the run; a value stands at its part's end.

    Parts are long enough that a step of the barrier does not make them jump.

    Args:
        seconds: that the run took.
    """
    if not len(iterations):
        return Curve()
    bins = min(MOST_BINS, max(1, len(iterations) // (3 * max(slots, 1))))
    edges = np.linspace(0.0, max(seconds, float(iterations.time_s[-1])), bins + 1)
    counted = np.where(iterations.accepted, iterations.samples, 0).astype(float)
    sums, _ = np.histogram(iterations.time_s, edges, weights=counted)
    drawn_so_far = np.cumsum(np.histogram(iterations.time_s, edges, weights=iterations.samples.astype(float))[0])
    return Curve(_floats(drawn_so_far), _floats(edges[1:]), _floats(sums / (edges[1] - edges[0])))


def _floats(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(map(float, values))


def is_finite(value: Any) -> bool:
    """Whether it is a number that can be drawn and averaged."""
    return isinstance(value, int | float) and math.isfinite(value)
