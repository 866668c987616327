"""How corrections for staleness are written: ``lag-lr``, ``dc=0.04``, ``dca=2:0.95``, ``gap=0.999``."""

import re

from psgd.core.corrections import Correction, DelayCompensation, GapAware, LagRate
from psgd.core.local_steps import NUMBER
from psgd.errors import ConfigurationError

GRAMMAR = "lag-lr, dc[=LAMBDA], dca[=LAMBDA0[:M]] or gap[=BETA]"

_NUMBER = rf"[-+]?{NUMBER}"
_CORRECTION = re.compile(rf"(?P<name>lag-lr|dca?|gap)(?:=(?P<first>{_NUMBER})(?::(?P<second>{_NUMBER}))?)?", re.ASCII)


def parse_correction(text: str) -> Correction:
    """A correction from its name and its numbers; those of the papers where none are given.

    Raises:
        ConfigurationError: if it is written in another way, or a number is out of range.

    Example:
        >>> parse_correction("dca=2:0.9")
        DelayCompensation(strength=2.0, adaptive=True, decay=0.9)
    """
    correction = find_correction(text)
    if correction is None:
        raise ConfigurationError(f"correction must be {GRAMMAR}, got {text!r}")
    return correction


def find_correction(text: str) -> Correction | None:
    """The same, or None if it is written in another way.

    Raises:
        ConfigurationError: if a number is out of range.
    """
    match = _CORRECTION.fullmatch(text)
    if match is None:
        return None
    numbers = [float(number) for number in match.group("first", "second") if number is not None]
    match match["name"], numbers:
        case "lag-lr", []:
            return LagRate()
        case "dc", []:
            return DelayCompensation()
        case "dc", [strength]:
            return DelayCompensation(strength)
        case "dca", []:
            return DelayCompensation(adaptive=True)
        case "dca", [strength]:
            return DelayCompensation(strength, adaptive=True)
        case "dca", [strength, decay]:
            return DelayCompensation(strength, adaptive=True, decay=decay)
        case "gap", []:
            return GapAware()
        case "gap", [decay]:
            return GapAware(decay)
        case _:
            return None
