"""Arms beside each other: the runs of each at its learning rates, over the seeds, and by what they are judged."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from psgd.errors import ConfigurationError
from psgd.runlog import Goal, goal_of
from psgd.training.names import near

if TYPE_CHECKING:  # what is to be compared can be said before numpy is there
    from psgd.analysis.run_figures import Reached, RunFigures


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

    def difference(self, value: float) -> str:
        """How far two values are apart, for people; with its sign.

        Example:
            >>> Metric("accuracy").difference(-0.012), Metric("rmse").difference(0.25)
            ('−1.20 points', '+0.2500')
        """
        words = f"{100 * value:+.2f} points" if self.name == "accuracy" else f"{value:+.4f}"
        return words.replace("-", "−")


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
    """When the runs of a comparison end.

    Args:
        kind: various: not all in the same way.
        amount: samples, seconds, or the metric's value; None: as the runs were set.
    """

    kind: Literal["samples", "seconds", "target", "various"] = "samples"
    amount: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be reached.

    Args:
        metric: as evaluations name it: ``test_accuracy``.

    Raises:
        ConfigurationError: if nothing could ever reach it, or everything does.
    """

    metric: str
    value: float

    def __post_init__(self) -> None:
        if self.measure.name == "accuracy" and not 0 < self.value <= 1:
            remedy = f"; try {self.value / 100:g}" if 1 < self.value <= 100 else ""
            raise ConfigurationError(f"target must be > 0 and <= 1 in {self.metric}, got {self.value:g}{remedy}")

    @property
    def measure(self) -> Metric:
        """The metric, without ``test_``."""
        return Metric(self.metric.removeprefix("test_"))

    def reached(self, run: "RunFigures") -> "Reached | None":
        """When a run reached it for the first time; None if it never did."""
        return run.reach(self.measure.name, self.value, self.measure.goal)

    @property
    def words(self) -> str:
        """The target, for people.

        Example:
            >>> Target("test_accuracy", 0.85).words, Target("test_loss", 0.5).words
            ('85.00 %', 'a test loss of 0.5000')
        """
        value = self.measure.words(self.value)
        return value if self.measure.name == "accuracy" else f"a test {self.measure.name} of {value}"


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


Read = Callable[["RunFigures"], float | None]
"""A figure of a run; None if it has none."""


@dataclass(frozen=True, slots=True)
class Rate:
    """The runs of an arm with one learning rate.

    Args:
        runs: one a seed, in the order of the seeds; None where there is no complete run.
    """

    lr: float
    runs: "tuple[RunFigures | None, ...]"

    @property
    def complete(self) -> "tuple[RunFigures, ...]":
        """Those that have come to their end."""
        return tuple(run for run in self.runs if run is not None)

    @property
    def diverged(self) -> int:
        """How many of them have ended with NaN or Inf."""
        return sum(run.diverged for run in self.complete)

    @property
    def sound(self) -> int:
        """How many of them have not."""
        return len(self.complete) - self.diverged

    @property
    def lags(self) -> Counter[int]:
        """Lag to the number of accepted pushes that had it, of all of them."""
        return sum((Counter(run.lags) for run in self.complete), Counter[int]())

    def values(self, read: Read) -> list[float | None]:
        """A figure of each seed's run; None where there is no run, or it has none."""
        return [None if run is None else read(run) for run in self.runs]

    def spread(self, read: Read, goal: Goal = "min") -> Spread:
        """A figure over the runs that have come to their end."""
        return Spread.of([read(run) for run in self.complete], goal)

    def test(self, metric: Metric) -> Spread:
        """The final test metric; a run that has diverged has none."""
        return self.spread(lambda run: None if run.diverged else run.final_test.get(metric.name), metric.goal)

    def reached(self, target: Target) -> "list[Reached]":
        """When the runs that have reached the target did."""
        found = (target.reached(run) for run in self.complete)
        return [each for each in found if each is not None]


@dataclass(frozen=True, slots=True)
class ArmRuns:
    """All runs of an arm.

    Args:
        optimizer: as it was written, such as ``sgd:momentum=0.9``.
        mode: as it was written, such as ``async:4/softsync=2``.
        about: what machines should know of it; plain JSON.
        rates: ascending.
    """

    optimizer: str
    mode: str
    rates: tuple[Rate, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def best(self, metric: Metric) -> Rate:
        """The learning rate with most sound runs, of those the best median, of equals the lowest.

        The choice looks at the test set: the figure of an arm with several learning rates is the best of several.
        """
        sign = 1 if metric.goal == "max" else -1

        def merit(rate: Rate) -> tuple[int, float]:
            median = rate.test(metric).median
            return rate.sound, -math.inf if median is None else sign * median

        return max(self.rates, key=merit)

    def soonest(self, target: Target) -> Rate:
        """The learning rate with which most runs reach the target; of equals the one with the least median time."""

        def merit(rate: Rate) -> tuple[int, float]:
            times = [each.seconds for each in rate.reached(target)]
            return len(times), -statistics.median(times or [math.inf])

        return max(self.rates, key=merit)


@dataclass(frozen=True, slots=True)
class ComparisonFigures:
    """A comparison: what its tables and pictures are made of.

    Args:
        seeds: of each arm and learning rate.
        arms: in the order in which they were asked for.
        budget: when the runs ended.
        target: what the arms were to reach, if anything.
        remarks: what else a reader must know, one sentence each.
        gathered: the runs were made elsewhere, perhaps not with the same seeds for each arm.

    Raises:
        ConfigurationError: if there is a target, and no run has measured its metric.
    """

    seeds: tuple[int, ...]
    arms: tuple[ArmRuns, ...]
    budget: Budget = Budget()
    target: Target | None = None
    remarks: tuple[str, ...] = ()
    gathered: bool = False

    def __post_init__(self) -> None:
        """A target that nobody could have reached is a mistake."""
        known = self.measured()
        if self.target is not None and known and self.target.measure.name not in known:
            names, meant = ", ".join(f"test_{name}" for name in sorted(known)), self.target.measure.name
            raise ConfigurationError(f"target must be one of {names}, got {self.target.metric!r}{near(meant, known)}")

    def runs(self) -> "list[RunFigures]":
        """Every complete run."""
        return [run for arm in self.arms for rate in arm.rates for run in rate.complete]

    def measured(self) -> list[str]:
        """The metrics that evaluations have, without ``test_``."""
        return list(dict.fromkeys(name for run in self.runs() for name in run.test))

    @property
    def versions(self) -> list[dict[str, str]]:
        """The versions of the software that runs were made with, each once."""
        distinct: list[dict[str, str]] = []
        for run in self.runs():
            if run.versions not in distinct:
                distinct.append(run.versions)
        return distinct

    @property
    def metric(self) -> Metric:
        """What the arms are judged by: that of the target, else what tells most."""
        return judged_by(self.measured()) if self.target is None else self.target.measure

    @property
    def by_target(self) -> Target | None:
        """The target, if it is what ends the runs: then all of them end alike, but for the time that it took."""
        return self.target if self.budget.kind == "target" else None

    def best(self, arm: ArmRuns) -> Rate:
        """The learning rate at which an arm is shown."""
        return arm.best(self.metric) if self.by_target is None else arm.soonest(self.by_target)

    def lost(self, rate: Rate) -> int:
        """How many of its runs have failed or were not made: of runs made elsewhere none is missed."""
        return 0 if self.gathered else len(rate.runs) - len(rate.complete)

    @property
    def timed(self) -> bool:
        """Whether seconds are those of a cluster, real or simulated: on plane memory one thread does all in turns."""
        return all(run.simulated or run.settings.get("plane") != "memory" for run in self.runs())

    @property
    def shown(self) -> list[tuple[str, ArmRuns, Rate]]:
        """Each arm, with its name, at the learning rate at which it is shown."""
        return [(self.name(arm), arm, self.best(arm)) for arm in self.arms]

    @property
    def title(self) -> str:
        """What was trained, as far as the logs say, and on how much."""
        runs = self.runs()
        if not runs:
            return "no run has come to its end"
        settings = runs[0].settings
        options = settings.get("options", {})
        what = f"{options['model']} on {options['data']}, " if {"model", "data"} <= options.keys() else ""
        return f"{what}{settings['slots']} slots of {settings['batch_size']}, {self._length(settings.get('steps'))}"

    def _length(self, steps: int | None) -> str:
        if self.by_target is not None:
            amount = self.budget.amount
            return f"until {(self.by_target if amount is None else replace(self.by_target, value=amount)).words}"
        if self.budget.kind == "seconds" and self.budget.amount is not None:
            return f"{self.budget.amount:,g} s"
        if self.budget.kind == "various":
            return "each as long as it was set"
        return "as long as their loops" if steps is None else f"{steps:,} steps"

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
