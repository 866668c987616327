"""One run, as its folder tells it: the settings, the figures, and the curves against samples and seconds."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psgd.analysis.iterations import Collector, Curve, Floats, TimeCurve
from psgd.errors import DataError
from psgd.runlog import FILE_NAME, Evaluation, Footer, Goal, Header, Iteration, read

TRAIN_METRICS_NAME = "train_metrics.json"
"""Beside the log: what the final weights reach on the training set, names as in evaluations without ``test_``."""


@dataclass(frozen=True, slots=True)
class Reached:
    """When a target was met for the first time.

    Args:
        samples: that all slots had drawn by then.
        seconds: since the run began; None if the log has no iterations.
        samples_before: at the evaluation before, where it was not met yet; 0 if there was none.
        seconds_before: at that evaluation.
    """

    samples: int
    seconds: float | None
    samples_before: int = 0
    seconds_before: float = 0.0


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A complete run.

    Args:
        settings: the log's header.
        versions: of the software.
        figures: the log's footer.
        test: the curves of the evaluations, by the metric's name without ``test_``.
        final_test: the last evaluation's metrics, without ``test_``; what was NaN or Inf is left out.
        train_loss: the mean loss of the mini-batches, as training went on.
        final_train: the final weights' metrics on the training set; empty if nobody has measured them.
        test_by_time: the points of ``test`` against seconds: when the steps before an evaluation had finished, however
            long the evaluator took. Empty if the log has no iterations.
        train_loss_by_time: the mean loss of the mini-batches against seconds.
        measured: what the iterations tell, by the names of figures: ``wait_share``, ``lag_mean``, …
        lags: lag to the number of accepted pushes that had it.
        heard: iterations that each slot has finished, and how many of them were accepted.
        folder: where the run is.
    """

    settings: dict[str, Any]
    versions: dict[str, str]
    figures: dict[str, Any]
    test: dict[str, Curve] = field(default_factory=dict)
    final_test: dict[str, float] = field(default_factory=dict)
    train_loss: Curve = ()
    final_train: dict[str, float] = field(default_factory=dict)
    test_by_time: dict[str, TimeCurve] = field(default_factory=dict)
    train_loss_by_time: TimeCurve = ()
    measured: dict[str, float] = field(default_factory=dict)
    lags: dict[int, int] = field(default_factory=dict)
    heard: tuple[tuple[int, int], ...] = ()
    folder: Path = Path()

    @property
    def diverged(self) -> bool:
        """Whether its losses have ended as NaN or Inf, which a log holds as null; without gradients there are none."""
        if not self.has_gradients:
            return False
        untold = "loss" in self.test and "loss" not in self.final_test
        return untold or self.figures.get("train_loss") is None

    @property
    def has_gradients(self) -> bool:
        """Whether anything was trained: a simulation may be of times alone."""
        return self.settings.get("gradients") != "none"

    @property
    def simulated(self) -> bool:
        """Whether its seconds are those of a simulated world."""
        return self.settings.get("world") is not None

    def figure(self, name: str) -> float | None:
        """A figure that the log's last line has, else one that follows from the iterations; None if neither does."""
        value = self.figures.get(name)
        return value if is_finite(value) else self.measured.get(name)

    def reach(self, metric: str, value: float, goal: Goal) -> Reached | None:
        """When the metric (without ``test_``) was as good as the value for the first time; None if it never was."""
        sign = 1 if goal == "max" else -1
        times = [seconds for seconds, _ in self.test_by_time.get(metric, ())]
        samples_before, seconds_before = 0, 0.0
        for place, (samples, found) in enumerate(self.test.get(metric, ())):
            seconds = times[place] if times else None
            if sign * found >= sign * value:
                return Reached(samples, seconds, samples_before, seconds_before)
            samples_before, seconds_before = samples, seconds or 0.0
        return None


def read_run(folder: Path) -> RunFigures | None:
    """The figures of the run in a folder.

    Returns:
        None if there is no run, or one that has not come to its end.

    Raises:
        DataError: if a file is damaged.
    """
    if not (folder / FILE_NAME).is_file():
        return None
    header, footer, collector = None, None, Collector()
    evaluations: list[Evaluation] = []
    for record in read(folder):
        footer = None
        match record:
            case Iteration():
                collector.add(record)
            case Evaluation():
                evaluations.append(record)
            case Header():
                header = record
            case Footer():
                footer = record
    if header is None or footer is None:
        return None
    settings, iterations = header.settings, collector.columns()
    slots = settings["slots"]
    drawn = samples_per_step(settings)
    ends = iterations.step_ends(slots, rounds=settings.get("mode") == "sync")
    return RunFigures(
        settings=settings,
        versions=header.versions,
        figures=footer.figures,
        test=_test_curves(evaluations, drawn),
        final_test=_finite(evaluations[-1].metrics) if evaluations else {},
        train_loss=iterations.losses(drawn, settings.get("steps")),
        final_train=_read_train_metrics(folder),
        test_by_time=_test_curves_by_time(evaluations, ends) if len(ends) else {},
        train_loss_by_time=iterations.losses_by_time(slots),
        measured=iterations.figures(settings.get("workers", slots)),
        lags=iterations.lags(),
        heard=iterations.heard(slots),
        folder=folder,
    )


def samples_per_step(settings: Mapping[str, Any]) -> int:
    """How many samples the slots draw for one step, by the log's header: a mini-batch each, or several local steps.

    Example:
        >>> samples_per_step({"slots": 4, "batch_size": 32, "local_steps": {"steps": 8}})
        1024
    """
    local = settings.get("local_steps")
    mini_batches: int = 1 if local is None else local["steps"]
    each: int = settings["slots"] * settings["batch_size"]
    return mini_batches * each


def _test_curves(evaluations: Sequence[Evaluation], drawn: int) -> dict[str, Curve]:
    return {
        name.removeprefix("test_"): tuple((each.step * drawn, value) for each, value in _values(evaluations, name))
        for name in _names(evaluations)
    }


def _test_curves_by_time(evaluations: Sequence[Evaluation], ends: Floats) -> dict[str, TimeCurve]:
    def end(step: int) -> float:
        return float(ends[min(max(step, 1), len(ends)) - 1])

    return {
        name.removeprefix("test_"): tuple((end(each.step), value) for each, value in _values(evaluations, name))
        for name in _names(evaluations)
    }


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    return sorted({name for evaluation in evaluations for name in evaluation.metrics})


def _values(evaluations: Sequence[Evaluation], name: str) -> list[tuple[Evaluation, float]]:
    return [(each, each.metrics[name]) for each in evaluations if is_finite(each.metrics.get(name))]


def _read_train_metrics(folder: Path) -> dict[str, float]:
    file = folder / TRAIN_METRICS_NAME
    if not file.is_file():
        return {}
    try:
        return _finite(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, AttributeError) as error:
        raise DataError(
            f"{file}: expected metrics as JSON, got {error}; remove it to have them measured again"
        ) from None


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    return {name.removeprefix("test_"): value for name, value in metrics.items() if is_finite(value)}


def is_finite(value: Any) -> bool:
    """Whether it is a number that can be drawn and averaged."""
    return isinstance(value, int | float) and math.isfinite(value)
