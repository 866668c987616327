"""One run, as its folder tells it: the settings, the figures, and the curves against samples and seconds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from psgd.analysis.curves import NO_CURVE, Curve, curves_of, is_finite, means_of, throughput_of
from psgd.analysis.iterations import Collector
from psgd.analysis.timeline import Timeline, timeline_of
from psgd.errors import DataError
from psgd.runlog import FILE_NAME, Evaluation, Footer, Goal, Header, Iteration, read

TRAIN_METRICS_NAME = "train_metrics.json"
"""Beside the log: what the final weights reach on the training set, names as in evaluations without ``test_``."""

LEAST = {"slots": 1, "batch_size": 1, "seed": 0}
"""Settings that every log has, and their least values."""


@dataclass(frozen=True, slots=True)
class Reached:
    """When a target was met for the first time.

    Args:
        samples: that all slots had drawn by then.
        seconds: since the run began.
        samples_before: at the evaluation before, where it was not met yet; 0 if there was none.
        seconds_before: at that evaluation.
    """

    samples: int
    seconds: float
    samples_before: int = 0
    seconds_before: float = 0.0


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A complete run.

    Args:
        settings: the log's header.
        versions: of the software.
        figures: the log's footer.
        test: what evaluations measured, by the metric's name without ``test_``.
        final_test: the last evaluation's metrics, without ``test_``; what was NaN or Inf is left out.
        train_loss: means of the mini-batches over equally many iterations.
        final_train: the final weights' metrics on the training set; empty if nobody has measured them.
        lr: of the first parameter group, as it was used; the mean over the same iterations.
        throughput: accepted samples a second.
        timeline: a window of every slot's time; None if no iteration has ended.
        measured: what the iterations tell, by the names of figures: ``wait_share``, ``lag_mean``, …
        lags: lag to the number of accepted pushes that had it.
        heard: iterations that each slot has finished, and how many of them were accepted.
        folder: where the run is.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Curve] = field(default_factory=dict)
    final_test: dict[str, float] = field(default_factory=dict)
    train_loss: Curve = NO_CURVE
    final_train: dict[str, float] = field(default_factory=dict)
    lr: Curve = NO_CURVE
    throughput: Curve = NO_CURVE
    timeline: Timeline | None = None
    measured: dict[str, float] = field(default_factory=dict)
    lags: dict[int, int] = field(default_factory=dict)
    heard: tuple[tuple[int, int], ...] = ()
    folder: Path = Path()

    @property
    def seed(self) -> int | None:
        """Of weights, data order and everything random."""
        return self.settings.get("seed")

    @property
    def diverged(self) -> bool:
        """Whether its loss has ended as NaN or Inf, which a log holds as null: that of the test set if it was measured.

        Without gradients there is no loss, and in a loop of one's own there need not be any.
        """
        if not self.has_gradients:
            return False
        if tested := self.test.get("loss", NO_CURVE).values:
            return tested[-1] is None
        unknown = self.settings.get("own_loop") or self.figures.get("train_loss", 0.0) is not None
        return self.train_loss.diverged or not unknown

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
        samples_before, seconds_before = 0, 0.0
        for samples, seconds, found in self.test.get(metric, NO_CURVE).points:
            if sign * found >= sign * value:
                return Reached(int(samples), seconds, samples_before, seconds_before)
            samples_before, seconds_before = int(samples), seconds
        return None


def read_run(folder: Path) -> RunFigures | None:
    """The figures of the run in a folder.

    Returns:
        None if there is no run, or one that has not come to its end.

    Raises:
        DataError: if a file is damaged, or does not say what figures are made of.
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
    settings, figures, iterations = header.settings, footer.figures, collector.columns()
    _check_settings(settings, folder / FILE_NAME)
    slots, rounds = settings["slots"], settings.get("mode") != "async"
    if len(iterations) and (last := int(iterations.slot.max())) >= slots:
        raise DataError(f"{folder / FILE_NAME}: slots must be 0 … {slots - 1} as the header says, got {last}")
    used = np.where(iterations.accepted, iterations.lr, np.nan)  # a push that made no update has no learning rate
    seconds: Any = figures.get("seconds")
    return RunFigures(
        settings=settings,
        versions=header.versions,
        figures=figures,
        test=curves_of(evaluations, iterations, settings, slots, rounds),
        final_test=_finite(evaluations[-1].metrics) if evaluations else {},
        train_loss=means_of(iterations, iterations.loss, slots),
        final_train=_read_train_metrics(folder),
        lr=means_of(iterations, used, slots),
        throughput=throughput_of(iterations, seconds if is_finite(seconds) else 0.0, slots),
        timeline=timeline_of(iterations, slots, rounds),
        measured=iterations.figures(),
        lags=iterations.lags(),
        heard=iterations.heard(slots),
        folder=folder,
    )


def _check_settings(settings: Mapping[str, Any], log: Path) -> None:
    """Refuse a header that figures can not be made of: psgd has not written it."""
    local = settings.get("local_steps")
    named = {name: settings.get(name, {}) for name in ("options", "optimizer_args")}
    for name, value in {**named, "local_steps": {} if local is None else local}.items():
        if not isinstance(value, dict):
            raise DataError(f"{log}: the header's {name} must be values by name, got {value!r}")
    free = ["steps", "workers"]
    if settings.get("own_loop") and "batch_size" in settings:  # its batches need have no size in common
        free.append("batch_size")
    counts = {name: settings.get(name) for name in (*LEAST, *free)}
    counts = {name: value for name, value in counts.items() if value is not None or name not in free}
    counts |= {} if local is None else {"local_steps.steps": local.get("steps")}
    for name, value in counts.items():
        least = LEAST.get(name, 1)
        if type(value) is not int or value < least:
            got = "none" if value is None else repr(value)
            raise DataError(f"{log}: the header's {name} must be a whole number >= {least}, got {got}")


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
