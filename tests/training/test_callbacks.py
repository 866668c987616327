from typing import Any

import pytest

from psgd.errors import ConfigurationError
from psgd.runlog import Evaluation
from psgd.training.callbacks import Callback, Continue, EarlyStopping, Stop
from tests.records import EVALUATION, ITERATION

NAN = float("nan")


def decide(rule: EarlyStopping, values: list[float]) -> str:
    return type(rule.decide([{rule.monitor: value} for value in values])).__name__


@pytest.mark.parametrize(
    ("rule", "values", "decision"),
    [
        (EarlyStopping(), [], "Continue"),
        (EarlyStopping(patience=2), [3.0, 2.0, 1.0], "Continue"),
        (EarlyStopping(patience=2), [1.0, 2.0], "Continue"),
        (EarlyStopping(patience=2), [1.0, 2.0, 1.5], "Stop"),
        (EarlyStopping(patience=2), [1.0, 2.0, 0.5, 2.0], "Continue"),
        (EarlyStopping(patience=1), [1.0, 1.0], "Stop"),
        (EarlyStopping("accuracy", patience=1, mode="max"), [0.5, 0.6], "Continue"),
        (EarlyStopping("accuracy", patience=1, mode="max"), [0.6, 0.5], "Stop"),
        (EarlyStopping(patience=1, min_delta=0.5), [2.0, 1.5], "Stop"),
        (EarlyStopping(patience=1, min_delta=0.5), [2.0, 1.25], "Continue"),
        (EarlyStopping(patience=2), [NAN, NAN], "Stop"),
        (EarlyStopping(patience=2), [NAN, 1.0], "Continue"),
        (EarlyStopping(patience=2), [1.0, NAN, 0.5], "Continue"),
    ],
)
def test_a_run_stops_once_patience_is_over(rule: EarlyStopping, values: list[float], decision: str) -> None:
    assert decide(rule, values) == decision


def test_a_decision_has_its_reason() -> None:
    rule = EarlyStopping("loss", patience=2)
    history = [{"loss": value} for value in (1.0, 0.25, 2.0)]
    assert rule.decide(history) == Continue("loss improved on evaluation 2 of 3")
    assert rule.decide([*history, {"loss": 0.5}]) == Stop("loss has not improved on 0.25 for 2 evaluations")


def test_a_metric_that_evaluations_lack_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^monitor must be one of loss, accuracy, got 'f1'$"):
        EarlyStopping("f1").decide([{"loss": 1.0, "accuracy": 0.5}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patience": 0}, "patience must be >= 1, got 0"),
        ({"mode": "up"}, "mode must be min or max, got 'up'"),
        ({"min_delta": -1.0}, "min_delta must be a finite number >= 0, got -1.0"),
        ({"min_delta": NAN}, "min_delta must be a finite number >= 0, got nan"),
    ],
)
def test_an_attribute_out_of_range_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        EarlyStopping(**change)
    assert str(caught.value) == message


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
