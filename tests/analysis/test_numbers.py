import doctest
from math import inf, nan

import pytest

from psgd.analysis import bands, numbers
from psgd.analysis.numbers import count, duration, interval, rate, share, significant, size, spread
from psgd.analysis.page import table


@pytest.mark.parametrize("module", [numbers, bands, table])
def test_examples_hold(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type] # the stubs want a ModuleType
    assert (found.failed, found.attempted > 0) == (0, True)


def test_what_is_no_number_is_a_dash() -> None:
    assert [significant(nan), duration(inf)] == ["–", "–"]


def test_negative_numbers_have_a_minus() -> None:
    assert [significant(-1.234), duration(-0.5)] == ["−1.23", "−500 ms"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(599.0, "599 s"), (600.0, "10 min 0 s"), (3599.7, "60 min 0 s"), (3600.0, "1 h 0 min"), (86400.0, "1 d 0 h")],
)
def test_long_durations_have_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_tiny_numbers_have_a_power_of_ten() -> None:
    assert significant(1.5e-7) == "1.5e−07"


def test_nothing_has_its_unit_too() -> None:
    assert [count(0), size(0), share(0), rate(0), duration(0)] == ["0", "0 B", "0 %", "0/s", "0 s"]


def test_an_interval_without_length_is_one_value() -> None:
    assert interval(0.5, 0.5, share) == "50 %"


def test_units_that_differ_are_both_told() -> None:
    assert interval(50.0, 754.0, duration) == "50.0 s–12 min 34 s"


def test_a_spread_has_the_unit_of_its_median_once_if_all_have_it() -> None:
    assert spread(45.0, 40.0, 50.0, duration) == "45.0 s (40.0–50.0)"
    assert spread(754.0, 50.0, 800.0, duration) == "12 min 34 s (50.0 s–13 min 20 s)"
    assert spread(1500.0, 500.0, 2500.0, size) == "1.50 kB (500 B–2.50 kB)"
