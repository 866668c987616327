"""How arms are written: ``sgd:momentum=0.9``, ``async:4``, ``adam=0.001,0.01``."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from psgd.cli.correction_grammar import GRAMMAR as CORRECTIONS
from psgd.cli.correction_grammar import find_correction
from psgd.cli.values import read_scalar
from psgd.core.local_steps import parse_local
from psgd.core.modes import Async, Sync
from psgd.errors import ConfigurationError
from psgd.experiments.arms import OptimizerChoice, Scheme
from psgd.experiments.learning_rates import usual_rates
from psgd.training.names import unknown

GRAMMAR = (
    "sync[+BACKUPS] or async[:STALENESS], then, each behind a slash, local=H[:LR[:MOMENTUM]], and with async "
    f"softsync=K and one of {CORRECTIONS}"
)
MODE = re.compile(r"sync(?:\+(?P<backups>\d+))?|async(?::(?P<staleness>\d+))?", re.ASCII)
SOFTSYNC = re.compile(r"softsync=(?P<gather>\d+)", re.ASCII)


def parse_mode(text: str) -> Scheme:
    """A mode from its name: ``sync``, ``sync+1`` (a backup), ``async`` (no bound), ``async:4`` (staleness).

    What it does otherwise than usual follows in any order, each behind a slash: ``softsync=5`` (gradients that an
    update averages), a correction as `psgd.cli.correction_grammar.parse_correction` reads it, or ``local=8`` (local
    steps, as `psgd.core.local_steps.parse_local` reads them).

    Raises:
        ConfigurationError: if it is written in another way, or a number is out of range.

    Example:
        >>> parse_mode("async:4/softsync=5/lag-lr")
        Scheme(mode=Async(staleness=4, gather=5), correction=LagRate(), local_steps=None)
    """
    name, *suffixes = text.split("/")
    try:
        scheme = _read_name(name)
        for suffix in suffixes:
            scheme = None if scheme is None else _add(scheme, suffix)
    except ConfigurationError as error:
        raise ConfigurationError(f"modes: {text!r}: {error}") from None
    if scheme is None:
        raise ConfigurationError(f"modes must be {GRAMMAR}; got {text!r}")
    return scheme


def _read_name(name: str) -> Scheme | None:
    match = MODE.fullmatch(name)
    if match is None:
        return None
    if name.startswith("sync"):
        return Scheme(Sync(int(match["backups"] or 0)))
    return Scheme(Async(None if match["staleness"] is None else int(match["staleness"])))


def _add(scheme: Scheme, suffix: str) -> Scheme | None:
    """The mode with what a suffix says; None if it is none, or says something again or of another mode."""
    added = [changed for read in _READERS if (changed := read(scheme, suffix)) is not None]
    return added[0] if added else None


def _add_softsync(scheme: Scheme, suffix: str) -> Scheme | None:
    match = SOFTSYNC.fullmatch(suffix)
    if match is None or not isinstance(scheme.mode, Async) or scheme.mode.gather > 1:
        return None
    return replace(scheme, mode=replace(scheme.mode, gather=int(match["gather"])))


def _add_correction(scheme: Scheme, suffix: str) -> Scheme | None:
    correction = find_correction(suffix)
    if correction is None or not isinstance(scheme.mode, Async) or scheme.correction is not None:
        return None
    return replace(scheme, correction=correction)


def _add_local(scheme: Scheme, suffix: str) -> Scheme | None:
    name, _, steps = suffix.partition("=")
    if name != "local" or not steps or scheme.local_steps is not None:
        return None
    return replace(scheme, local_steps=parse_local(steps))


_READERS = (_add_softsync, _add_correction, _add_local)


def parse_optimizer(text: str) -> OptimizerChoice:
    """An optimizer from its name and its arguments, each behind a colon.

    What comes before the first ``key=value`` is the name, so one of your own keeps its colon:
    ``my.pkg:MyOptimizer:beta=0.9``.

    Raises:
        ConfigurationError: if there is no name, or something that is no argument behind one. Whether there is such
            an optimizer is said by `psgd.training.optimizers.resolve_optimizer`.

    Example:
        >>> parse_optimizer("sgd:momentum=0.9")
        OptimizerChoice(name='sgd', args={'momentum': 0.9})
    """
    pieces = text.split(":")
    words = next((number for number, piece in enumerate(pieces) if "=" in piece), len(pieces))
    name, pairs = ":".join(pieces[:words]), [piece.partition("=") for piece in pieces[words:]]
    if not name or not all(key and equals and value for key, equals, value in pairs):
        raise ConfigurationError(f"optimizers must be written NAME or NAME:ARGUMENT=VALUE:..., got {text!r}")
    return OptimizerChoice(name, {key: read_scalar(value) for key, _, value in pairs})


def parse_target(text: str) -> tuple[str | None, float]:
    """The metric that is to be reached, as evaluations name it, if there is one, and its value.

    Args:
        text: the metric may be without its ``test_``.

    Raises:
        ConfigurationError: if it is written in another way.

    Example:
        >>> parse_target("0.95"), parse_target("test_loss=0.1"), parse_target("loss=0.1")
        ((None, 0.95), ('test_loss', 0.1), ('test_loss', 0.1))
    """
    metric, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if bool(metric) != bool(equals) or not math.isfinite(value):
        raise ConfigurationError(f"target must be VALUE or METRIC=VALUE, such as 0.85 or test_loss=0.1, got {text!r}")
    return f"test_{metric.removeprefix('test_')}" if metric else None, value


def parse_rates(texts: Sequence[str], optimizers: Sequence[OptimizerChoice]) -> list[tuple[float, ...]]:
    """The learning rates of each optimizer.

    Args:
        texts: numbers; one with ``NAME=`` before it opens the list of that optimizer, named as it was written or by
            its name alone; those before any such are for all that have no list of their own. An optimizer without any
            gets `usual_rates`.

    Returns:
        One tuple an optimizer, in their order.

    Raises:
        ConfigurationError: if a number is none, or an optimizer is not among them.

    Example:
        >>> parse_rates(["0.1", "adam=0.001", "0.01"], [OptimizerChoice("sgd"), OptimizerChoice("adam")])
        [(0.1,), (0.001, 0.01)]
    """
    given: dict[str, list[float]] = {}
    whose = ""
    for text in texts:
        name, equals, number = text.rpartition("=")
        whose = name.strip() if equals else whose
        given.setdefault(whose, []).append(_rate(text, number))
    known = {name for optimizer in optimizers for name in (optimizer.name, str(optimizer))}
    for name in given:
        if name and name not in known:
            raise unknown("lrs: the optimizer", name, known)
    return [_rates_of(optimizer, given) for optimizer in optimizers]


def _rates_of(optimizer: OptimizerChoice, given: dict[str, list[float]]) -> tuple[float, ...]:
    for name in (str(optimizer), optimizer.name, ""):
        if name in given:
            return tuple(given[name])
    return usual_rates(optimizer)


def _rate(text: str, number: str) -> float:
    try:
        rate = float(number)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigurationError(f"lrs must be numbers > 0, or NAME= and such numbers, got {text!r}")
    return rate
