"""The global norm: exact sums in any order, and torch's scale."""

import math
import random
from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import given

from psgd.core.clipping import add_exactly, clip_scale, norm_of

NUMBERS = st.lists(st.floats(min_value=0, max_value=1e80), max_size=40)


@given(NUMBERS)
def test_nothing_is_lost_in_a_sum(numbers: list[float]) -> None:
    assert sum(map(Fraction, add_exactly(numbers)), Fraction(0)) == sum(map(Fraction, numbers), Fraction(0))


@given(NUMBERS, st.integers(min_value=1, max_value=4), st.randoms(use_true_random=False))
def test_the_norm_does_not_depend_on_who_holds_what(numbers: list[float], holders: int, draw: random.Random) -> None:
    held: list[list[float]] = [[] for _ in range(holders)]
    for number in numbers:
        draw.choice(held).append(number)
    assert norm_of([add_exactly(each) for each in held]) == norm_of([add_exactly(numbers)])


def test_plain_addition_in_another_order_would_differ() -> None:
    numbers = [1.0, *[1e-16] * 10]
    assert sum(numbers) == 1.0 != sum(reversed(numbers))
    assert norm_of([add_exactly(numbers[:3]), add_exactly(numbers[3:])]) == math.sqrt(1.0 + 1e-15)


@pytest.mark.parametrize("spoilt", [math.nan, math.inf])
def test_what_is_not_finite_is_not_lost_either(spoilt: float) -> None:
    assert not math.isfinite(sum(add_exactly([1.0, spoilt, 2.0])))
    assert math.isnan(norm_of([(1.0,), add_exactly([spoilt])]))


@pytest.mark.parametrize("absurd", [(-2.0,), (1e308, 1e308), (math.inf, -math.inf), (math.nan,)])
def test_what_is_no_sum_of_squares_has_no_norm(absurd: tuple[float, ...]) -> None:
    assert math.isnan(norm_of([(1.0,), absurd]))


def test_nothing_has_no_norm() -> None:
    assert add_exactly([]) == add_exactly([0.0]) == ()
    assert norm_of([(), ()]) == 0.0


def test_a_gradient_within_the_limit_is_left_alone() -> None:
    assert clip_scale(norm=0.0, limit=1.0) == clip_scale(norm=0.5, limit=1.0) == 1.0
    assert clip_scale(norm=8.0, limit=2.0) == 2.0 / (8.0 + 1e-6)
