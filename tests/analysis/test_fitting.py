import numpy as np
import pytest

from psgd.analysis.fitting import fit_all
from psgd.durations import Constant, Exponential, LogNormal, Pareto, parse_duration
from psgd.errors import DataError


def drawn(text: str, count: int = 4000) -> list[float]:
    duration, generator = parse_duration(text), np.random.default_rng(0)
    return [duration.draw(generator) for _ in range(count)]


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
