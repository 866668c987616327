"""How long something takes, at random: what slows a slot on purpose, and what the simulator's workers compute with.

One grammar for both: ``exp:50ms``, ``lognormal:1:0.3``, ``1+chi2:0.1+2%exp:5``.
"""

import math
import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from psgd.core.local_steps import NUMBER
from psgd.errors import ConfigurationError

GRAMMAR = (
    "NUMBER, exp:MEAN, lognormal:MEDIAN:SIGMA, pareto:LEAST:ALPHA or chi2:SCALE, in seconds or with ms or us; "
    "several with + between them, one that happens now and then behind its probability: 1+chi2:0.1+2%exp:5"
)


class Distribution(Protocol):
    """Of a duration."""

    @property
    def mean(self) -> float:
        """In seconds; infinite where there is none."""

    def draw(self, generator: np.random.Generator) -> float:
        """One of them, in seconds."""


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same.

    Args:
        seconds: >= 0.
    """

    seconds: float

    @property
    def mean(self) -> float:
        """In seconds."""
        return self.seconds

    def draw(self, generator: np.random.Generator) -> float:
        """The constant; nothing is drawn."""
        return self.seconds


@dataclass(frozen=True, slots=True)
class Exponential:
    """Without a memory: the usual model of transient stragglers.

    Args:
        mean: in seconds.
    """

    mean: float

    def draw(self, generator: np.random.Generator) -> float:
        """One of them, in seconds."""
        return self.mean * generator.standard_exponential()


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Skewed to the right, as compute times usually are.

    Args:
        median: in seconds.
        sigma: the standard deviation of the logarithm.
    """

    median: float
    sigma: float

    @property
    def mean(self) -> float:
        """In seconds: median · exp(σ²/2)."""
        return self.median * math.exp(self.sigma**2 / 2)

    def draw(self, generator: np.random.Generator) -> float:
        """One of them, in seconds."""
        return self.median * math.exp(self.sigma * generator.standard_normal())


@dataclass(frozen=True, slots=True)
class Pareto:
    """With a heavy tail: P(T > t) = (least / t)^α.

    Args:
        least: in seconds.
        alpha: > 0; the mean is infinite up to 1, the variance up to 2.
    """

    least: float
    alpha: float

    @property
    def mean(self) -> float:
        """In seconds; infinite for α <= 1."""
        return self.least * self.alpha / (self.alpha - 1) if self.alpha > 1 else math.inf

    def draw(self, generator: np.random.Generator) -> float:
        """One of them, in seconds."""
        return self.least * (1 + generator.pareto(self.alpha))


@dataclass(frozen=True, slots=True)
class SquaredNormal:
    """scale · z², z standard normal.

    Args:
        scale: in seconds; also the mean.
    """

    scale: float

    @property
    def mean(self) -> float:
        """In seconds."""
        return self.scale

    def draw(self, generator: np.random.Generator) -> float:
        """One of them, in seconds."""
        z = generator.standard_normal()
        return self.scale * z * z


@dataclass(frozen=True, slots=True)
class Measured:
    """One of the durations that were measured, each as likely as the others.

    Args:
        seconds: at least one.
    """

    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """In seconds."""
        return math.fsum(self.seconds) / len(self.seconds)

    def draw(self, generator: np.random.Generator) -> float:
        """One of them, in seconds."""
        return self.seconds[generator.integers(len(self.seconds))]


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a duration.

    Args:
        probability: with which it is there at all.
    """

    distribution: Distribution
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class Duration:
    """A sum of independent parts.

    Args:
        terms: at least one.
        text: as it was written.

    Example:
        >>> duration = parse_duration("1+2%exp:5")
        >>> duration.mean, str(duration)
        (1.1, '1+2%exp:5')
    """

    terms: tuple[Term, ...]
    text: str

    @property
    def mean(self) -> float:
        """In seconds; infinite where there is none."""
        return math.fsum(term.probability * term.distribution.mean for term in self.terms)

    def draw(self, generator: np.random.Generator) -> float:
        """One of them, in seconds."""
        total = 0.0
        for term in self.terms:
            if term.probability >= 1 or generator.random() < term.probability:
                total += term.distribution.draw(generator)
        return total

    def __str__(self) -> str:
        return self.text


NONE = Duration((Term(Constant(0.0)),), "0")
"""It takes no time."""

TIME = re.compile(rf"(?P<number>{NUMBER})(?P<unit>us|ms|s|)")
TERM = re.compile(rf"(?:(?P<percent>{NUMBER})%)?(?P<what>.+)")
MOST_SIGMA, LEAST_ALPHA = 10.0, 0.1
"""Beyond them some durations are more than a float can hold."""
UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


def parse_duration(text: str) -> Duration:
    """A duration from its words, see `GRAMMAR`.

    Raises:
        ConfigurationError: if it is written in another way.

    Example:
        >>> parse_duration("exp:50ms").terms[0].distribution
        Exponential(mean=0.05)
    """
    terms = []
    for part in re.split(r"(?<!e)\+", text.strip()):
        match = TERM.fullmatch(part.strip())
        if match is None:
            raise _malformed(text)
        percent = match["percent"]
        probability = 1.0 if percent is None else float(percent) / 100
        if not 0 < probability <= 1:
            raise ConfigurationError(f"a probability must be in 0 … 100 %, got {percent}% in {text!r}")
        terms.append(Term(_distribution(match["what"], text), probability))
    return Duration(tuple(terms), text.strip())


def constant(seconds: float) -> Duration:
    """Always the same, in seconds."""
    return Duration((Term(Constant(seconds)),), f"{seconds:g}")


def _distribution(what: str, text: str) -> Distribution:
    match what.split(":"):
        case [seconds]:
            return Constant(_seconds(seconds, text, at_least=0.0))
        case ["exp", mean]:
            return Exponential(_seconds(mean, text))
        case ["lognormal", median, sigma]:
            return LogNormal(_seconds(median, text), _plain("sigma", sigma, text, most=MOST_SIGMA))
        case ["pareto", least, alpha]:
            return Pareto(_seconds(least, text), _plain("alpha", alpha, text, least=LEAST_ALPHA))
        case ["chi2", scale]:
            return SquaredNormal(_seconds(scale, text))
        case _:
            raise _malformed(text)


def _seconds(word: str, text: str, at_least: float = 5e-324) -> float:
    match = TIME.fullmatch(word)
    if match is None:
        raise _malformed(text)
    seconds = float(match["number"]) * UNITS[match["unit"]]
    if not at_least <= seconds < math.inf:
        raise ConfigurationError(f"a duration must be finite and > 0, got {word} in {text!r}")
    return seconds


def _plain(name: str, word: str, text: str, least: float = 0.0, most: float = math.inf) -> float:
    if re.fullmatch(NUMBER, word) is None or not 0 < float(word) < math.inf:
        raise _malformed(text)
    if not least <= float(word) <= most:
        bound = f">= {least:g}" if float(word) < least else f"<= {most:g}"
        raise ConfigurationError(f"{name} must be {bound}, or durations have no end, got {word} in {text!r}")
    return float(word)


def _malformed(text: str) -> ConfigurationError:
    return ConfigurationError(f"a duration must be {GRAMMAR}; got {text!r}")
