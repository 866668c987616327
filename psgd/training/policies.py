"""What evaluations decide: when a run ends, when its learning rate falls, which weights are kept.

Each policy decides from all evaluations so far, or from the time that training has taken, and remembers nothing else,
so whoever has the history comes to the same decision. They are decided beside training, by the coordinator, and take
effect at a named step.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from psgd.errors import ConfigurationError
from psgd.runlog import Goal, goal_of
from psgd.training.callbacks import Callback
from psgd.training.names import unknown

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rate:
    """The learning rate from the following boundary on, and why."""

    lr: float
    reason: str


@dataclass(frozen=True, slots=True)
class EarlyStopping(Callback):
    """Ends a run once a metric has not improved for some evaluations.

    Attributes:
        monitor: the metric, as evaluations name it.
        patience: how many evaluations in a row may pass without an improvement.
        mode: whether the metric is to fall or to rise; None: losses and errors are to fall, all else to rise.
        min_delta: by how much more than that a metric must be better than the best one to count as improved.

    Raises:
        ConfigurationError: an attribute is out of range.

    Example:
        >>> EarlyStopping("loss", patience=1).decide([{"loss": 0.5}, {"loss": 0.6}])
        Stop(reason='loss has not improved on 0.5 for 1 evaluations')
    """

    monitor: str = "test_loss"
    patience: int = 3
    mode: Goal | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what could never stop or never go on."""
        if not isinstance(self.patience, int) or self.patience < 1:
            raise ConfigurationError(f"patience must be >= 1, got {self.patience}")
        _check_mode(self.mode)
        _check_at_least_0("min_delta", self.min_delta)

    def decide(self, history: Sequence[Metrics]) -> Stop | Continue:
        """Decide from all evaluations so far, oldest first.

        Raises:
            ConfigurationError: an evaluation lacks the metric.
        """
        best, waited = math.nan, 0
        for value in _monitored(self.monitor, history):
            if _is_better(value, best, self.mode or goal_of(self.monitor), self.min_delta):
                best, waited = value, 0
            else:
                waited += 1
        if waited >= self.patience:
            return Stop(f"{self.monitor} has not improved on {best:g} for {waited} evaluations")
        return Continue(f"{self.monitor} improved on evaluation {len(history) - waited} of {len(history)}")


@dataclass(frozen=True, slots=True)
class StopAtTarget(Callback):
    """Ends a run once a metric has reached a value, at the evaluation behind the one that measured it.

    Attributes:
        monitor: the metric, as evaluations name it.
        value: what it is to reach.
        mode: whether the metric is to fall or to rise; None: losses and errors are to fall, all else to rise.

    Raises:
        ConfigurationError: an attribute is out of range.

    Example:
        >>> StopAtTarget("test_accuracy", 0.5).decide([{"test_accuracy": 0.25}, {"test_accuracy": 0.75}])
        Stop(reason='test_accuracy has reached 0.5 with 0.75')
    """

    monitor: str
    value: float
    mode: Goal | None = None

    def __post_init__(self) -> None:
        """Refuse what could never be reached."""
        _check_mode(self.mode)
        if not isinstance(self.value, int | float) or not math.isfinite(self.value):
            raise ConfigurationError(f"value must be a finite number, got {self.value!r}")

    def decide(self, history: Sequence[Metrics]) -> Stop | Continue:
        """Decide from all evaluations so far, oldest first; what was reached once stays so.

        Raises:
            ConfigurationError: an evaluation lacks the metric.
        """
        falling = (self.mode or goal_of(self.monitor)) == "min"
        values = _monitored(self.monitor, history)
        reached = [value for value in values if (value <= self.value if falling else value >= self.value)]
        if reached:
            return Stop(f"{self.monitor} has reached {self.value:g} with {reached[0]:g}")
        return Continue(f"{self.monitor} has not reached {self.value:g}")


@dataclass(frozen=True, slots=True)
class StopAfter(Callback):
    """Ends a run that has taken long enough, at the second evaluation behind that time: the first one notices it.

    Attributes:
        seconds: of training, counted from when the workers are told to run; processes start before.

    Raises:
        ConfigurationError: an attribute is out of range.

    Example:
        >>> StopAfter(seconds=60).decide(elapsed_s=61.5)
        Stop(reason='61.5 of 60 s have passed')
    """

    seconds: float

    def __post_init__(self) -> None:
        """Refuse what would never begin, or never end."""
        if not isinstance(self.seconds, int | float) or not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ConfigurationError(f"seconds must be a finite number > 0, got {self.seconds!r}")

    def decide(self, elapsed_s: float) -> Stop | Continue:
        """Decide from the time that training has taken."""
        passed = f"{elapsed_s:.1f} of {self.seconds:g} s have passed"
        return Stop(passed) if elapsed_s >= self.seconds else Continue(passed)


@dataclass(frozen=True, slots=True)
class ReduceLROnPlateau(Callback):
    """Lowers the learning rate whenever a metric has stopped improving, as torch's scheduler of that name.

    What the schedule says, if there is one, is multiplied with what this has come to.

    Attributes:
        monitor: the metric, as evaluations name it.
        mode: whether the metric is to fall or to rise; None: losses and errors are to fall, all else to rise.
        factor: what the learning rate is multiplied by.
        patience: how many evaluations in a row may pass without an improvement before it is.
        threshold: by how much more than that a metric must be better than the best one to count as improved.
        threshold_mode: whether that is a fraction of the best one (``rel``) or a difference (``abs``).
        cooldown: evaluations after a reduction that are not counted.
        min_lr: below which the optimizer's largest learning rate is not lowered.

    Raises:
        ConfigurationError: an attribute is out of range.

    Example:
        >>> ReduceLROnPlateau("loss", patience=0, factor=0.5).decide([{"loss": 0.5}, {"loss": 0.6}], lr=0.1)
        Rate(lr=0.05, reason='loss has not improved on 0.5: learning rate x 0.5')
    """

    monitor: str = "test_loss"
    mode: Goal | None = None
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = 0
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what torch refuses, and what could never be reached."""
        _check_mode(self.mode)
        if not isinstance(self.factor, int | float) or not 0 < self.factor < 1:
            raise ConfigurationError(f"factor must be > 0 and < 1, got {self.factor}")
        if self.threshold_mode not in ("rel", "abs"):
            raise ConfigurationError(f"threshold_mode must be rel or abs, got {self.threshold_mode!r}")
        for name in ("patience", "threshold", "cooldown", "min_lr"):
            _check_at_least_0(name, getattr(self, name))

    def decide(self, history: Sequence[Metrics], lr: float) -> Rate:
        """Decide from all evaluations so far, oldest first.

        Args:
            lr: the one that the run began with.

        Raises:
            ConfigurationError: an evaluation lacks the metric.
        """
        best, waited, resting, reduced = math.nan, 0, 0, False
        for value in _monitored(self.monitor, history):
            if _is_better(value, best, self.mode or goal_of(self.monitor), self._margin(best)):
                best, waited = value, 0
            else:
                waited += 1
            if resting:
                resting, waited = resting - 1, 0
            lower = max(lr * self.factor, self.min_lr)
            reduced = waited > self.patience and lower < lr
            if waited > self.patience:
                lr, waited, resting = min(lr, lower), 0, self.cooldown
        if reduced:
            return Rate(lr, f"{self.monitor} has not improved on {best:g}: learning rate x {self.factor:g}")
        return Rate(lr, f"{self.monitor}: the best is {best:g}")

    def _margin(self, best: float) -> float:
        return self.threshold if self.threshold_mode == "abs" else self.threshold * abs(best)


@dataclass(frozen=True, slots=True)
class ModelCheckpoint(Callback):
    """Keeps the weights of the best evaluation, and of the last one, in the run's folder.

    They are the weights that were measured, also in async mode. The files are safetensors, of which ``warm_start``
    takes any; their header names the step and what was measured.

    Attributes:
        monitor: the metric, as evaluations name it.
        mode: whether the metric is to fall or to rise; None: losses and errors are to fall, all else to rise.
        save_best: write ``best.safetensors``.
        save_last: write ``last.safetensors`` at every evaluation; the run's final weights are written anyway.

    Raises:
        ConfigurationError: an attribute is out of range.

    Example:
        >>> ModelCheckpoint("loss", save_last=False).decide([{"loss": 0.5}, {"loss": 0.4}])
        ('best',)
    """

    monitor: str = "test_loss"
    mode: Goal | None = None
    save_best: bool = True
    save_last: bool = True

    def __post_init__(self) -> None:
        """Refuse what would keep nothing."""
        _check_mode(self.mode)
        if not (self.save_best or self.save_last):
            raise ConfigurationError("save_best or save_last must be true, got neither")

    def decide(self, history: Sequence[Metrics]) -> tuple[str, ...]:
        """The names under which the newest of all evaluations so far is to be kept.

        Raises:
            ConfigurationError: an evaluation lacks the metric.
        """
        best, newest_is_best = math.nan, False
        for value in _monitored(self.monitor, history):
            newest_is_best = _is_better(value, best, self.mode or goal_of(self.monitor), 0.0)
            best = value if newest_is_best else best
        return ("best",) * (self.save_best and newest_is_best) + ("last",) * self.save_last


@dataclass(frozen=True, slots=True)
class Policies:
    """What the evaluations of a run decide.

    Args:
        stopping: None goes on however little comes of it.
        plateau: None leaves the schedule's learning rate alone.
        keeping: None keeps no weights but the final ones.
        lr: the largest learning rate that the optimizer begins with.
        target: None goes on whatever has been reached.
        limit: None takes all the time that the steps need.
    """

    stopping: EarlyStopping | None = None
    plateau: ReduceLROnPlateau | None = None
    keeping: ModelCheckpoint | None = None
    lr: float = 1.0
    target: StopAtTarget | None = None
    limit: StopAfter | None = None

    @property
    def rules(self) -> tuple[EarlyStopping | StopAtTarget | StopAfter | ReduceLROnPlateau | ModelCheckpoint, ...]:
        """All that there are."""
        each = (self.stopping, self.target, self.limit, self.plateau, self.keeping)
        return tuple(rule for rule in each if rule is not None)

    @property
    def monitors(self) -> list[str]:
        """The metrics that they go by."""
        return [rule.monitor for rule in self.rules if not isinstance(rule, StopAfter)]

    def verdict(self, history: Sequence[Metrics], elapsed_s: float) -> Stop | Continue:
        """Whether the run is to end at the following boundary; the first rule that says so has the word.

        Args:
            history: all evaluations so far, oldest first.
            elapsed_s: since training began.

        Raises:
            ConfigurationError: an evaluation lacks a metric.
        """
        by_metric = [rule.decide(history) for rule in (self.target, self.stopping) if rule is not None]
        verdicts = by_metric + ([] if self.limit is None else [self.limit.decide(elapsed_s)])
        stop = next((verdict for verdict in verdicts if isinstance(verdict, Stop)), None)
        return stop or Continue("; ".join(verdict.reason for verdict in verdicts))

    def lr_factor(self, history: Sequence[Metrics]) -> tuple[float, str]:
        """What the schedule's learning rate is multiplied by from the following boundary on, and why."""
        if self.plateau is None or self.lr == 0:
            return 1.0, ""
        rate = self.plateau.decide(history, self.lr)
        return rate.lr / self.lr, rate.reason


def _monitored(monitor: str, history: Sequence[Metrics]) -> list[float]:
    for evaluation in history:
        if monitor not in evaluation:
            raise unknown("monitor", monitor, evaluation)
    return [evaluation[monitor] for evaluation in history]


def _is_better(value: float, best: float, mode: Goal, margin: float) -> bool:
    """Whether the value is an improvement; any number is one on NaN, and NaN never is, as it compares as false."""
    if math.isnan(best):
        return not math.isnan(value)
    return best - value > margin if mode == "min" else value - best > margin


def _check_mode(mode: str | None) -> None:
    if mode not in (None, "min", "max"):
        raise ConfigurationError(f"mode must be min or max, got {mode!r}")


def _check_at_least_0(name: str, value: object) -> None:
    if not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
        raise ConfigurationError(f"{name} must be a finite number >= 0, got {value!r}")
