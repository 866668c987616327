from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psgd.errors import ConfigurationError
from psgd.runlog import goal_of
from psgd.training.policies import (
    Continue,
    EarlyStopping,
    Metrics,
    ModelCheckpoint,
    Policies,
    Rate,
    ReduceLROnPlateau,
    Stop,
    StopAfter,
    StopAtTarget,
)

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
    with pytest.raises(ConfigurationError, match=r"^monitor must be one of accuracy, loss, got 'f1'$"):
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


# ------------------------------------------------------------------ targets, and time


@pytest.mark.parametrize(
    ("rule", "values", "decision"),
    [
        (StopAtTarget("test_accuracy", 0.5), [], "Continue"),
        (StopAtTarget("test_accuracy", 0.5), [0.25, 0.49], "Continue"),
        (StopAtTarget("test_accuracy", 0.5), [0.25, 0.5], "Stop"),
        (StopAtTarget("test_accuracy", 0.5), [0.75, 0.25], "Stop"),
        (StopAtTarget("test_loss", 0.5), [0.75, 0.51], "Continue"),
        (StopAtTarget("test_loss", 0.5), [0.75, 0.5], "Stop"),
        (StopAtTarget("test_loss", 0.5, mode="max"), [0.25], "Continue"),
        (StopAtTarget("test_loss", 0.5), [NAN], "Continue"),
    ],
)
def test_a_run_stops_once_the_target_is_reached(rule: StopAtTarget, values: list[float], decision: str) -> None:
    assert type(rule.decide([{rule.monitor: value} for value in values])).__name__ == decision


def test_a_target_says_how_far_it_is() -> None:
    rule = StopAtTarget("test_accuracy", 0.5)
    assert rule.decide([{"test_accuracy": 0.25}]) == Continue("test_accuracy has not reached 0.5")
    history = [{"test_accuracy": value} for value in (0.25, 0.625, 0.75)]
    assert rule.decide(history) == Stop("test_accuracy has reached 0.5 with 0.625")


def test_a_run_stops_once_its_time_is_over() -> None:
    rule = StopAfter(2)
    assert rule.decide(1.96) == Continue("2.0 of 2 s have passed")
    assert rule.decide(2.0) == Stop("2.0 of 2 s have passed")


@pytest.mark.parametrize("value", [NAN, float("inf"), "0.5"])
def test_a_target_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^value must be a finite number, got {value!r}$"):
        StopAtTarget("test_loss", value)


@pytest.mark.parametrize("seconds", [0, -1.0, NAN, float("inf"), "60"])
def test_a_time_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^seconds must be a finite number > 0, got {seconds!r}$"):
        StopAfter(seconds)


def test_the_first_rule_that_says_stop_has_the_word() -> None:
    policies = Policies(EarlyStopping(patience=1), target=StopAtTarget("test_loss", 0.5), limit=StopAfter(10))
    improving = [{"test_loss": 2.0}, {"test_loss": 1.0}]
    assert policies.verdict(improving, 5.0) == Continue(
        "test_loss has not reached 0.5; test_loss improved on evaluation 2 of 2; 5.0 of 10 s have passed"
    )
    assert policies.verdict(improving, 10.0) == Stop("10.0 of 10 s have passed")
    worse = [{"test_loss": 1.0}, {"test_loss": 2.0}]
    assert policies.verdict(worse, 10.0) == Stop("test_loss has not improved on 1 for 1 evaluations")
    assert policies.verdict([*worse, {"test_loss": 0.25}], 10.0) == Stop("test_loss has reached 0.5 with 0.25")
    assert Policies().verdict(worse, 10.0) == Continue("")


def test_monitors_are_those_of_all_rules_that_have_one() -> None:
    rules = (EarlyStopping("a"), StopAtTarget("b", 1), StopAfter(1), ReduceLROnPlateau("c"), ModelCheckpoint("d"))
    stopping, target, limit, plateau, keeping = rules
    policies = Policies(stopping, plateau, keeping, target=target, limit=limit)
    assert policies.rules == rules
    assert policies.monitors == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("metric", "goal"),
    [("test_loss", "min"), ("loss", "min"), ("test_log-loss", "min"), ("test_rmse", "min"), ("test_f1_macro", "max")],
)
def test_the_direction_of_a_metric_follows_from_its_name(metric: str, goal: str) -> None:
    assert goal_of(metric) == goal
    falling = [{metric: 2.0}, {metric: 1.0}]
    assert ("best" in ModelCheckpoint(metric).decide(falling)) == (goal == "min")
    assert isinstance(EarlyStopping(metric, patience=1).decide(falling), Continue) == (goal == "min")
    assert (ReduceLROnPlateau(metric, patience=0).decide(falling, 1.0).lr == 1.0) == (goal == "min")


# ------------------------------------------------------------------ the learning rate

LOSSES = st.lists(st.sampled_from([NAN, 0.0, 0.5, 0.99995, 1.0, 1.00005, 1.5, 2.0]), min_size=1, max_size=12)


@given(
    values=LOSSES,
    mode=st.sampled_from(["min", "max"]),
    factor=st.sampled_from([0.1, 0.5]),
    patience=st.integers(0, 3),
    threshold=st.sampled_from([0.0, 1e-4, 0.5]),
    threshold_mode=st.sampled_from(["rel", "abs"]),
    cooldown=st.integers(0, 2),
    min_lr=st.sampled_from([0.0, 0.02]),
)
def test_the_learning_rate_falls_as_with_torch(values: list[float], **settings: Any) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.25)
    ours, theirs = ReduceLROnPlateau(**settings), torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    history: list[Metrics] = []
    for value in values:
        theirs.step(value)
        history.append({"test_loss": value})
        assert ours.decide(history, lr=0.25).lr == optimizer.param_groups[0]["lr"]


def test_a_reduction_says_why() -> None:
    rule = ReduceLROnPlateau("loss", patience=1, factor=0.5)
    history = [{"loss": value} for value in (0.5, 0.75, 0.5)]
    assert rule.decide(history[:2], 1.0) == Rate(1.0, "loss: the best is 0.5")
    assert rule.decide(history, 1.0) == Rate(0.5, "loss has not improved on 0.5: learning rate x 0.5")
    assert rule.decide([*history, {"loss": 0.25}], 1.0) == Rate(0.5, "loss: the best is 0.25")


def test_what_the_rule_has_come_to_is_a_factor_of_the_schedule() -> None:
    policies = Policies(plateau=ReduceLROnPlateau("loss", patience=0, min_lr=0.05), lr=0.2)
    history = [{"loss": 1.0}] * 2
    assert policies.lr_factor(history)[0] == 0.25
    assert Policies(lr=0.2).lr_factor(history) == (1.0, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factor": 1.0}, "factor must be > 0 and < 1, got 1.0"),
        ({"factor": 0.0}, "factor must be > 0 and < 1, got 0.0"),
        ({"mode": "up"}, "mode must be min or max, got 'up'"),
        ({"threshold_mode": "relative"}, "threshold_mode must be rel or abs, got 'relative'"),
        ({"patience": -1}, "patience must be a finite number >= 0, got -1"),
        ({"min_lr": NAN}, "min_lr must be a finite number >= 0, got nan"),
    ],
)
def test_a_rule_that_torch_would_refuse_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ReduceLROnPlateau(**change)
    assert str(caught.value) == message


# ------------------------------------------------------------------ the weights that are kept


@pytest.mark.parametrize(
    ("rule", "values", "names"),
    [
        (ModelCheckpoint(), [1.0], ("best", "last")),
        (ModelCheckpoint(), [1.0, 1.0], ("last",)),
        (ModelCheckpoint(), [1.0, 2.0, 0.5], ("best", "last")),
        (ModelCheckpoint(save_last=False), [1.0, 2.0], ()),
        (ModelCheckpoint(save_best=False), [1.0], ("last",)),
        (ModelCheckpoint(mode="max"), [1.0, 2.0], ("best", "last")),
        (ModelCheckpoint(), [NAN], ("last",)),
        (ModelCheckpoint(), [NAN, 3.0], ("best", "last")),
    ],
)
def test_the_best_weights_and_the_last_are_kept(
    rule: ModelCheckpoint, values: list[float], names: tuple[str, ...]
) -> None:
    assert rule.decide([{"test_loss": value} for value in values]) == names


def test_a_rule_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^save_best or save_last must be true, got neither$"):
        ModelCheckpoint(save_best=False, save_last=False)
