from dataclasses import replace
from typing import Any

from psgd.analysis.comparison import ArmRuns, Budget, Target
from psgd.analysis.pairs import compare_arms
from psgd.analysis.recommendation import BEWARE, Recommendation, recommend
from tests.analysis.runs import arm_in, comparison_of, curve_of, run_of

TARGET = Target("test_accuracy", 0.85)
UNTIL: dict[str, Any] = {"budget": Budget("target"), "target": TARGET}


def arm(
    mode: str, seconds: tuple[float, ...], ends: tuple[float | None, ...] = (0.85, 0.85, 0.85), **changes: Any
) -> ArmRuns:
    runs = (
        run_of(end, seed=s, seconds=each, before=0.99, **changes)
        for s, (each, end) in enumerate(zip(seconds, ends, strict=False))
    )
    return arm_in(mode, *runs)


def advice(*arms: ArmRuns, **more: Any) -> Recommendation:
    figures = comparison_of(*arms, **more)
    return recommend(figures, compare_arms(figures))


SLOW, FAST = (18.0, 19.0, 20.0), (10.0, 10.5, 11.2)
GOOD, BAD = (0.90, 0.92, 0.91), (0.80, 0.83, 0.80)


def test_for_a_target_it_is_who_reaches_it_first() -> None:
    found = advice(arm("sync", SLOW), arm("async", FAST), **UNTIL)
    assert found.mode == "async"
    assert found.reasons[0] == "async reaches 85.00 % 1.8× sooner than sync (95 % CI 1.77–1.83×)."
    assert found.words.startswith("Take async. async reaches 85.00 % 1.8× sooner")


def test_for_a_budget_of_samples_the_end_counts_more_than_the_speed() -> None:
    found = advice(arm("sync", SLOW, GOOD), arm("async", FAST, BAD))
    assert found.mode == "sync"
    assert found.reasons == ("sync ends 10.00 points above async in test accuracy (95 % CI 7.52 to 12.48).",)


def test_where_ends_can_not_be_told_apart_the_target_decides_then_the_speed() -> None:
    by_target = advice(arm("sync", SLOW, GOOD), arm("async", FAST, (0.92, 0.90, 0.94)), target=TARGET)
    assert by_target.mode == "async"
    assert by_target.reasons[:2] == (
        "No difference can be told in test accuracy.",
        "async reaches 85.00 % 1.8× sooner than sync (95 % CI 1.77–1.83×).",
    )
    by_speed = advice(arm("sync", SLOW), arm("async", FAST))
    assert by_speed.mode == "async"
    assert by_speed.reasons[1] == "async makes 1.8× the samples/s of sync (95 % CI 1.77–1.83×)."


def test_an_arm_that_is_likely_to_end_worse_is_not_taken_for_its_speed() -> None:
    """Four arms make six comparisons, so that Holm's correction leaves the fast one's loss unproven."""
    others = [
        arm("sync", SLOW, GOOD),
        arm("sync+1", SLOW, (0.92, 0.90, 0.91)),
        arm("async:4", SLOW, (0.91, 0.91, 0.92)),
    ]
    found = advice(*others, arm("async", FAST, (0.83, 0.86, 0.80)))
    assert found.mode != "async"
    assert any(
        "async looks worse than sync in test accuracy, if not beyond doubt (" in reason for reason in found.reasons
    )


def test_where_nothing_can_be_told_it_is_sync_and_why() -> None:
    found = advice(arm("async", (18.0, 15.0, 24.0)), arm("sync+1", SLOW), arm("sync", SLOW))
    assert found.mode == "sync"
    assert found.reasons == (
        "All are equal in test accuracy.",
        "No difference can be told in samples/s.",
        "sync can not be told from async, sync+1, and is the simplest, whose runs can be repeated to the bit; more "
        "seeds may tell more.",
    )


def test_one_run_each_tells_nothing_however_far_they_are_apart() -> None:
    found = advice(arm("async", (1.0,)), arm("sync", (20.0,)), **UNTIL)
    words = "From one run each nothing can be told: more seeds are needed, three at least."
    assert found == Recommendation(None, (), words)
    apart = advice(arm_in("sync", run_of(0.9), run_of(0.8), None), arm_in("async", None, run_of(0.7), run_of(0.9)))
    words = "From less than two seeds that both arms have nothing can be told: more seeds are needed, three at least."
    assert apart == Recommendation(None, (), words)


def test_of_arms_that_beat_the_others_the_simplest_is_taken() -> None:
    found = advice(arm("sync", SLOW), arm("async", FAST), arm("async:4", (10.1, 10.4, 11.3)), **UNTIL)
    assert found.mode == "async:4"
    assert found.reasons[-1] == "async:4 can not be told from async, and is the simplest of them."


def test_what_reaches_the_target_every_time_wins_over_what_does_not() -> None:
    found = advice(arm("sync", SLOW, (0.85, 0.5, 0.85)), arm("async", (30.0, 31.0, 29.0)), **UNTIL)
    assert found.mode == "async"
    assert found.reasons[0] == "sync has reached 85.00 % in 2 of 3 runs, which may be chance."
    nobody = advice(
        arm("sync", SLOW, GOOD), arm("async", FAST, BAD), budget=Budget("target"), target=Target("test_accuracy", 0.99)
    )
    assert nobody.mode == "sync"
    assert nobody.reasons[0] == "No arm has reached 99.00 % in any of its runs."


def test_an_arm_that_diverged_is_not_recommended() -> None:
    found = advice(arm("sync", SLOW), arm("async", FAST, (0.99, None, 0.99)))
    assert found.mode == "sync"
    assert found.reasons[0] == "Runs of async have diverged."
    everybody = advice(arm("sync", SLOW, (None,) * 3), arm("async", FAST, (None,) * 3))
    assert everybody.mode is None
    assert everybody.words == "All runs have diverged: there is none to take; try lower learning rates."
    some = advice(arm("sync", SLOW, (None, 0.85, 0.85)), arm("async", FAST, (0.85, None, 0.85)))
    assert (some.mode, some.reasons[0]) == ("async", "Some runs of every arm have diverged.")


def test_where_every_arm_has_diverged_or_missed_the_one_that_did_least_is_taken() -> None:
    diverged = advice(arm("sync", SLOW, (None, 0.95, 0.95)), arm("async", FAST, (None, None, None)))
    assert diverged.mode == "sync"
    assert diverged.reasons[0] == "Some runs of every arm have diverged, the fewest of sync."
    missed = advice(arm("sync", SLOW, (0.85, 0.85, 0.5)), arm("async", FAST, (0.5, 0.5, 0.5)), **UNTIL)
    assert missed.mode == "sync"
    assert missed.reasons[:2] == (
        "No arm has reached 85.00 % in all of its runs.",
        "async has reached 85.00 % in none of 3 runs, which may be chance.",
    )
    surely = advice(arm("sync", (18.0,) * 4, (0.85,) * 4), arm("async", (9.0,) * 4, (0.5,) * 4), **UNTIL)
    assert surely.reasons[0] == "async has reached 85.00 % in none of 4 runs."


def test_an_arm_that_is_better_but_for_a_run_that_diverged_is_named() -> None:
    found = advice(arm("sync", SLOW, (0.97, None, 0.97)), arm("async", FAST, (0.5, 0.51, 0.5)))
    assert found.mode == "async"
    assert found.reasons[-1] == (
        "Beware: sync has the better median of test accuracy, 97.00 % against 50.00 %, though 1 of its 3 runs "
        "diverged: a lower learning rate may save it."
    )


def test_an_arm_with_a_single_run_is_not_taken() -> None:
    lone = arm_in("sync", run_of(0.7), None, None)
    found = advice(lone, arm("async", FAST, GOOD), arm("async:4", SLOW, GOOD))
    assert found.mode == "async"
    assert found.reasons[0] == "sync has too few runs to tell anything of it: 1 of 3."


def test_runs_that_are_missing_are_a_warning() -> None:
    found = advice(arm("sync", FAST, GOOD), arm_in("async", run_of(0.5), run_of(0.5), None))
    assert not any("the others have failed" in reason for reason in found.reasons)
    found = advice(arm_in("sync", run_of(0.9), run_of(0.91), None), arm("async", SLOW, (0.6, 0.61, 0.6)))
    assert found.mode == "sync"
    assert "Beware: sync has 2 of 3 runs: the others have failed, or were not made." in found.reasons


def test_what_an_arm_may_cost_that_is_taken_for_its_speed_is_a_warning() -> None:
    found = advice(arm("sync", SLOW, (0.93, 0.94, 0.92)), arm("async", FAST, (0.90, 0.86, 0.89)))
    assert found.mode == "async"
    assert found.reasons[-1] == (
        "Beware: async may be worse than sync in test accuracy: that can neither be told nor ruled out (difference "
        "4.67 points, 95 % CI −2.50 to 11.84)."
    )
    close = advice(arm("sync", SLOW, (0.930, 0.931, 0.929)), arm("async", FAST, (0.929, 0.931, 0.9285)))
    assert close.mode == "async"
    assert not any(reason.startswith(BEWARE) for reason in close.reasons)


def test_arms_that_are_as_simple_as_each_other_are_left_to_the_reader() -> None:
    arms = [replace(arm("sync", (18.0 + k, 19.0, 20.0 - k)), optimizer=name) for k, name in enumerate(("adam", "sgd"))]
    found = advice(*arms)
    assert found.mode == "adam"
    assert found.reasons[-1] == (
        "adam can not be told from sgd; more seeds may tell more; adam and sgd are equally simple, so that any of "
        "them will do."
    )


def test_conditions_that_differ_are_a_warning() -> None:
    figures = comparison_of(arm("sync", SLOW), arm("async", FAST))
    found = recommend(figures, compare_arms(figures), ["steps differs: sync 4; async 40."])
    assert found.reasons[-1] == "Beware: steps differs: sync 4; async 40."


def test_a_price_in_accuracy_is_a_warning() -> None:
    reached = tuple(
        run_of(end, seed=s, seconds=each, test={"accuracy": curve_of((16, 0.9), (32, end), every_s=each / 2)})
        for s, (each, end) in enumerate(zip(FAST, BAD, strict=True))
    )
    found = advice(arm("sync", SLOW, GOOD), arm_in("async", *reached), **UNTIL)
    assert found.mode == "async"
    assert found.reasons[-1] == "Beware: sync ends 10.00 points above async in test accuracy (95 % CI 7.52 to 12.48)."


def test_what_is_odd_about_the_choice_is_a_warning() -> None:
    found = advice(arm("sync", SLOW), arm("sync+1", FAST, heard=((4, 4), (4, 0))), **UNTIL)
    assert found.mode == "sync+1"
    assert found.reasons[-1].startswith(
        "Beware: sync+1: 0 % of all gradients that were used are slot 1's, instead of 50 %"
    )


def test_with_one_arm_there_is_nothing_to_choose() -> None:
    assert advice(arm("sync", SLOW)) == Recommendation(None, (), "There are no two arms to choose from.")
    assert advice(arm("sync", SLOW), arm_in("async", None, None, None)).mode is None


def test_who_is_still_to_choose_from_is_named_where_a_figure_tells_nothing_more() -> None:
    close = arm("sync+1", (18.5, 18.0, 20.5), GOOD)
    found = advice(arm("sync", SLOW, GOOD), close, arm("async", FAST, BAD), target=Target("test_accuracy", 0.75))
    assert found.reasons[0].startswith("sync ends 10.00 points above async in test accuracy")
    assert "No difference can be told between sync and sync+1 in time to 75.00 %." in found.reasons


def test_three_names_are_listed() -> None:
    arms = [arm(mode, (18.0 + k, 19.0, 20.0 - k), GOOD) for k, mode in enumerate(("sync", "sync+1", "sync+2"))]
    found = advice(*arms, arm("async", FAST, BAD))
    assert "No difference can be told between sync, sync+1 and sync+2 in samples/s." in found.reasons


def test_arms_that_are_equal_in_everything_need_no_more_seeds() -> None:
    found = advice(arm("async", SLOW), arm("sync", SLOW))
    assert found.reasons == (
        "All are equal in test accuracy.",
        "All are equal in samples/s.",
        "sync can not be told from async, and is the simplest, whose runs can be repeated to the bit.",
    )


def test_a_target_that_nobody_reached_has_no_time_that_could_tell() -> None:
    never = Target("test_accuracy", 0.99)
    found = advice(arm("sync", SLOW, GOOD), arm("async", FAST, BAD), budget=Budget("target"), target=never)
    assert not any("time to" in reason for reason in found.reasons)
    half = advice(arm("sync", SLOW, (0.85, 0.5, 0.85)), arm("async", FAST, (0.5, 0.85, 0.85)), **UNTIL)
    assert half.reasons[0] == "No arm has reached 85.00 % in all of its runs."


def test_the_time_of_one_thread_that_does_all_in_turns_decides_nothing() -> None:
    """On plane memory; reached with fewer samples, the target still does."""
    turns: dict[str, Any] = {"settings": {"plane": "memory"}}
    found = advice(arm("sync", SLOW, **turns), arm("async", FAST, **turns), **UNTIL)
    assert found.mode == "sync"
    assert found.reasons[:2] == ("All are equal in samples to 85.00 %.", "All are equal in test accuracy.")
    assert found.reasons[-1].startswith("Beware: All slots took turns in one thread (plane memory): seconds, samples/s")
    frugal = arm_in(
        "async",
        *(run_of(0.9, seed=s, test={"accuracy": curve_of((15 + s, 0.5), (16 + s, 0.9))}, **turns) for s in (0, 1, 2)),
    )
    found = advice(arm("sync", SLOW, **turns), frugal, **UNTIL)
    assert found.mode == "async"
    assert found.reasons[0].startswith("sync needs 1.9× as many samples as async to reach 85.00 %")
    virtual: dict[str, Any] = {"settings": {"plane": "memory", "world": {"compute": "1"}}}
    assert advice(arm("sync", SLOW, **virtual), arm("async", FAST, **virtual), **UNTIL).mode == "async"


def test_runs_that_overran_their_seconds_are_a_warning() -> None:
    found = advice(arm("sync", SLOW), arm("async", FAST), budget=Budget("seconds", 10.0))
    assert found.reasons[-1] == (
        "Beware: 4 of 6 runs took longer than their 10 s (sync up to 20.0 s, async up to 11.2 s): they end at "
        "evaluations, which were too far apart; lower --evaluate-every."
    )
