import math

import pytest
from scipy import stats

from psgd.analysis.comparison import ArmRuns, Target
from psgd.analysis.pairs import Pair, compare_arms
from tests.analysis.runs import arm_in, arm_of, comparison_of, run_of

TARGET = Target("test_accuracy", 0.75)


def pair_in(figure: str, *arms: ArmRuns, target: Target | None = TARGET) -> Pair:
    """The comparison of the first two arms in a figure."""
    return next(
        pair for pair in compare_arms(comparison_of(*arms, target=target)) if pair.contest.figure.name == figure
    )


def arm(mode: str, *seconds: float, end: float = 0.75) -> ArmRuns:
    return arm_in(mode, *(run_of(end, seed=seed, seconds=each, before=0.99) for seed, each in enumerate(seconds)))


def test_every_two_arms_are_compared_in_every_figure_that_decides() -> None:
    figures = comparison_of(arm("sync", 4.0, 5.0), arm("sync+1", 3.0, 4.0), arm("async", 2.0, 3.0), target=TARGET)
    found = [(pair.contest.figure.name, pair.a, pair.b) for pair in compare_arms(figures)]
    two = [("sync", "sync+1"), ("sync", "async"), ("sync+1", "async")]
    names = ("seconds_to_target", "samples_to_target", "test_accuracy", "samples_per_s")
    assert found == [(name, *each) for name in names for each in two]


def test_without_a_target_nobody_reaches_one() -> None:
    pairs = compare_arms(comparison_of(arm("sync", 4.0), arm("async", 2.0)))
    assert [pair.contest.figure.name for pair in pairs] == ["test_accuracy", "samples_per_s"]


def test_times_are_told_by_their_ratio_and_less_is_better() -> None:
    pair = pair_in("seconds_to_target", arm("sync", 4.0, 8.4, 6.0), arm("async", 2.0, 4.0, 3.0))
    assert pair.ratio == pytest.approx((2 * 2.1 * 2) ** (1 / 3))
    assert pair.difference is None
    assert (pair.better, pair.told) == ("async", True)
    assert pair.advantage == pair.estimate


def test_an_advantage_is_turned_so_that_more_is_better() -> None:
    pair = pair_in("seconds_to_target", arm("async", 2.0, 4.0, 3.0), arm("sync", 4.0, 8.4, 6.0))
    assert pair.ratio is not None
    assert pair.advantage is not None
    assert pair.ci is not None
    assert pair.ratio < 1
    assert pair.advantage.mean == pytest.approx(1 / pair.ratio)
    assert pair.advantage.ci == pytest.approx((1 / pair.ci[1], 1 / pair.ci[0]))


def test_metrics_are_told_by_their_difference() -> None:
    arms = arm_of("sgd", "sync", {0.1: (0.90, 0.92, 0.91)}), arm_of("sgd", "async", {0.1: (0.80, 0.83, 0.80)})
    pair = pair_in("test_accuracy", *arms, target=None)
    expected = stats.ttest_rel([0.90, 0.92, 0.91], [0.80, 0.83, 0.80])
    assert pair.ratio is None
    assert pair.difference == pytest.approx(0.1)
    assert pair.p == pytest.approx(expected.pvalue)
    assert (pair.better, pair.told) == ("sync", True)


def test_of_a_metric_that_falls_less_is_better() -> None:
    arms = arm_of("sgd", "sync", {0.1: (0.5, 0.51)}, "rmse"), arm_of("sgd", "async", {0.1: (0.3, 0.32)}, "rmse")
    assert pair_in("test_rmse", *arms, target=None).better == "async"


def test_what_would_be_told_alone_may_be_chance_among_many() -> None:
    close = arm("sync", 4.0, 8.4, 6.0), arm("async", 3.0, 6.2, 5.1)
    alone = pair_in("seconds_to_target", *close)
    among = pair_in("seconds_to_target", *close, *(arm(f"async:{s}", 4.0, 8.4, 6.0 + 0.1 * s) for s in range(1, 5)))
    assert alone.told
    assert alone.p is not None
    assert alone.p < 0.05 < (among.p or 0)
    assert not among.told
    assert not among.may_be_equal


def test_a_target_is_known_to_within_two_evaluations_and_no_better() -> None:
    def seldom(mode: str, *seconds: float) -> ArmRuns:
        return arm_in(mode, *(run_of(0.75, seed=s, seconds=each, before=0.5) for s, each in enumerate(seconds)))

    often = pair_in("seconds_to_target", arm("sync", 4.0, 4.0, 4.0), arm("async", 3.0, 3.0, 3.0))
    rarely = pair_in("seconds_to_target", seldom("sync", 4.0, 4.0, 4.0), seldom("async", 3.0, 3.0, 3.0))
    assert (often.told, rarely.told) == (True, False)
    error = 0.5 / math.sqrt(12) * math.sqrt(2) / math.sqrt(3)  # half of each time is unsure, of three pairs
    reach = float(stats.t.ppf(0.975, 2)) * error
    assert rarely.ci == pytest.approx((4 / 3 * math.exp(-reach), 4 / 3 * math.exp(reach)))


def test_one_run_each_tells_nothing() -> None:
    pair = pair_in("seconds_to_target", arm("sync", 4.0), arm("async", 1.0))
    assert (pair.seeds, pair.ci, pair.p, pair.told) == (1, None, None, False)
    assert pair.ratio == pytest.approx(4.0)
    assert pair.better == "async"


def test_constant_times_are_exact_and_equal_ones_equal() -> None:
    exact = pair_in("samples_per_s", arm("sync", 4.0, 4.0), arm("async", 2.0, 2.0))
    assert (exact.p, exact.told, exact.better) == (0.0, True, "async")
    assert exact.ratio == pytest.approx(0.5)
    equal = pair_in("samples_per_s", arm("sync", 4.0, 4.0), arm("async", 4.0, 4.0))
    assert (equal.equal, equal.told, equal.better) == (True, False, None)


def test_all_against_none_is_told_as_it_is_and_anything_between_is_not() -> None:
    """At even odds, three runs of one arm and none of the other's come out so in one case of 32, two in one of 8."""
    every, never = arm("sync", 4.0, 4.0, 4.0), arm("async", 2.0, 2.0, 2.0, end=0.5)
    none = pair_in("seconds_to_target", every, never)
    assert (none.having, none.estimate) == ((3, 0), None)
    assert none.p == pytest.approx(1 / 32)
    assert (none.told, none.better, none.worse("async"), none.worse("sync")) == (True, "sync", True, False)
    among = pair_in("seconds_to_target", every, never, arm("sync+1", 4.0, 4.0, 4.0))
    assert not among.told
    assert among.p == pytest.approx(3 / 32)
    twice = pair_in("seconds_to_target", arm("sync", 4.0, 4.0), arm("async", 2.0, 2.0, end=0.5))
    assert (twice.told, twice.better) == (False, "sync")
    assert twice.p == pytest.approx(1 / 8)
    some = arm_in("async", run_of(0.75, seconds=1.0), run_of(0.5, seed=1), run_of(0.5, seed=2))
    partly = pair_in("seconds_to_target", every, some)
    assert (partly.having, partly.told, partly.better, partly.ratio) == ((3, 1), False, None, None)
    once = pair_in("seconds_to_target", arm("sync", 4.0), arm("async", 2.0, end=0.5))
    assert (once.told, once.better) == (False, "sync")


def test_a_run_that_diverged_has_no_metric_to_compare() -> None:
    arms = arm_of("sgd", "sync", {0.1: (0.5, 0.5)}), arm_of("sgd", "async", {0.1: (0.9, None)})
    pair = pair_in("test_accuracy", *arms, target=None)
    assert (pair.having, pair.told, pair.difference) == ((2, 1), False, None)


def test_a_run_that_failed_takes_its_seed_out() -> None:
    left = arm_in("sync", run_of(0.75, seconds=4.0), None, run_of(0.75, seed=2, seconds=6.0))
    pair = pair_in("seconds_to_target", left, arm("async", 2.0, 100.0, 3.0))
    assert pair.seeds == 2
    assert pair.ratio == pytest.approx(2.0)
    apart = pair_in("seconds_to_target", arm_in("sync", run_of(0.75), None), arm_in("async", None, run_of(0.75)))
    assert (apart.seeds, apart.told, apart.better) == (0, False, None)


def test_a_figure_of_zero_has_no_ratio() -> None:
    stopped = run_of(0.75, figures={"train_loss": 0.5, "samples_per_s": 0.0})
    pair = pair_in("samples_per_s", arm_in("sync", stopped), arm_in("async", run_of(0.75)))
    assert (pair.having, pair.estimate, pair.told) == ((1, 1), None, False)
