"""What the report's pictures are made of: curves, lags and a window of every slot's time, one pass over each log."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from psgd.analysis.iterations import Collector, Iterations
from psgd.analysis.run_figures import samples_per_step
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
    collector = Collector()
    evaluations: list[Evaluation] = []
    settings: Mapping[str, Any] = {}
    seconds: float | None = None
    for record in read(log):
        match record:
            case Iteration():
                collector.add(record)
            case Evaluation():
                evaluations.append(record)
            case Header():
                settings = record.settings
            case Footer():
                seconds = record.figures.get("seconds")
            case _:
                pass
    return _series(collector.columns(), evaluations, settings, seconds)


def _series(
    iterations: Iterations, evaluations: list[Evaluation], settings: Mapping[str, Any], seconds: float | None
) -> RunSeries:
    slots = settings.get("slots") or len(np.unique(iterations.slot))
    seconds = seconds or (float(iterations.time_s[-1]) if len(iterations) else 0.0)
    order = ASYNC_ORDER if settings.get("mode") == "async" else SYNC_ORDER
    used = np.where(iterations.accepted, iterations.lr, np.nan)  # a push that made no update has no learning rate
    return RunSeries(
        settings=settings,
        seconds=seconds,
        test=_test_curves(evaluations, iterations, settings, slots),
        train_loss=_means(iterations, iterations.loss, slots),
        lr=_means(iterations, used, slots),
        lags=iterations.lags(),
        throughput=_throughput(iterations, seconds, slots),
        timeline=_timeline(iterations, slots, order) if len(iterations) else None,
    )


# ------------------------------------------------------------------ curves


def _test_curves(
    evaluations: Sequence[Evaluation], iterations: Iterations, settings: Mapping[str, Any], slots: int
) -> dict[str, Curve]:
    """Thinned to `MOST_POINTS`, the last one kept; a point stands where the steps before the evaluation had ended."""
    ends = iterations.step_ends(slots, rounds=settings.get("mode") != "async")
    shown = _thin(evaluations)
    seconds = tuple(float(ends[min(max(each.step, 1), len(ends)) - 1]) if len(ends) else each.time_s for each in shown)
    if settings.get("slots") and settings.get("batch_size"):
        samples = tuple(float(each.step * samples_per_step(settings)) for each in shown)
    else:  # an own loop's batches are as large as it likes
        drawn = np.concatenate([[0], np.cumsum(iterations.samples)])
        samples = _floats(drawn[np.searchsorted(iterations.time_s, seconds, side="right")])
    names = sorted({name for each in evaluations for name in each.metrics})
    return {name: Curve(samples, seconds, tuple(_finite(each.metrics.get(name)) for each in shown)) for name in names}


def _thin(evaluations: Sequence[Evaluation]) -> Sequence[Evaluation]:
    if len(evaluations) <= MOST_POINTS:
        return evaluations
    return [evaluations[int(index)] for index in np.linspace(0, len(evaluations) - 1, MOST_POINTS)]


def _means(iterations: Iterations, values: Numbers, slots: int) -> Curve:
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
    return value if value is not None and math.isfinite(value) else None


def _throughput(iterations: Iterations, seconds: float, slots: int) -> Curve:
    """Parts are long enough that a step of the barrier does not make them jump."""
    if not len(iterations) or seconds <= 0:
        return Curve()
    bins = min(MOST_BINS, max(1, len(iterations) // (3 * max(slots, 1))))
    edges = np.linspace(0.0, max(seconds, float(iterations.time_s[-1])), bins + 1)
    counted = np.where(iterations.accepted, iterations.samples, 0).astype(float)
    sums, _ = np.histogram(iterations.time_s, edges, weights=counted)
    drawn_so_far = np.cumsum(np.histogram(iterations.time_s, edges, weights=iterations.samples.astype(float))[0])
    return Curve(_floats(drawn_so_far), _floats(edges[1:]), _floats(sums / (edges[1] - edges[0])))


def _floats(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(map(float, values))


# ------------------------------------------------------------------ the timeline


def _timeline(iterations: Iterations, slots: int, order: Sequence[Kind]) -> Timeline:
    """The middle of the run by its iterations, without its start-up and its end."""
    held = min(len(iterations), WINDOW_ITERATIONS * slots)
    first = (len(iterations) - held) // 2
    began_s = iterations.time_s - iterations.compute_s - iterations.wait_s - iterations.transfer_s
    start = float(iterations.time_s[first - 1]) if first else max(0.0, float(began_s.min()))
    end = float(iterations.time_s[first + held - 1])
    shown = _evenly(np.unique(iterations.slot).tolist())
    within = np.isin(iterations.slot, shown) & (iterations.time_s > start) & (began_s < end)
    segments: dict[int, list[Segment]] = {slot: [] for slot in shown}
    for row in np.flatnonzero(within).tolist():
        before = segments[int(iterations.slot[row])]
        before += _segments(iterations, row, float(began_s[row]), before, order)
    return Timeline(slots, start, end, {slot: tuple(found) for slot, found in segments.items()})


def _segments(
    iterations: Iterations, row: int, began_s: float, before: Sequence[Segment], order: Sequence[Kind]
) -> list[Segment]:
    """An iteration ends at ``time_s``; its durations lie before that, and never over the iteration before it."""
    columns = {"compute": iterations.compute_s, "transfer": iterations.transfer_s, "wait": iterations.wait_s}
    free_from = before[-1][1] if before else -math.inf
    at = began_s
    found: list[Segment] = []
    for kind in order:
        start, at = max(at, free_from), at + float(columns[kind][row])
        if at > start:
            found.append((start, at, kind))
    return found


def _evenly(slots: Sequence[int]) -> Sequence[int]:
    if len(slots) <= MOST_SLOTS:
        return slots
    return [slots[int(index)] for index in np.linspace(0, len(slots) - 1, MOST_SLOTS).round()]
