import pytest

from psgd.bench.times import StepTimes, ratio, spread
from psgd.errors import LostError


def test_durations_are_those_of_the_slowest_worker() -> None:
    times = StepTimes.of([(0.0, 1.0, 2.0, 3.0), (0.0, 1.5, 2.0, 5.0)])
    assert times.durations_ms == (1500.0, 500.0, 3000.0)
    assert times.median_ms == 1500.0


def test_pushes_count_only_while_all_workers_are_at_it() -> None:
    times = StepTimes.of([(0.0, 1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 3.0)])
    assert times.ms_per_push == 2000.0 / 4


def test_workers_that_never_met_say_nothing_about_pushes() -> None:
    times = StepTimes.of([(0.0, 1.0), (2.0, 3.0)])
    with pytest.raises(LostError, match=r"^2 workers were never at work at the same time: measure more steps$"):
        times.ms_per_push  # noqa: B018, it raises


def test_spread_is_the_first_and_the_last_tenth() -> None:
    assert spread([float(value) for value in range(11)]) == (1.0, 9.0)
    assert spread([4.0]) == (4.0, 4.0)


def test_a_ratio_needs_both_sides() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is None
    assert ratio(3.0, None) is None
