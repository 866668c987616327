"""What the report's pictures are made of: curves, lags and a window of every slot's time, one pass over each log."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from psgd.core.messages import Status
from psgd.runlog import FILE_NAME, Evaluation, Footer, Header, Iteration, read

MOST_POINTS = 150
"""Of a curve."""
MOST_BINS = 60
"""Of the throughput over a run."""
MOST_SLOTS = 24
"""Rows of the timeline."""
WINDOW_ITERATIONS = 24
"""Iterations of an average slot that the timeline's window holds."""

Kind = Literal["compute", "transfer", "wait"]
Segment = tuple[float, float, Kind]
"""(start, end, what the slot did), in seconds since the run's start."""
Numbers = NDArray[np.float64]

SYNC_ORDER: tuple[Kind, ...] = ("compute", "transfer", "wait")
"""At a barrier the wait ends an iteration."""
ASYNC_ORDER: tuple[Kind, ...] = ("wait", "compute", "transfer")
"""On arrival the wait for the grant, and for the slots that share the worker, comes before all else."""


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


@dataclass(frozen=True, slots=True)
class Timeline:
    """What slots did in a window in the middle of a run.

    The log has the sums of an iteration, not the order within it: see `SYNC_ORDER` and `ASYNC_ORDER`.

    Args:
        slots: how many the run has; ``segments`` holds evenly chosen ones if they are more than `MOST_SLOTS`.
        start_s: of the window.
        end_s: of the window.
        segments: of each slot that is shown, in order of time; they may begin before the window and end after it.
    """

    slots: int
    start_s: float
    end_s: float
    segments: Mapping[int, tuple[Segment, ...]]


@dataclass(frozen=True, slots=True)
class RunSeries:
    """One run.

    Args:
        settings: the log's header.
        seconds: that it took.
        test: the evaluations' curves by the metric's name, such as ``test_accuracy``.
        train_loss: means of the mini-batches over equally many iterations.
        lr: of the first parameter group, as it was used; the mean over the same iterations.
        lags: of accepted pushes, to their number.
        throughput: accepted samples a second, over equally long parts of the run; a value stands at its part's end.
        timeline: None if no iteration has ended.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    test: Mapping[str, Curve] = field(default_factory=dict)
    train_loss: Curve = Curve()
    lr: Curve = Curve()
    lags: Mapping[int, int] = field(default_factory=dict)
    throughput: Curve = Curve()
    timeline: Timeline | None = None

    @property
    def seed(self) -> int | None:
        """Of weights, data order and everything random."""
        return self.settings.get("seed")

    @property
    def diverged(self) -> bool:
        """Whether a loss has ended as NaN or Inf, which logs hold as null."""
        return self.train_loss.diverged or self.test.get("test_loss", Curve()).diverged


@dataclass(frozen=True, slots=True)
class ModeSeries:
    """The runs of a mode, one a seed.

    Args:
        name: the mode as the report names it.
        runs: those of which there is a log.
    """

    name: str
    runs: tuple[RunSeries, ...]


def read_series(report: Mapping[str, Any], base: Path) -> tuple[ModeSeries, ...]:
    """The series of every mode of a report.

    Args:
        report: as ``report.json`` has it; each mode names the folders of its runs.
        base: the folder that those are relative to. Where there is no log, a run has failed, which the report tells.

    Raises:
        DataError: if a log is damaged.
    """
    return tuple(
        ModeSeries(mode["name"], tuple(map(read_run_series, _logs(base, mode.get("folders") or ()))))
        for mode in report["modes"]
    )


def _logs(base: Path, folders: Iterable[str | None]) -> list[Path]:
    return [base / folder for folder in folders if folder is not None and (base / folder / FILE_NAME).is_file()]


def read_run_series(log: Path) -> RunSeries:
    """The series of one run.

    Args:
        log: the file, or the folder that holds it; a run that was cut short has what it got to.

    Raises:
        DataError: if there is no log, or a line is no record.
    """
    iterations: list[Iteration] = []
    evaluations: list[Evaluation] = []
    settings: Mapping[str, Any] = {}
    seconds: float | None = None
    for record in read(log):
        match record:
            case Iteration():
                iterations.append(record)
            case Evaluation():
                evaluations.append(record)
            case Header():
                settings = record.settings
            case Footer():
                seconds = record.figures.get("seconds")
            case _:
                pass
    return _series(iterations, evaluations, settings, seconds)


def _series(
    iterations: list[Iteration], evaluations: list[Evaluation], settings: Mapping[str, Any], seconds: float | None
) -> RunSeries:
    iterations.sort(key=lambda each: each.time_s)  # workers are heard of in turns
    slots = settings.get("slots") or len({each.slot for each in iterations})
    seconds = seconds or max((each.time_s for each in iterations), default=0.0)
    order = ASYNC_ORDER if settings.get("mode") == "async" else SYNC_ORDER
    accepted = [each for each in iterations if each.status == Status.ACCEPTED]
    return RunSeries(
        settings=settings,
        seconds=seconds,
        test=_test_curves(evaluations, iterations, settings, slots),
        train_loss=_means(iterations, [each.loss for each in iterations], slots),
        lr=_means(iterations, [_lr(each) for each in iterations], slots),
        lags=dict(sorted(Counter(each.lag for each in accepted).items())),
        throughput=_throughput(iterations, seconds, slots),
        timeline=_timeline(iterations, slots, order) if iterations else None,
    )


def _lr(iteration: Iteration) -> float | None:
    """Of an update; a push that made none has no learning rate."""
    return iteration.lr[0] if iteration.lr and iteration.status == Status.ACCEPTED else None


# ------------------------------------------------------------------ curves


def _test_curves(
    evaluations: Sequence[Evaluation], iterations: Sequence[Iteration], settings: Mapping[str, Any], slots: int
) -> dict[str, Curve]:
    """Thinned to `MOST_POINTS`, the last one kept; a point stands where the steps before the evaluation had ended."""
    ends = _step_ends(iterations, slots, rounds=settings.get("mode") != "async")
    shown = _thin(evaluations)
    seconds = tuple(ends[min(max(each.step, 1), len(ends)) - 1] if ends else each.time_s for each in shown)
    drawn_a_step = _drawn_a_step(settings)
    if drawn_a_step:
        samples = tuple(float(each.step * drawn_a_step) for each in shown)
    else:
        samples = _drawn_until(iterations, seconds)
    names = sorted({name for each in evaluations for name in each.metrics})
    return {name: Curve(samples, seconds, tuple(_finite(each.metrics.get(name)) for each in shown)) for name in names}


def _step_ends(iterations: Sequence[Iteration], slots: int, rounds: bool) -> list[float]:
    """When as many iterations had ended as make 1, 2, … steps.

    In rounds those count that the step accepted: late ones may come long after. On arrival any ``slots`` ones do.
    """
    if not rounds:
        return [each.time_s for each in iterations[slots - 1 :: slots]]
    updated = {each.step for each in iterations if each.status == Status.ACCEPTED}
    ends: dict[int, float] = {}
    for each in iterations:
        if each.status == Status.ACCEPTED or each.step not in updated:
            ends[each.step] = each.time_s
    return list(accumulate((ends.get(step, 0.0) for step in range(max(ends, default=-1) + 1)), max))


def _drawn_a_step(settings: Mapping[str, Any]) -> int | None:
    """Samples that the slots draw for a step: a mini-batch each, or one for each local step; own loops do not say."""
    slots, batch, local = (settings.get(key) for key in ("slots", "batch_size", "local_steps"))
    return slots * batch * (local["steps"] if local else 1) if slots and batch else None


def _drawn_until(iterations: Sequence[Iteration], seconds: Sequence[float]) -> tuple[float, ...]:
    drawn = [0, *accumulate(each.samples for each in iterations)]
    times = [each.time_s for each in iterations]
    return tuple(float(drawn[bisect_right(times, each)]) for each in seconds)


def _thin(evaluations: Sequence[Evaluation]) -> Sequence[Evaluation]:
    if len(evaluations) <= MOST_POINTS:
        return evaluations
    return [evaluations[int(index)] for index in np.linspace(0, len(evaluations) - 1, MOST_POINTS)]


def _means(iterations: Sequence[Iteration], values: Sequence[float | None], slots: int) -> Curve:
    """Means over equally many iterations, at least one of each slot on average; points stand where a part ends.

    What comes after the last number is NaN or Inf; gaps before it (pushes that were refused) are left out of the means.
    """
    parts = min(MOST_POINTS, len(iterations) // max(slots, 1)) or min(1, len(iterations))
    if not parts:
        return Curve()
    ends = [(part + 1) * len(iterations) // parts for part in range(parts)]
    drawn = np.cumsum([each.samples for each in iterations])
    means = [_mean(values[begin:end]) for begin, end in zip([0, *ends], ends, strict=False)]
    curve = Curve(
        tuple(float(drawn[end - 1]) for end in ends), tuple(iterations[end - 1].time_s for end in ends), tuple(means)
    )
    return curve if curve.tells else Curve()


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _throughput(iterations: Sequence[Iteration], seconds: float, slots: int) -> Curve:
    """Parts are long enough that a step of the barrier does not make them jump."""
    if not iterations or seconds <= 0:
        return Curve()
    bins = min(MOST_BINS, max(1, len(iterations) // (3 * max(slots, 1))))
    times = np.array([each.time_s for each in iterations])
    drawn = np.array([each.samples for each in iterations], dtype=float)
    counted = np.array([each.samples if each.status == Status.ACCEPTED else 0 for each in iterations], dtype=float)
    edges = np.linspace(0.0, max(seconds, float(times[-1])), bins + 1)
    sums, _ = np.histogram(times, edges, weights=counted)
    drawn_so_far = np.cumsum(np.histogram(times, edges, weights=drawn)[0])
    return Curve(_floats(drawn_so_far), _floats(edges[1:]), _floats(sums / (edges[1] - edges[0])))


def _floats(values: Numbers) -> tuple[float, ...]:
    return tuple(map(float, values))


# ------------------------------------------------------------------ the timeline


def _timeline(iterations: Sequence[Iteration], slots: int, order: Sequence[Kind]) -> Timeline:
    """The middle of the run by its iterations, without its start-up and its end."""
    held = min(len(iterations), WINDOW_ITERATIONS * slots)
    first = (len(iterations) - held) // 2
    start = (
        iterations[first - 1].time_s if first else max(0.0, min(each.time_s - _elapsed(each) for each in iterations))
    )
    end = iterations[first + held - 1].time_s
    shown = _evenly(sorted({each.slot for each in iterations}))
    segments: dict[int, list[Segment]] = {slot: [] for slot in shown}
    for each in iterations:
        if each.slot in segments and each.time_s > start and each.time_s - _elapsed(each) < end:
            segments[each.slot] += _segments(each, segments[each.slot], order)
    return Timeline(slots, start, end, {slot: tuple(found) for slot, found in segments.items()})


def _segments(iteration: Iteration, before: Sequence[Segment], order: Sequence[Kind]) -> list[Segment]:
    """An iteration ends at ``time_s``; its durations lie before that, and never over the iteration before it."""
    durations: dict[Kind, float] = {
        "compute": iteration.compute_s,
        "transfer": iteration.transfer_s,
        "wait": iteration.wait_s,
    }
    free_from = before[-1][1] if before else -math.inf
    at = iteration.time_s - _elapsed(iteration)
    found: list[Segment] = []
    for kind in order:
        start, at = max(at, free_from), at + durations[kind]
        if at > start:
            found.append((start, at, kind))
    return found


def _elapsed(iteration: Iteration) -> float:
    return iteration.compute_s + iteration.wait_s + iteration.transfer_s


def _evenly(slots: Sequence[int]) -> Sequence[int]:
    if len(slots) <= MOST_SLOTS:
        return slots
    return [slots[int(index)] for index in np.linspace(0, len(slots) - 1, MOST_SLOTS).round()]
