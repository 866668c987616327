import pytest

from psgd.analysis.comparison import ArmRuns, Metric, Rate, Spread, judged_by
from tests.analysis.runs import arm_of, comparison_of, run_of

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
    assert rate.figure("seconds") == Spread(2.0, 1.0, 3.0)
    assert rate.train(ACCURACY) == Spread(0.9, 0.9, 0.9)


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


def test_notes_say_what_the_figures_are_and_are_not() -> None:
    searched = arm_of("adam", "sync", {0.1: (0.5, 0.5), 0.2: (0.75, 0.75), 0.4: (None, 0.5)})
    edge = arm_of("sgd", "sync", {0.1: (0.75, 0.75), 0.2: (0.5, 0.5)})
    assert comparison_of(searched, edge).notes() == [
        "Medians over 2 seeds, with the least and the greatest; all arms have the same seeds.",
        "Each arm is shown at the learning rate with the best median test accuracy. That choice was made on the test "
        "set, as there is no validation set, so it flatters arms a little.",
        "adam, lr 0.4: 1 of 2 runs diverged (loss NaN or Inf).",
        "sgd: the best learning rate is the lowest tried, 0.1: a lower one may be better.",
    ]


def test_notes_say_when_nothing_can_be_told_of_chance_and_what_is_missing() -> None:
    late = arm_of("adam", "async", {0.1: (0.5,)})
    assert comparison_of(ArmRuns("adam", "sync", (Rate(0.1, (None,)),), {"mode": "sync"}), late).notes() == [
        "One run each: how much of a difference is chance can not be told; try --seeds 3.",
        "Asynchronous arms make one update a gradient, synchronous ones one a step: as many more as there are slots, "
        "from the same samples.",
        "sync, lr 0.1: 1 of 1 runs have failed, and are left out.",
    ]


def test_the_highest_rate_is_an_edge_too_but_not_of_an_arm_that_always_diverged() -> None:
    arms = arm_of("adam", "sync", {0.1: (0.5,), 0.2: (0.75,)}), arm_of("sgd", "sync", {0.1: (None,), 0.2: (None,)})
    notes = comparison_of(*arms).notes()
    assert "adam: the best learning rate is the highest tried, 0.2: a higher one may be better." in notes
    assert not any(note.startswith("sgd: the best") for note in notes)
