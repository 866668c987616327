from typing import Any

from psgd.analysis.comparison import ArmRuns, Budget, Rate, Target
from psgd.analysis.conditions import check_conditions
from psgd.analysis.findings import find
from psgd.analysis.notes import notes
from psgd.analysis.recommendation import Recommendation
from tests.analysis.runs import arm_in, arm_of, comparison_of, run_of

SILENT = Recommendation(None, (), "")


def noted(*arms: ArmRuns, **more: Any) -> list[str]:
    figures = comparison_of(*arms, **more)
    return notes(figures, check_conditions(figures), SILENT)


def test_notes_say_what_the_figures_are_and_are_not() -> None:
    searched = arm_of("adam", "sync", {0.1: (0.5, 0.5), 0.2: (0.75, 0.75), 0.4: (None, 0.5)})
    edge = arm_of("sgd", "sync", {0.1: (0.75, 0.75), 0.2: (0.5, 0.5)})
    assert noted(searched, edge) == [
        "Medians over 2 seeds, with the least and the greatest; all arms have the same seeds.",
        "Each arm is shown at the learning rate with the best median test accuracy, of those with which fewest runs "
        "diverged or are missing. That choice was made on the test "
        "set, as there is no validation set, so it flatters arms a little.",
        "adam, lr 0.4: 1 of 2 runs diverged (loss NaN or Inf).",
        "sgd: the best learning rate is the lowest tried, 0.1: a lower one may be better.",
    ]


def test_notes_say_when_nothing_can_be_told_of_chance_and_what_is_missing() -> None:
    late = arm_of("adam", "async", {0.1: (0.5,)})
    assert noted(ArmRuns("adam", "sync", (Rate(0.1, (None,)),), {"mode": "sync"}), late) == [
        "One run each: how much of a difference is chance can not be told; try --seeds 3.",
        "Asynchronous arms make an update for each gradient (softsync: for several), synchronous ones one a step.",
        "sync, lr 0.1: 1 of 1 runs have failed or were not made, and are left out.",
    ]


def test_the_highest_rate_is_an_edge_too_but_not_of_an_arm_that_always_diverged() -> None:
    arms = arm_of("adam", "sync", {0.1: (0.5,), 0.2: (0.75,)}), arm_of("sgd", "sync", {0.1: (None,), 0.2: (None,)})
    found = noted(*arms)
    assert "adam: the best learning rate is the highest tried, 0.2: a higher one may be better." in found
    assert not any(note.startswith("sgd: the best") for note in found)


def test_a_target_says_how_exactly_it_is_timed_and_how_rates_were_chosen() -> None:
    arm = arm_of("adam", "sync", {0.1: (0.5,), 0.2: (0.75,), 0.4: (0.5,)})
    found = noted(arm, budget=Budget("target"), target=Target("test_accuracy", 0.7))
    assert found[1:] == [
        "Each arm is shown at the learning rate with which most runs reach the target, and soonest.",
        "The target counts as reached at the first evaluation that meets it: samples and seconds to it are known to "
        "within the distance of two evaluations, which intervals allow for. Seconds are those until the steps before "
        "it had finished.",
    ]


def test_conditions_that_differ_are_said_and_remarks_passed_on() -> None:
    arms = arm_in("sync", run_of(0.5)), arm_in("async", run_of(0.5, settings={"wire": "bf16"}))
    found = noted(*arms, remarks=("Left out: one.",))
    assert found[1:3] == ["Left out: one.", "Not equal: wire differs: sync null; async bf16."]


def test_what_the_advice_warns_of_is_not_said_twice() -> None:
    arms = [
        arm_in(mode, *(run_of(0.5, seed=seed, seconds=1.0, settings={"wire": wire}) for seed in range(2)))
        for mode, wire in (("sync", "f32"), ("async", "bf16"))
    ]
    found = find(comparison_of(*arms))
    for words, note in (
        (
            short := "Runs took as little as 1.0 s: so short, they tell more of how processes start than of speed.",
            short,
        ),
        (unlike := "wire differs: sync f32; async bf16.", f"Not equal: {unlike}"),
    ):
        assert f"Beware: {words}" in found.advice.reasons
        assert note in noted(*arms)
        assert note not in found.notes


def test_virtual_seconds_are_called_so() -> None:
    world = {"world": {"compute": "exp:1"}}
    arms = arm_in("sync", run_of(0.5, settings=world)), arm_in("async", run_of(0.5, settings=world))
    words = "The runs are simulated: seconds are virtual, of a world with compute times of exp:1."
    assert words in noted(*arms)
    assert words not in noted(arms[0], arm_in("async", run_of(0.5)))


def test_runs_that_had_fewer_or_more_seconds_than_their_budget_are_counted() -> None:
    arms = arm_in("sync", run_of(0.5, seconds=72.0)), arm_in("async", run_of(0.5, seconds=13.0))
    assert [note for note in noted(*arms, budget=Budget("seconds", 12.0)) if "of 2 runs" in note] == [
        "1 of 2 runs took longer than their 12 s (sync up to 72.0 s, async up to 13.0 s): they end at evaluations, "
        "which were too far apart; lower --evaluate-every."
    ]
    assert [note for note in noted(*arms, budget=Budget("seconds", 70.0)) if "of 2 runs" in note] == [
        "1 of 2 runs came to the end of their epochs or steps before their 70 s were over: raise --epochs or --steps."
    ]
