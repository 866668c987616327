import dataclasses
import re

import pytest

from psgd.errors import ConfigurationError
from psgd.runlog import Evaluation
from psgd.training.callbacks import Callback, LearningRateMonitor, LearningRateScheduler
from tests.records import EVALUATION, ITERATION


def test_a_callback_overrides_only_what_it_needs() -> None:
    class Losses(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_evaluation(self, evaluation: Evaluation) -> None:
            self.seen.append(evaluation.metrics["test_loss"])

    callback = Losses()
    callback.on_start()
    callback.on_step(ITERATION)
    callback.on_evaluation(EVALUATION)
    callback.on_end(None)
    assert callback.seen == [0.25]


def test_the_monitor_remembers_the_rates_of_updates() -> None:
    monitor = LearningRateMonitor()
    monitor.on_step(dataclasses.replace(ITERATION, step=0, lr=(0.5, 0.25)))
    monitor.on_step(dataclasses.replace(ITERATION, step=1, lr=()))
    monitor.on_step(dataclasses.replace(ITERATION, step=2, lr=(0.25,)))
    assert monitor.rates == {0: (0.5, 0.25), 2: (0.25,)}


def test_a_learning_rate_scheduler_needs_a_function() -> None:
    with pytest.raises(ConfigurationError, match=re.escape("LearningRateScheduler needs a function of epoch and lr")):
        LearningRateScheduler(0.1)  # type: ignore[arg-type]
