import pytest

from psgd.analysis.comparison import ArmRuns, Target
from psgd.analysis.pair_words import sentence, statements
from psgd.analysis.pairs import compare_arms
from tests.analysis.runs import arm_in, arm_of, comparison_of, curve_of, run_of

TARGET = Target("test_accuracy", 0.85)


def arm(mode: str, *seconds: float, end: float = 0.85) -> ArmRuns:
    return arm_in(mode, *(run_of(end, seed=seed, seconds=each, before=0.99) for seed, each in enumerate(seconds)))


def said(*arms: ArmRuns, target: Target | None = TARGET) -> list[str]:
    """What is said of the first two arms, figure by figure."""
    first = [each.mode for each in arms[:2]]
    pairs = compare_arms(comparison_of(*arms, target=target))
    return [sentence(pair) for pair in pairs if [pair.a, pair.b] == first]


def stated(*arms: ArmRuns, target: Target | None = TARGET) -> list[str]:
    figures = comparison_of(*arms, target=target)
    return statements(figures, compare_arms(figures))


SYNC, ASYNC = arm("sync", 18.0, 19.0, 20.0), arm("async", 10.0, 10.5, 11.2)
CLOSE = arm("async", 18.0, 15.0, 24.0)


def test_a_difference_that_can_be_told_has_its_size_and_its_interval() -> None:
    sooner, _, _, faster = said(SYNC, ASYNC)
    assert sooner == "async reaches 85.00 % 1.8× sooner than sync (95 % CI 1.77–1.83×)"
    assert faster == "async makes 1.8× the samples/s of sync (95 % CI 1.77–1.83×)"


def test_one_that_can_not_be_told_says_so() -> None:
    told, samples, metric, _ = said(SYNC, CLOSE)
    assert told == "sync and async: no difference can be told in time to 85.00 % (ratio 1.02, 95 % CI 0.60–1.7)"
    assert samples == "sync and async are equal in samples to 85.00 %"
    assert metric == "sync and async are equal in test accuracy"


def test_metrics_differ_by_points() -> None:
    better, worse = arm_of("sgd", "sync", {0.1: (0.90, 0.92, 0.91)}), arm_of("sgd", "async", {0.1: (0.80, 0.83, 0.80)})
    assert (
        said(better, worse, target=None)[0]
        == "sync ends 10.00 points above async in test accuracy (95 % CI 7.52 to 12.48)"
    )
    close = arm_of("sgd", "async", {0.1: (0.92, 0.90, 0.94)})
    assert said(better, close, target=None)[0] == (
        "sync and async: no difference can be told in test accuracy (difference 1.00 points, 95 % CI −5.57 to 7.57)"
    )


def test_an_error_is_better_below() -> None:
    low, high = arm_of("sgd", "sync", {0.1: (0.3, 0.31)}, "rmse"), arm_of("sgd", "async", {0.1: (0.6, 0.612)}, "rmse")
    assert said(low, high, target=None)[0] == "sync ends 0.3010 below async in test rmse (95 % CI 0.2883 to 0.3137)"


def test_samples_are_said_of_the_one_that_needs_more() -> None:
    early = arm_in(
        "async", *(run_of(0.85, seed=s, test={"accuracy": curve_of((15 + s, 0.5), (16 + s, 0.9))}) for s in range(3))
    )
    assert said(SYNC, early)[1] == "sync needs 1.9× as many samples as async to reach 85.00 % (95 % CI 1.6–2.2×)"


def test_what_every_seed_says_alike_has_no_interval() -> None:
    twice = arm("async", 9.0, 9.5, 10.0)
    assert said(SYNC, twice)[3] == "async makes 2.0× the samples/s of sync (the same with every seed)"
    apart = arm_of("sgd", "sync", {0.1: (0.5, 0.625)}), arm_of("sgd", "async", {0.1: (0.25, 0.375)})
    assert said(*apart, target=None)[0] == (
        "sync and async: no difference can be told in test accuracy "
        "(difference 25.00 points with each of 2 seeds, which are too few)"
    )


def test_one_run_each_tells_nothing() -> None:
    assert said(arm("sync", 20.0), arm("async", 10.0))[0] == (
        "sync and async: one run each, nothing can be told in time to 85.00 % (ratio 2.0)"
    )


def test_a_correction_that_takes_a_difference_away_is_named() -> None:
    close = arm("sync", 4.0, 8.4, 6.0), arm("async", 3.0, 6.2, 5.1)
    others = [arm(f"async:{s}", 4.0, 8.4, 6.0 + 0.1 * s) for s in range(1, 5)]
    words = said(*close, *others)[0]
    assert words.startswith(
        "sync and async: no difference can be told in time to 85.00 % (ratio 1.3, 95 % CI 1.06–1.6, but p = "
    )
    assert words.endswith(" after Holm's correction)")


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((0.5, 0.5, 0.5), "sync reached 85.00 % in all 3 runs, async reached 85.00 % in none of 3 runs"),
        ((0.85, 0.5, 0.5), "sync reached 85.00 % in all 3 runs, async reached 85.00 % in 1 of 3 runs"),
    ],
)
def test_a_target_that_was_not_reached_is_counted_not_timed(ends: tuple[float, ...], words: str) -> None:
    some = arm_in("async", *(run_of(end, seed=seed) for seed, end in enumerate(ends)))
    assert said(SYNC, some)[0] == words


def test_runs_without_a_metric_are_counted() -> None:
    arms = arm_of("sgd", "sync", {0.1: (0.5, 0.5)}), arm_of("sgd", "async", {0.1: (0.9, None)})
    assert (
        said(*arms, target=None)[0]
        == "sync ended with a test accuracy in both runs, async ended with a test accuracy in 1 of 2 runs"
    )


def test_a_statement_names_the_leader_and_how_far_the_others_are() -> None:
    first, samples, metric, speed = stated(SYNC, ASYNC, arm("sync+1", 11.0, 9.0, 12.5))
    assert first == (
        "async reaches 85.00 % first: 1.8× sooner than sync (95 % CI 1.77–1.83×); "
        "no difference can be told from sync+1 (ratio 1.02, 95 % CI 0.70–1.5)."
    )
    assert samples == "all arms are equal in samples to 85.00 %."
    assert metric == "all arms are equal in test accuracy."
    assert speed.startswith("async makes the most samples/s: 1.8× those of sync (95 % CI 1.77–1.83×); no difference")


def test_who_is_equal_to_the_leader_leads_with_it() -> None:
    twin = arm("async/lag-lr", 10.0, 10.5, 11.2)
    assert stated(SYNC, ASYNC, twin)[0] == (
        "async reaches 85.00 % first, as does async/lag-lr: 1.8× sooner than sync (95 % CI 1.77–1.83×)."
    )


def test_two_arms_that_can_not_be_told_apart_are_said_to_be_so() -> None:
    assert stated(SYNC, CLOSE)[0] == (
        "async seems to reach 85.00 % first: no difference can be told from sync (ratio 1.02, 95 % CI 0.60–1.7)."
    )


def test_with_one_run_each_the_leader_leads_in_that_run_only() -> None:
    assert stated(arm("sync", 20.0), arm("async", 10.0))[0] == (
        "async seems to reach 85.00 % first: one run each, so nothing can be told from sync (ratio 2.0)."
    )


def test_who_never_got_there_is_counted_behind_the_leader() -> None:
    never = arm("sync", 18.0, 19.0, 20.0, end=0.8)
    assert stated(never, ASYNC)[0] == "async reaches 85.00 % first: sync reached 85.00 % in none of 3 runs."
    assert stated(never, arm("async", 10.0, 10.5, 11.2, end=0.8))[0] == (
        "sync reached 85.00 % in none of 3 runs; async reached 85.00 % in none of 3 runs."
    )


def test_an_interval_that_says_nothing_is_not_said() -> None:
    wild = arm("async", 1.0, 40.0)
    assert "of which 2 seeds give no interval worth the name" in said(arm("sync", 20.0, 20.0), wild)[0]
