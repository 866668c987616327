"""Ray Tune's in-process twin: trials one after another in this thread, told to the same `Watch`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from psgd.trainer import Trainer
from psgd.tuning.algorithms import remaining
from psgd.tuning.attempt import MakeTrainer, attempt
from psgd.tuning.search import Search
from psgd.tuning.trials import Trial
from psgd.tuning.watch import Watch


@dataclass
class Tried:
    """What the watch reads of a trial of Ray Tune."""

    trial_id: str
    config: dict[str, Any] = field(default_factory=lambda: {"lr": 0.1})
    last_result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def get_error(self) -> str | None:
        return self.error


class InProcess:
    """Stands for `psgd.tuning.search.run`.

    Args:
        interrupt_after: trials, as Ctrl-C would.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, interrupt_after: int | None = None) -> None:
        self._monkeypatch = monkeypatch
        self._interrupt_after = interrupt_after
        self.points: list[dict[str, Any]] = []

    def __call__(
        self,
        search: Search,
        trainer: Trainer,
        make_trainer: MakeTrainer,
        made: Sequence[Trial],
        tell: Callable[[Trial], None],
    ) -> None:
        watch, trial = Watch(search.metric, made, tell), attempt(search.space, make_trainer)
        for number, point in enumerate(remaining([each.point for each in made], search.wanted())):
            if number == self._interrupt_after:
                raise KeyboardInterrupt
            self.points.append(point)
            tried: Any = Tried(str(number), point)
            watch.on_trial_start(0, [], tried)
            self._monkeypatch.setattr("ray.tune.report", lambda result, tried=tried: take(watch, tried, result))
            trial(point)
            watch.on_trial_complete(0, [], tried)
            if watch.refusal is not None:
                raise watch.refusal


def take(watch: Watch, tried: Any, result: dict[str, Any]) -> None:
    watch.on_trial_result(0, [], tried, result)
    tried.last_result = result
