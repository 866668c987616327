import math

import numpy as np
import pytest
from scipy import stats

from psgd.analysis.statistics import Estimate, compare, estimate, holm


def test_the_interval_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0])  # error 1/sqrt(3), t(0.975, 2) = 4.302653
    assert found.mean == 2.0
    assert found.ci == pytest.approx((2 - 4.302652729911275 / math.sqrt(3), 2 + 4.302652729911275 / math.sqrt(3)))
    assert found.p == pytest.approx(stats.ttest_1samp([1.0, 2.0, 3.0], 0).pvalue)


def test_pairs_are_compared_by_their_differences() -> None:
    ours, theirs = [0.91, 0.93, 0.95, 0.90], [0.90, 0.91, 0.94, 0.88]
    test = stats.ttest_rel(ours, theirs)
    found = compare(ours, theirs)
    assert found.mean == pytest.approx(0.015)
    assert found.p == pytest.approx(test.pvalue)
    assert found.ci == pytest.approx(tuple(test.confidence_interval()))


def test_times_are_compared_as_ratios() -> None:
    ours, theirs = [2.0, 8.0], [1.0, 2.0]  # twice and four times as long
    logs = stats.ttest_1samp(np.log([2.0, 4.0]), 0)
    found = compare(ours, theirs, "log")
    assert found.mean == pytest.approx(math.sqrt(8))
    assert found.ci == pytest.approx(tuple(np.exp(logs.confidence_interval())))
    assert found.p == pytest.approx(logs.pvalue)


def test_one_value_has_no_interval() -> None:
    assert estimate([5.0]) == Estimate(5.0, None, None)
    one = compare([4.0], [2.0], "log")
    assert (one.ci, one.p) == (None, None)
    assert one.mean == pytest.approx(2.0)


def test_equal_values_are_equal_and_a_constant_ratio_is_exact() -> None:
    assert compare([0.1 + 0.2, 0.3], [0.3, 0.3]) == Estimate(0.0, (0.0, 0.0), 1.0)
    assert compare([3.0, 3.0], [3.0, 3.0], "log") == Estimate(1.0, (1.0, 1.0), 1.0)
    exact = compare([3.0, 6.0, 9.0], [2.0, 4.0, 6.0], "log")
    assert exact.p == 0.0
    assert exact.mean == pytest.approx(1.5)
    assert exact.ci == pytest.approx((1.5, 1.5))


@pytest.mark.parametrize(("seeds", "p"), [(2, 0.5), (3, 0.25), (6, 0.03125)])
def test_metrics_that_differ_by_the_same_with_every_seed_may_do_so_by_chance(seeds: int, p: float) -> None:
    ours = [0.5 + 0.01 * seed for seed in range(seeds)]
    found = compare([value + 0.125 for value in ours], ours)
    assert (found.ci, found.p) == (None, p)
    assert found.mean == pytest.approx(0.125)


def test_holm_corrects_a_family_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []
