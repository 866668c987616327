"""The user's words for a correction, and what each does to a learning rate and to memory."""

import math

import pytest

from psgd.core.corrections import Correction, DelayCompensation, GapAware, LagRate
from psgd.errors import ConfigurationError


@pytest.mark.parametrize(("lag", "factor"), [(0, 1.0), (1, 1.0), (2, 0.5), (8, 0.125)])
def test_the_learning_rate_is_divided_by_the_lag(lag: int, factor: float) -> None:
    assert LagRate().lr_factor(lag) == factor
    assert DelayCompensation().lr_factor(lag) == GapAware().lr_factor(lag) == 1.0


def test_the_numbers_are_the_papers() -> None:
    assert DelayCompensation().scale == 0.04
    assert (DelayCompensation(adaptive=True).scale, DelayCompensation(adaptive=True).decay) == (2.0, 0.95)
    assert DelayCompensation(0.5, adaptive=True).scale == 0.5
    assert GapAware().decay == 0.999


@pytest.mark.parametrize(
    ("correction", "name"),
    [
        (LagRate(), "lag-lr"),
        (DelayCompensation(), "dc=0.04"),
        (DelayCompensation(1), "dc=1"),
        (DelayCompensation(1e-05), "dc=1e-05"),
        (DelayCompensation(0.123456789), "dc=0.123456789"),
        (DelayCompensation(adaptive=True), "dca=2:0.95"),
        (DelayCompensation(0.5, adaptive=True, decay=0.0), "dca=0.5:0"),
        (GapAware(), "gap=0.999"),
    ],
)
def test_a_correction_is_called_as_it_is_written(correction: Correction, name: str) -> None:
    assert str(correction) == name


@pytest.mark.parametrize(
    ("correction", "copies"),
    [
        (LagRate(), 0),
        (DelayCompensation(0.0), 0),
        (DelayCompensation(), 4),
        (DelayCompensation(adaptive=True), 5),
        (GapAware(), 6),
    ],
)
def test_a_correction_knows_how_many_copies_of_the_weights_it_takes(correction: Correction, copies: int) -> None:
    assert correction.copies(slots=4) == copies


@pytest.mark.parametrize("strength", [-0.1, math.nan, math.inf])
def test_a_strength_that_is_none_is_refused(strength: float) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DelayCompensation(strength)
    assert str(caught.value) == f"delay compensation strength must be a finite number >= 0, got {strength}"


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_a_decay_that_is_no_share_of_the_past_is_refused(decay: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"^delay compensation decay must be in \[0, 1\), got {decay}$"):
        DelayCompensation(decay=decay)
    with pytest.raises(ConfigurationError, match=rf"^gap-aware decay must be in \[0, 1\), got {decay}$"):
        GapAware(decay)
