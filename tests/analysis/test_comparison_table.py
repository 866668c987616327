from typing import Any

from psgd.analysis.comparison import ArmRuns, Budget, Target
from psgd.analysis.comparison_table import Column, Table, arms_table
from tests.analysis.runs import arm_in, arm_of, comparison_of, run_of

TARGET = Target("test_accuracy", 0.75)


def cells(*arms: ArmRuns, **more: Any) -> dict[str, tuple[str, ...]]:
    """The columns by their headings."""
    table = arms_table(comparison_of(*arms, **more))
    return {column.heading: column.cells for column in (*table.naming, *table.columns)}


def test_figures_are_medians_and_where_it_matters_they_have_their_spread() -> None:
    measured = {"idle_share": 0.256, "lag_mean": 1.04, "lag_max": 3.0, "effective_lr": 0.05, "bytes": 1.5e6}
    runs = (run_of(end, seed=s, seconds=4.0 + 4 * s, measured=measured) for s, end in enumerate((0.75, 0.5, 0.625)))
    found = cells(arm_in("async", *runs))
    assert found == {
        "optimizer": ("sgd",),
        "mode": ("async",),
        "lr": ("0.1",),
        "test accuracy": ("62.50 % (50.00–75.00)",),
        "train accuracy": ("90.00 %",),
        "samples/s": ("4 (2.67–8)",),
        "idle": ("26 %",),
        "lag mean/max": ("1.0/3",),
        "effective lr": ("0.05",),
        "dropped samples": ("0",),
        "bytes moved": ("1.50 MB",),
        "seconds": ("8",),
        "samples used": ("32",),
        "steps": ("4",),
    }


def test_times_to_a_target_are_of_those_that_reached_it() -> None:
    always = arm_in("sync", run_of(0.75, seconds=20.0), run_of(0.75, seconds=24.0))
    once = arm_in("async", run_of(0.75, seconds=12.0), run_of(0.5))
    never = arm_in("async:4", run_of(0.5), run_of(0.5))
    failed = arm_in("sync+1", None, None)
    found = cells(always, once, never, failed, target=TARGET)
    assert found["time to 75.00 %"] == ("22.0 s (20.0–24.0)", "1 of 2: 12.0 s", "not reached", "–")
    assert found["samples drawn to it"] == ("32", "1 of 2: 32", "not reached", "–")


def test_a_run_that_did_not_reach_the_target_counts_as_the_slowest_of_the_median() -> None:
    most = arm_in("sync", run_of(0.75, seconds=20.0), run_of(0.5), run_of(0.75, seconds=24.0))
    few = arm_in("async", run_of(0.75, seconds=12.0), run_of(0.5), run_of(0.5))
    found = cells(most, few, target=TARGET)
    assert found["time to 75.00 %"] == ("2 of 3: 24.0 s (20.0–24.0)", "1 of 3: 12.0 s")


def test_what_is_the_same_for_all_is_said_once_but_never_what_decides() -> None:
    table = arms_table(comparison_of(arm_in("sync", run_of(0.75)), arm_in("async", run_of(0.75))))
    assert [column.heading for column in table.naming] == ["mode"]
    assert [column.heading for column in table.columns] == ["test accuracy", "train accuracy"]
    assert table.common[:3] == (("optimizer", "sgd"), ("lr", "0.1"), ("samples/s", "1.60"))


def test_what_nobody_has_is_left_out() -> None:
    assert "bytes moved" not in cells(arm_in("sync", run_of(0.75)))
    timed = arm_in("sync", run_of(0.75, settings={"gradients": "none"}, test={}, final_test={}, final_train={}))
    assert "test loss" not in cells(timed)


def test_an_arm_that_mostly_diverged_says_so() -> None:
    assert cells(arm_of("sgd", "sync", {0.1: (None, None, 0.5)}))["test accuracy"] == ("diverged",)


def test_a_budget_of_a_target_shows_the_rate_that_reaches_it_soonest() -> None:
    rates = arm_in("sync", run_of(0.8, seconds=10.0)).rates + arm_in("sync", run_of(0.7)).rates
    found = cells(ArmRuns("sgd", "sync", rates), budget=Budget("target"), target=TARGET)
    assert found["time to 75.00 %"] == ("10.0 s",)


def test_columns_that_do_not_fit_go_below() -> None:
    naming = (Column("mode", ("sync", "async")),)
    columns = tuple(Column(name, ("1234", "5")) for name in ("one", "two", "three"))
    table = Table(naming, columns, ())
    assert table.rows(width=19) == [
        [("mode", "one", "two"), ("sync", "1234", "1234"), ("async", "5", "5")],
        [("mode", "three"), ("sync", "1234"), ("async", "5")],
    ]
    assert len(table.rows(width=26)) == 1
    assert len(table.rows(width=1)) == 3


def test_where_nothing_was_trained_no_optimizer_is_shown() -> None:
    timed = arm_in("sync", run_of(0.5, settings={"gradients": "none"}, test={}, final_test={}, final_train={}))
    assert "optimizer" not in cells(timed)
