import doctest

import numpy as np
import pytest

from psgd.analysis import fitting
from psgd.analysis.fitting import fit_all, unaveraged
from psgd.durations import Constant, Exponential, LogNormal, Pareto, parse_duration
from psgd.errors import DataError


def drawn(text: str, count: int = 4000) -> list[float]:
    duration, generator = parse_duration(text), np.random.default_rng(0)
    return [duration.draw(generator) for _ in range(count)]


def test_the_docstrings_examples_run_as_they_stand_there() -> None:
    assert doctest.testmod(fitting).failed == 0


def test_a_lognormal_is_found_with_its_numbers() -> None:
    best = fit_all(drawn("lognormal:0.02:0.3"))[0].duration.terms
    assert len(best) == 1
    assert isinstance(best[0].distribution, LogNormal)
    assert best[0].distribution.median == pytest.approx(0.02, rel=0.03)
    assert best[0].distribution.sigma == pytest.approx(0.3, rel=0.05)


def test_a_shifted_exponential_is_found_with_its_numbers() -> None:
    fit = fit_all(drawn("1+exp:0.5"))[0]
    least, beyond = (term.distribution for term in fit.duration.terms)
    assert isinstance(least, Constant)
    assert isinstance(beyond, Exponential)
    assert least.seconds == pytest.approx(1, abs=0.01)
    assert beyond.mean == pytest.approx(0.5, rel=0.05)
    assert fit.distance < 0.03
    assert fit.measured == 4000


def test_a_pareto_is_found_with_its_numbers() -> None:
    best = fit_all(drawn("pareto:2:3"))[0].duration.terms[0].distribution
    assert isinstance(best, Pareto)
    assert best.least == pytest.approx(2, rel=0.01)
    assert best.alpha == pytest.approx(3, rel=0.05)


def test_what_hardly_varies_is_constant() -> None:
    fits = fit_all([0.5, 0.501, 0.499, 0.5])
    assert [str(fit.duration) for fit in fits] == ["0.5"]


def test_families_come_with_the_best_first_and_keep_the_mean() -> None:
    measured = drawn("exp:3")
    fits = fit_all(measured)
    assert [fit.distance for fit in fits] == sorted(fit.distance for fit in fits)
    assert fits[0].duration.mean == pytest.approx(np.mean(measured), rel=0.05)


def averages(text: str, averaged: int, count: int = 2000) -> list[float]:
    means: list[float] = np.reshape(drawn(text, averaged * count), (count, averaged)).mean(axis=1).tolist()
    return means


@pytest.mark.parametrize("averaged", [4, 16])
@pytest.mark.parametrize("text", ["exp:0.01", "lognormal:0.01:0.5", "lognormal:0.01:1"])
def test_a_family_is_found_by_means_of_several(text: str, averaged: int) -> None:
    best = fit_all(averages(text, averaged), averaged)[0]
    original, generator = parse_duration(text), np.random.default_rng(1)
    found = [best.duration.draw(generator) for _ in range(20_000)]
    assert best.distance < 0.04
    assert best.duration.mean == pytest.approx(original.mean, rel=0.04)
    assert np.std(found) == pytest.approx(np.std(drawn(text, 20_000)), rel=0.1)


def test_means_that_are_as_good_as_constant_may_be_of_durations_that_vary() -> None:
    means = averages("1+exp:0.1", 100)
    assert len(fit_all(means)) == 1
    assert str(fit_all(means, 100)[0].duration) != str(fit_all(means)[0].duration)
    assert fit_all([0.5, 0.5, 0.5], 100)[0].duration == parse_duration("0.5")


@pytest.mark.parametrize("averaged", [4, 16])
def test_what_is_made_of_means_has_their_mean_and_so_many_times_the_variance(averaged: int) -> None:
    means = averages("exp:0.01", averaged)
    spread = unaveraged(means, averaged)
    assert np.mean(spread) == pytest.approx(np.mean(means), rel=1e-9)
    assert np.var(spread) == pytest.approx(averaged * np.var(means), rel=1e-6)
    assert min(spread) >= 0
    assert np.argsort(spread).tolist() == np.argsort(means).tolist()


@pytest.mark.parametrize("means", [[0.25], [0.0, 0.0], [0.5, 0.5, 0.5]])
def test_what_does_not_vary_is_left_alone(means: list[float]) -> None:
    assert unaveraged(means, 8) == means


def test_durations_themselves_are_left_alone() -> None:
    assert unaveraged([1.0, 2.0], 1) == [1.0, 2.0]


def test_few_means_are_spread_as_far_as_powers_reach() -> None:
    spread = unaveraged([1.0, 3.0, 0.0], 16)
    assert sum(spread) == pytest.approx(4.0)
    assert spread[1] == pytest.approx(4.0, rel=1e-6)
    assert spread[2] == 0.0


@pytest.mark.parametrize(
    ("seconds", "family"),
    [([1e-6, *[100.0] * 50], "pareto:1e-06:0.1"), ([1e-12, 1e12] * 10, "lognormal:1:10")],
)
def test_numbers_end_where_the_grammar_ends(seconds: list[float], family: str) -> None:
    assert family in [str(fit.duration) for fit in fit_all(seconds)]


@pytest.mark.parametrize("seconds", [[], [1.0], [1.0, 0.0], [1.0, float("nan")]])
def test_what_can_not_be_fitted_is_refused(seconds: list[float]) -> None:
    with pytest.raises(DataError, match="a fit needs at least two durations > 0"):
        fit_all(seconds)
