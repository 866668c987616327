"""Arms beside each other: what each reaches at its best learning rate, how seeds spread, and what to think of it."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from psgd.analysis.run_figures import RunFigures
from psgd.runlog import Goal, goal_of


@dataclass(frozen=True, slots=True)
class Metric:
    """What arms are judged by.

    Args:
        name: without ``test_``.
    """

    name: str

    @property
    def goal(self) -> Goal:
        """Whether more or less of it is better."""
        return goal_of(self.name)

    def words(self, value: float | None) -> str:
        """A value, for people.

        Example:
            >>> Metric("accuracy").words(0.98765)
            '98.77 %'
        """
        if value is None:
            return "–"
        return f"{100 * value:.2f} %" if self.name == "accuracy" else f"{value:.4f}"


METRICS = (Metric("accuracy"), Metric("rmse"), Metric("loss"))
"""By which of what was measured arms are judged: the first that there is."""


def judged_by(names: Iterable[str]) -> Metric:
    """The metric that tells most, of those that evaluations have (with or without ``test_``).

    Example:
        >>> judged_by(["test_loss", "test_accuracy"]).name
        'accuracy'
    """
    known = {name.removeprefix("test_") for name in names}
    return next((metric for metric in METRICS if metric.name in known), METRICS[-1])


@dataclass(frozen=True, slots=True)
class Budget:
    """What every run of a comparison gets.

    Args:
        kind: equally many samples; equally many seconds; or as much as it needs to reach the target.
        amount: the seconds; None where the runs' settings say how long they may be.
    """

    kind: Literal["samples", "seconds", "target"] = "samples"
    amount: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What runs are to reach.

    Args:
        metric: as evaluations name it: ``test_accuracy``.
    """

    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the seeds.

    Args:
        median: None if half of the runs or more have none.
        low: the least; None if no run has one.
        high: the greatest.
    """

    median: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float | None], goal: Goal = "min") -> "Spread":
        """The spread of the runs' values; one that is missing counts as the worst there is.

        Example:
            >>> Spread.of([0.5, None, 0.75], "max")
            Spread(median=0.5, low=0.5, high=0.75)
        """
        worst = math.inf if goal == "min" else -math.inf
        found = [value for value in values if value is not None]
        median = statistics.median([worst if value is None else value for value in values] or [worst])
        return cls(median if math.isfinite(median) else None, min(found, default=None), max(found, default=None))


@dataclass(frozen=True, slots=True)
class Rate:
    """The runs of an arm with one learning rate.

    Args:
        runs: one a seed, in the order of the seeds; None where there is no complete run.
    """

    lr: float
    runs: tuple[RunFigures | None, ...]

    @property
    def complete(self) -> tuple[RunFigures, ...]:
        """Those that have come to their end."""
        return tuple(run for run in self.runs if run is not None)

    @property
    def diverged(self) -> int:
        """How many of them have ended with NaN or Inf."""
        return sum(run.diverged for run in self.complete)

    def test(self, metric: Metric) -> Spread:
        """The final test metric; a run that has diverged has none."""
        values = [None if run.diverged else run.final_test.get(metric.name) for run in self.complete]
        return Spread.of(values, metric.goal)

    def train(self, metric: Metric) -> Spread:
        """The same on the training set."""
        values = [None if run.diverged else run.final_train.get(metric.name) for run in self.complete]
        return Spread.of(values, metric.goal)

    def figure(self, name: str) -> Spread:
        """A figure of the logs' last lines, such as ``seconds``."""
        return Spread.of([run.figures.get(name) for run in self.complete])


@dataclass(frozen=True, slots=True)
class ArmRuns:
    """All runs of an arm.

    Args:
        optimizer: as it was written, such as ``sgd:momentum=0.9``.
        mode: as it was written, such as ``async:4``.
        about: what machines should know of it; plain JSON.
        rates: ascending.
    """

    optimizer: str
    mode: str
    rates: tuple[Rate, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def best(self, metric: Metric) -> Rate:
        """The learning rate with the best median over the seeds; of equals the lowest.

        The choice looks at the test set: the figure of an arm with several learning rates is the best of several.
        """
        sign = 1 if metric.goal == "max" else -1

        def merit(rate: Rate) -> float:
            median = rate.test(metric).median
            return -math.inf if median is None else sign * median

        return max(self.rates, key=merit)


@dataclass(frozen=True, slots=True)
class ComparisonFigures:
    """A comparison: what its tables and pictures are made of.

    Args:
        seeds: of each arm and learning rate.
        arms: in the order in which they were asked for.
        budget: of every run.
        target: None: nobody has asked for one.
    """

    seeds: tuple[int, ...]
    arms: tuple[ArmRuns, ...]
    budget: Budget = Budget()
    target: Target | None = None

    def runs(self) -> list[RunFigures]:
        """Every complete run."""
        return [run for arm in self.arms for rate in arm.rates for run in rate.complete]

    @property
    def metric(self) -> Metric:
        """What the arms are judged by."""
        return judged_by(name for run in self.runs() for name in run.test)

    @property
    def title(self) -> str:
        """What was trained, as far as the logs say, and on how much."""
        runs = self.runs()
        if not runs:
            return "no run has come to its end"
        settings = runs[0].settings
        options = settings.get("options", {})
        what = f"{options['model']} on {options['data']}, " if {"model", "data"} <= options.keys() else ""
        return f"{what}{settings['slots']} slots of {settings['batch_size']}, {settings['steps']:,} steps"

    @property
    def searched(self) -> bool:
        """Whether learning rates were chosen."""
        return any(len(arm.rates) > 1 for arm in self.arms)

    def name(self, arm: ArmRuns) -> str:
        """What tells the arm from the others."""
        one_mode = len({each.mode for each in self.arms}) == 1
        one_optimizer = len({each.optimizer for each in self.arms}) == 1
        if one_mode:
            return arm.optimizer
        return arm.mode if one_optimizer else f"{arm.optimizer}, {arm.mode}"

    def notes(self) -> list[str]:
        """What a reader must know to read the table right, one sentence each."""
        notes = [_basis(len(self.seeds))]
        if self.searched:
            notes.append(
                f"Each arm is shown at the learning rate with the best median test {self.metric.name}. That choice was "
                "made on the test set, as there is no validation set, so it flatters arms a little."
            )
        if {arm.about.get("mode") for arm in self.arms} >= {"sync", "async"}:
            notes.append(
                "Asynchronous arms make one update a gradient, synchronous ones one a step: as many more as there are "
                "slots, from the same samples."
            )
        each_arm: tuple[Callable[[ArmRuns], list[str]], ...] = (self._edge, self._losses)
        return notes + [note for arm in self.arms for find in each_arm for note in find(arm)]

    def _edge(self, arm: ArmRuns) -> list[str]:
        """A best learning rate that is the last one tried is perhaps not the best."""
        lrs, best = [rate.lr for rate in arm.rates], arm.best(self.metric)
        if len(lrs) < 2 or best.test(self.metric).median is None or best.lr not in (lrs[0], lrs[-1]):
            return []
        end, beyond = ("lowest", "lower") if best.lr == lrs[0] else ("highest", "higher")
        return [
            f"{self.name(arm)}: the best learning rate is the {end} tried, {best.lr:g}: a {beyond} one may be better."
        ]

    def _losses(self, arm: ArmRuns) -> list[str]:
        """Runs that are missing from the figures, or have spoilt them."""
        found = []
        for rate in arm.rates:
            where, missing = f"{self.name(arm)}, lr {rate.lr:g}", len(rate.runs) - len(rate.complete)
            if rate.diverged:
                found.append(f"{where}: {rate.diverged} of {len(rate.complete)} runs diverged (loss NaN or Inf).")
            if missing:
                found.append(f"{where}: {missing} of {len(rate.runs)} runs have failed, and are left out.")
        return found


def _basis(seeds: int) -> str:
    if seeds == 1:
        return "One run each: how much of a difference is chance can not be told; try --seeds 3."
    return f"Medians over {seeds} seeds, with the least and the greatest; all arms have the same seeds."
