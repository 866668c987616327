"""What trials have come to, and which of them is the best."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from psgd.runlog import Goal
from psgd.tuning.space import Point

Status = Literal["done", "stopped", "diverged", "refused", "failed"]
"""Trained to its end; stopped early by the scheduler; without a finite metric; not to be run as it is; broken."""

RANKS: Sequence[Status] = get_args(Status)


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation of a trial.

    Args:
        step: of the training.
        seconds: since the training began.
        metrics: as evaluations name them.
    """

    step: int
    seconds: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting, and what came of it.

    Args:
        number: trials are counted from 0, in the order in which they began.
        point: the setting, as the search knows it.
        reason: why it was stopped, refused or has failed.
        evaluations: in their order; the last one's metrics are the trial's.
    """

    number: int
    point: Point
    status: Status
    reason: str | None = None
    evaluations: tuple[Measured, ...] = ()

    @property
    def step(self) -> int:
        """How far it was trained."""
        return self.evaluations[-1].step if self.evaluations else 0

    @property
    def seconds(self) -> float:
        """How long it was trained, without its start."""
        return self.evaluations[-1].seconds if self.evaluations else 0.0

    def value(self, metric: str) -> float | None:
        """The metric that the trial ended with; None if it has broken down, or the metric is not finite."""
        if self.status not in ("done", "stopped") or not self.evaluations:
            return None
        last = self.evaluations[-1].metrics.get(metric, math.nan)
        return last if math.isfinite(last) else None


def ranked(trials: Iterable[Trial], metric: str, goal: Goal) -> list[Trial]:
    """The best first: those trained to their end, then those stopped early, then those without a metric."""
    sign = 1 if goal == "min" else -1

    def rank(trial: Trial) -> tuple[int, float, int]:
        value = trial.value(metric)
        return RANKS.index(trial.status), math.inf if value is None else sign * value, trial.number

    return sorted(trials, key=rank)


def best(trials: Iterable[Trial], metric: str, goal: Goal) -> Trial | None:
    """The best trial; None if none has a metric."""
    first = next(iter(ranked(trials, metric, goal)), None)
    return first if first is not None and first.value(metric) is not None else None


def as_plain(trial: Trial) -> dict[str, Any]:
    """The trial as JSON's own types; what is not finite is null."""
    evaluations = [{**asdict(each), "metrics": _finite(each.metrics)} for each in trial.evaluations]
    return {**asdict(trial), "evaluations": evaluations}


def _finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def from_plain(plain: Mapping[str, Any]) -> Trial:
    """The trial that `as_plain` has written.

    Raises:
        KeyError: if a field is missing.
        TypeError: if there is one that trials have not.
    """
    evaluations = tuple(
        Measured(each["step"], each["seconds"], {name: _number(value) for name, value in each["metrics"].items()})
        for each in plain["evaluations"]
    )
    return Trial(**{**plain, "evaluations": evaluations})


def _number(value: float | None) -> float:
    return math.nan if value is None else value
