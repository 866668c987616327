"""What a run tells the user's code while it goes on, and when it should stop early."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from psgd.errors import ConfigurationError
from psgd.runlog import Evaluation, Iteration


class Callback:
    """Is told what happens in a run; override what you need. It runs in the driver, beside training."""

    def on_start(self) -> None:
        """The run has begun."""

    def on_step(self, iteration: Iteration) -> None:
        """A slot has finished an iteration."""

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """A snapshot was measured."""

    def on_end(self, result: object) -> None:
        """The run has ended, with the ``Result`` that ``fit()`` returns."""


@dataclass(frozen=True, slots=True)
class Continue:
    """Go on, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class EarlyStopping(Callback):
    """Ends a run once a metric has not improved for some evaluations.

    Attributes:
        monitor: the metric, as evaluations name it.
        patience: how many evaluations in a row may pass without an improvement.
        mode: whether the metric is to fall or to rise.
        min_delta: by how much more than that a metric must be better than the best one to count as improved.

    Raises:
        ConfigurationError: an attribute is out of range.

    Example:
        >>> EarlyStopping("loss", patience=1).decide([{"loss": 0.5}, {"loss": 0.6}])
        Stop(reason='loss has not improved on 0.5 for 1 evaluations')
    """

    monitor: str = "test_loss"
    patience: int = 3
    mode: Literal["min", "max"] = "min"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what could never stop or never go on."""
        if self.patience < 1:
            raise ConfigurationError(f"patience must be >= 1, got {self.patience}")
        if self.mode not in ("min", "max"):
            raise ConfigurationError(f"mode must be min or max, got {self.mode!r}")
        if not (math.isfinite(self.min_delta) and self.min_delta >= 0):
            raise ConfigurationError(f"min_delta must be a finite number >= 0, got {self.min_delta}")

    def decide(self, history: Sequence[Mapping[str, float]]) -> Stop | Continue:
        """Decide from all evaluations so far, oldest first; nothing else is remembered.

        Raises:
            ConfigurationError: an evaluation lacks the metric.
        """
        best, waited = math.nan, 0
        for evaluation in history:
            value = self._read(evaluation)
            if self._is_better(value, best):
                best, waited = value, 0
            else:
                waited += 1
        if waited >= self.patience:
            return Stop(f"{self.monitor} has not improved on {best:g} for {waited} evaluations")
        return Continue(f"{self.monitor} improved on evaluation {len(history) - waited} of {len(history)}")

    def _read(self, evaluation: Mapping[str, float]) -> float:
        if self.monitor not in evaluation:
            raise ConfigurationError(f"monitor must be one of {', '.join(evaluation)}, got {self.monitor!r}")
        return evaluation[self.monitor]

    def _is_better(self, value: float, best: float) -> bool:
        """Whether the value is an improvement; any number is one on NaN, and NaN never is, as it compares as false."""
        if math.isnan(best):
            return not math.isnan(value)
        return best - value > self.min_delta if self.mode == "min" else value - best > self.min_delta
