"""Who follows the trials of a search, in the driver."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from psgd.errors import ConfigurationError
from psgd.training.names import unknown
from psgd.tuning.attempt import FAILED, NAMES, REFUSED
from psgd.tuning.trials import Measured, Status, Trial


class Watch(tune.Callback, tune.Stopper):
    """Follows the trials, in the driver, and ends the search if it can come to nothing.

    Attributes:
        refusal: why the search was ended.
    """

    def __init__(self, metric: str, made: Sequence[Trial], tell: Callable[[Trial], None]) -> None:
        self._metric = metric
        self._tell = tell
        taken = {trial.number for trial in made}
        self._free = (number for number in itertools.count() if number not in taken)
        self._numbers: dict[str, int] = {}
        self._evaluations: dict[str, list[Measured]] = {}
        self._final: set[str] = set()
        self.refusal: ConfigurationError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles it for a restoration that psgd never asks for: whom it tells does not travel."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is stopped here."""
        return False

    def stop_all(self) -> bool:
        """Whether the search is over before its time."""
        return self.refusal is not None

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:
        """Number it."""
        self._begin(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **_: Any
    ) -> None:
        """Note what was measured; a search for a metric that nobody measures has no end to wait for."""
        if NAMES not in result:
            return
        if self._metric not in result:
            self.refusal = unknown("objective", self._metric, result[NAMES])
            return
        measured = Measured(result["step"], result["seconds"], {name: result[name] for name in result[NAMES]})
        evaluations = self._evaluations[trial.trial_id]
        if result["final"]:
            self._final.add(trial.trial_id)
            if evaluations and evaluations[-1].step == measured.step:
                evaluations.pop()
        evaluations.append(measured)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:
        """It has come to an end."""
        self._end(trial, *self._verdict(trial))

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:
        """Its process is gone."""
        lines = str(trial.get_error() or "").split("\n")
        self._end(trial, "failed", next((line.strip() for line in reversed(lines) if line.strip()), "its process died"))

    def _verdict(self, trial: TuneTrial) -> tuple[Status, str | None]:
        result = trial.last_result
        if REFUSED in result:
            return "refused", result[REFUSED]
        if FAILED in result:
            return "failed", result[FAILED]
        if trial.trial_id in self._final:
            return "done", None
        evaluations = len(self._evaluations[trial.trial_id])
        return "stopped", f"after {evaluations} evaluation{'s' if evaluations > 1 else ''}"

    def _begin(self, trial_id: str) -> None:
        self._numbers[trial_id] = next(self._free)
        self._evaluations[trial_id] = []

    def _end(self, trial: TuneTrial, status: Status, reason: str | None) -> None:
        if trial.trial_id not in self._numbers:  # its process has not even started
            self._begin(trial.trial_id)
        evaluations = tuple(self._evaluations[trial.trial_id])
        ended = Trial(self._numbers[trial.trial_id], dict(trial.config), status, reason, evaluations)
        if status in ("done", "stopped") and ended.value(self._metric) is None:
            ended = replace(ended, status="diverged", reason=f"{self._metric} is not finite")
        if self.refusal is None:
            self._tell(ended)
