import math

import numpy as np
import pytest

from psgd.durations import (
    NONE,
    Constant,
    Duration,
    Exponential,
    LogNormal,
    Measured,
    Pareto,
    SquaredNormal,
    Term,
    constant,
    parse_duration,
)
from psgd.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("1", (Term(Constant(1.0)),)),
        ("250us", (Term(Constant(0.00025)),)),
        ("1e-3", (Term(Constant(0.001)),)),
        ("2e+04+exp:1e+06us", (Term(Constant(20000.0)), Term(Exponential(1.0)))),
        (".5ms", (Term(Constant(0.0005)),)),
        ("exp:50ms", (Term(Exponential(0.05)),)),
        ("lognormal:2:0.3", (Term(LogNormal(2.0, 0.3)),)),
        ("pareto:1:1.5", (Term(Pareto(1.0, 1.5)),)),
        ("1+chi2:0.1+2%exp:5", (Term(Constant(1.0)), Term(SquaredNormal(0.1)), Term(Exponential(5.0), 0.02))),
        (" 1 + 50%2s ", (Term(Constant(1.0)), Term(Constant(2.0), 0.5))),
    ],
)
def test_a_duration_is_read_from_its_words(text: str, terms: tuple[Term, ...]) -> None:
    duration = parse_duration(text)
    assert duration.terms == terms
    assert str(duration) == text.strip()


@pytest.mark.parametrize(
    "text",
    ["", "exp", "exp:", "exp:-1", "exp:0", "exp:1:2", "gamma:1", "1+", "lognormal:1", "lognormal:1:0", "1h", "nan"],
)
def test_a_malformed_duration_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^a duration must be "):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lognormal:1:40", "sigma must be <= 10, or durations have no end, got 40 in 'lognormal:1:40'"),
        ("pareto:1:0.01", "alpha must be >= 0.1, or durations have no end, got 0.01 in 'pareto:1:0.01'"),
    ],
)
def test_a_duration_that_may_be_endless_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        parse_duration(text)


@pytest.mark.parametrize("seconds", [0.0, 1e-7, 0.25, 20_000.0, 1e6, 1.25e6, 1e300])
def test_a_constant_is_read_as_it_is_written(seconds: float) -> None:
    assert parse_duration(str(constant(seconds))) == constant(seconds)


@pytest.mark.parametrize("text", ["0%1", "101%1"])
def test_a_probability_must_be_one(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^a probability must be in 0 … 100 %, got"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text", ["0.5", "exp:2", "lognormal:1:0.5", "pareto:1:3", "chi2:0.4", "1+chi2:0.1+2%exp:5", "25%4"]
)
def test_the_mean_is_that_of_what_is_drawn(text: str) -> None:
    duration, generator = parse_duration(text), np.random.default_rng(0)
    drawn = [duration.draw(generator) for _ in range(40_000)]
    assert np.mean(drawn) == pytest.approx(duration.mean, rel=0.05)


def test_a_heavy_tail_may_have_no_mean() -> None:
    assert parse_duration("1+pareto:1:1").mean == math.inf


def test_what_was_measured_is_drawn_again() -> None:
    measured = Duration((Term(Measured((1.0, 2.0, 4.0))),), "trace")
    generator = np.random.default_rng(0)
    assert {measured.draw(generator) for _ in range(100)} == {1.0, 2.0, 4.0}
    assert measured.mean == pytest.approx(7 / 3)


def test_the_same_generator_gives_the_same_durations() -> None:
    duration = parse_duration("1+chi2:0.1+2%exp:5")
    first, second = np.random.default_rng(7), np.random.default_rng(7)
    assert [duration.draw(first) for _ in range(50)] == [duration.draw(second) for _ in range(50)]


def test_nothing_takes_no_time() -> None:
    assert NONE.draw(np.random.default_rng(0)) == 0.0
