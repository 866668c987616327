from typing import Any

import pytest

from psgd.analysis.comparison import Budget, Metric, Target
from psgd.analysis.observations import observe, too_short
from psgd.analysis.run_figures import RunFigures
from tests.analysis.runs import FIGURES, arm_in, comparison_of, curve_of, run_of


def odd(mode: str, *runs: RunFigures) -> list[str]:
    arm = arm_in(mode, *runs)
    return observe(mode, arm, arm.rates[0], Metric("accuracy"))


def heard(*counts: tuple[int, int]) -> RunFigures:
    return run_of(0.5, heard=counts)


def test_a_slot_that_backups_never_hear_is_named() -> None:
    runs = heard((10, 10), (10, 9), (8, 0)), heard((10, 10), (10, 10), (8, 1))
    assert odd("sync+1", *runs) == [
        "sync+1: 2.5 % of all gradients that were used are slot 2's, instead of 33 %, as 94 % of its own were dropped: "
        "what it draws is hardly learned from, so the data are biased."
    ]


def test_a_slot_that_only_is_slow_is_named_too() -> None:
    assert odd("async", heard((30, 30), (10, 10), (30, 30))) == [
        "async: 14 % of all gradients that were used are slot 1's, instead of 33 %, as it is slow: what the others "
        "draw counts for more."
    ]


def test_slots_that_take_turns_at_being_late_are_all_heard() -> None:
    assert odd("sync+1", heard((10, 7), (10, 6), (10, 7))) == []


@pytest.mark.parametrize(("mean", "most", "told"), [(7.9, 31, False), (8.0, 8, True), (1.0, 32, True)])
def test_stale_gradients_are_named(mean: float, most: float, told: bool) -> None:
    found = odd("async", run_of(0.5, measured={"lag_mean": mean, "lag_max": most}))
    assert bool(found) == told
    if told:
        assert found[0].startswith(
            f"async: its gradients are stale, by {mean:.1f} updates in the mean and {most:.0f} at most"
        )


@pytest.mark.parametrize(("gaps", "told"), [((1, 2), True), ((1, 3), False), ((None, 1), False)])
def test_a_bound_that_nobody_ran_into_made_no_difference(gaps: tuple[int | None, ...], told: bool) -> None:
    runs = (run_of(0.5, figures=FIGURES | {"max_clock_gap": gap}) for gap in gaps)
    expected = ["async:3: its bound of 3 made no difference: no slot ran further ahead than 2."]
    assert odd("async:3", *runs) == (expected if told else [])


def test_an_arm_without_a_run_is_not_odd() -> None:
    arm = arm_in("sync", None)
    assert observe("sync", arm, arm.rates[0], Metric("accuracy")) == []


def short(*runs: RunFigures, **more: Any) -> list[str]:
    return too_short(comparison_of(arm_in("sync", *runs), **more))


def rising(*values: float) -> RunFigures:
    return run_of(values[-1], test={"accuracy": curve_of(*((8 * place, value) for place, value in enumerate(values)))})


def test_curves_that_still_rise_are_named() -> None:
    words = "The test accuracy of all arms was still improving at the end: a longer run may tell more."
    assert short(rising(0.1, 0.3, 0.5, 0.7)) == [words]
    assert short(rising(0.1, 0.6, 0.7, 0.71)) == []
    assert short(rising(0.1, 0.7)) == []  # too few to say
    assert short(rising(0.1, 0.3, 0.5, 0.7), budget=Budget("target"), target=Target("test_accuracy", 0.7)) == []


def test_of_some_arms_only_those_are_named() -> None:
    figures = comparison_of(arm_in("sync", rising(0.1, 0.3, 0.5, 0.7)), arm_in("async", rising(0.1, 0.6, 0.7, 0.71)))
    assert too_short(figures) == [
        "The test accuracy of sync was still improving at the end: a longer run may tell more."
    ]


def test_runs_of_a_moment_tell_how_processes_start_but_virtual_ones_do_not() -> None:
    assert short(run_of(0.5, seconds=2.0)) == [
        "Runs took as little as 2.0 s: so short, they tell more of how processes start than of speed."
    ]
    assert short(run_of(0.5, seconds=2.0, settings={"world": {"compute": "exp:1"}})) == []


def test_runs_of_times_alone_tell_nothing_of_accuracy() -> None:
    timed = run_of(0.5, settings={"gradients": "none", "world": {}}, test={}, final_test={})
    assert short(timed) == ["Nothing was trained, only timed: what an arm costs in accuracy can not be told."]


def test_chance_among_many_slots_is_nothing_odd() -> None:
    """Nine of twenty is off by what the unluckiest of a thousand slots may well be, but not of three."""
    assert odd("async", heard(*[(20, 20)] * 999, (9, 9))) == []
    assert len(odd("async", heard((20, 20), (20, 20), (9, 9)))) == 1


def test_many_slots_that_are_not_heard_are_counted() -> None:
    found = odd("sync+4", heard(*[(90, 90)] * 12, *[(90, 0)] * 4))
    assert found == ["sync+4: 4 of 16 slots are hardly heard: 0 % of all gradients that were used are theirs."]


def ended(*values: float) -> RunFigures:
    return run_of(values[-1], test={"accuracy": curve_of(*((8 * place, value) for place, value in enumerate(values)))})


@pytest.mark.parametrize(
    ("values", "told"),
    [((0.1, 0.12, 0.08, 0.1), True), ((0.1, 0.3, 0.2, 0.2), False), ((0.5, 0.4, 0.3), False)],
)
def test_an_arm_that_has_learned_nothing_is_named(values: tuple[float, ...], told: bool) -> None:
    expected = (
        "sync: its test accuracy ended no better than it was at the first evaluation: it has learned nothing since."
    )
    assert odd("sync", ended(*values), ended(0.1, 0.1, 0.1, 0.05)) == ([expected] if told else [])
