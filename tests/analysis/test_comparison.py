import re
import subprocess
import sys
from pathlib import Path

import pytest

from psgd.analysis.comparison import ArmRuns, Budget, Metric, Rate, Spread, Target, judged_by
from psgd.errors import ConfigurationError
from tests.analysis.runs import arm_in, arm_of, comparison_of, run_of

ACCURACY, RMSE = Metric("accuracy"), Metric("rmse")


@pytest.mark.parametrize(
    ("names", "name", "goal"),
    [
        (["test_loss", "test_accuracy", "test_f1"], "accuracy", "max"),
        (["test_loss", "test_rmse", "test_r2"], "rmse", "min"),
        (["loss", "f1"], "loss", "min"),
        ([], "loss", "min"),
    ],
)
def test_arms_are_judged_by_what_tells_most(names: list[str], name: str, goal: str) -> None:
    metric = judged_by(names)
    assert (metric.name, metric.goal) == (name, goal)


@pytest.mark.parametrize(
    ("values", "goal", "spread"),
    [
        ([0.25, 0.75, 0.5], "max", Spread(0.5, 0.25, 0.75)),
        ([0.5, None, 0.75], "max", Spread(0.5, 0.5, 0.75)),
        ([0.5, None, 0.75], "min", Spread(0.75, 0.5, 0.75)),
        ([0.5, None, None], "max", Spread(None, 0.5, 0.5)),
        ([0.5, None], "max", Spread(None, 0.5, 0.5)),
        ([], "min", Spread(None, None, None)),
    ],
)
def test_a_run_without_a_value_counts_as_the_worst(values: list[float | None], goal: str, spread: Spread) -> None:
    assert Spread.of(values, goal) == spread  # type: ignore[arg-type]


def test_the_best_rate_has_the_best_median_not_the_best_run() -> None:
    arm = arm_of("adam", "sync", {0.1: (0.99, 0.5, 0.5), 0.2: (0.9, 0.8, 0.7), 0.4: (None, None, 0.999)})
    assert arm.best(ACCURACY).lr == 0.2


def test_of_equal_rates_the_lowest_is_the_best() -> None:
    assert arm_of("adam", "sync", {0.1: (0.5,), 0.2: (0.5,)}).best(ACCURACY).lr == 0.1


def test_less_is_better_where_the_metric_says_so() -> None:
    assert arm_of("adam", "sync", {0.1: (0.75,), 0.2: (0.5,)}, "rmse").best(RMSE).lr == 0.2


def test_a_run_that_diverged_has_no_metric_whatever_its_accuracy() -> None:
    diverged = run_of(None)
    diverged.final_test["accuracy"] = 0.98
    assert Rate(0.1, (diverged,)).test(ACCURACY) == Spread(None, None, None)


def test_runs_that_failed_are_left_out() -> None:
    rate = Rate(0.1, (run_of(0.5, seconds=1.0), None, run_of(0.75, seconds=3.0)))
    assert rate.test(ACCURACY) == Spread(0.625, 0.5, 0.75)
    assert rate.spread(lambda run: run.figure("seconds")) == Spread(2.0, 1.0, 3.0)
    assert rate.values(lambda run: run.figure("seconds")) == [1.0, None, 3.0]


def test_arms_are_called_by_what_tells_them_apart() -> None:
    adam, sgd = arm_of("adam", "sync", {0.1: (0.5,)}), arm_of("sgd", "sync", {0.1: (0.5,)})
    late = arm_of("sgd", "async:4", {0.1: (0.5,)})
    assert comparison_of(adam, sgd).name(sgd) == "sgd"
    assert comparison_of(sgd, late).name(late) == "async:4"
    assert comparison_of(adam, late).name(late) == "sgd, async:4"


def test_the_title_says_what_was_trained() -> None:
    figures = comparison_of(arm_of("adam", "sync", {0.1: (0.5,)}))
    assert figures.title == "2 slots of 4, 4 steps"
    figures.runs()[0].settings["options"] = {"model": "cnn", "data": "mnist"}
    assert figures.title == "cnn on mnist, 2 slots of 4, 4 steps"
    assert comparison_of(ArmRuns("adam", "sync", (Rate(0.1, (None,)),))).title == "no run has come to its end"


def test_for_a_target_the_best_rate_is_the_one_that_reaches_it_most_often_and_soonest() -> None:
    target = Target("test_accuracy", 0.75)
    slow, fast = (run_of(0.8, seconds=seconds) for seconds in (40.0, 10.0))
    never = run_of(0.7, seconds=1.0)
    arm = ArmRuns("sgd", "sync", (Rate(0.1, (slow, slow)), Rate(0.2, (fast, fast)), Rate(0.3, (never, fast))))
    assert arm.soonest(target).lr == 0.2
    until = comparison_of(arm, budget=Budget("target"), target=target)
    assert until.best(arm).lr == 0.2
    assert until.title == "2 slots of 4, until 75.00 %"
    assert comparison_of(arm, target=target).best(arm).lr == 0.1


def test_a_target_says_by_what_arms_are_judged() -> None:
    arm = arm_of("adam", "sync", {0.1: (0.5,)})
    assert comparison_of(arm).metric == ACCURACY
    assert comparison_of(arm, target=Target("test_loss", 0.3)).metric == Metric("loss")


def test_a_target_of_a_metric_that_nobody_has_measured_names_those_that_there_are() -> None:
    arm = arm_of("adam", "sync", {0.1: (0.5,)})
    words = "target must be one of test_accuracy, test_loss, got 'test_accurcy'; did you mean accuracy?"
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        comparison_of(arm, target=Target("test_accurcy", 0.3))


def test_a_budget_of_seconds_is_the_length_of_the_runs() -> None:
    arm = arm_of("adam", "sync", {0.1: (0.5,)})
    assert comparison_of(arm, budget=Budget("seconds", 30)).title == "2 slots of 4, 30 s"


def test_what_is_to_be_compared_can_be_said_without_numpy() -> None:
    program = "import sys; import psgd.analysis.comparison; sys.exit({'numpy', 'torch'} & set(sys.modules) != set())"
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("value", "words"),
    [(85.0, r"target must be > 0 and <= 1 in test_accuracy, got 85; try 0\.85$"), (0.0, "got 0$"), (-1.0, "got -1$")],
)
def test_an_accuracy_that_nothing_or_everything_reaches_is_no_target(value: float, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Target("test_accuracy", value)
    assert Target("test_loss", value).value == value


def test_lags_are_those_of_all_seeds() -> None:
    runs = (run_of(0.5, lags={0: 1, 2: 3}), None, run_of(0.5, lags={2: 1}))
    assert arm_in("async", *runs).rates[0].lags == {0: 1, 2: 4}
