"""Names in words: with their arguments, and of one that nothing has the near ones, then all there are."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from psgd.errors import ConfigurationError


def unknown(what: str, name: str, known: Iterable[str]) -> ConfigurationError:
    """The error for a name that is not known.

    Args:
        what: it was to name, such as ``optimizer``.
        known: all names that exist.

    Example:
        >>> str(unknown("optimizer", "adm", ["sgd", "adam"]))
        "optimizer must be one of adam, sgd, got 'adm'; did you mean adam?"
    """
    names = sorted(known)
    return ConfigurationError(f"{what} must be one of {', '.join(names)}, got {name!r}{near(name, names)}")


def unknown_argument(what: str, name: str, known: Iterable[str]) -> ConfigurationError:
    """The error for an argument that something does not take.

    Args:
        what: does not take it, such as ``optimizer sgd``.
        known: all arguments that it takes.

    Example:
        >>> str(unknown_argument("optimizer sgd", "momentun", ["momentum", "nesterov"]))
        "optimizer sgd has no argument 'momentun'; it takes momentum, nesterov; did you mean momentum?"
    """
    names = list(known)
    takes = ", ".join(names) or "none"
    return ConfigurationError(f"{what} has no argument {name!r}; it takes {takes}{near(name, names)}")


def near(name: str, known: Iterable[str]) -> str:
    """What to add to an error about a name: the known ones that are nearly it, if there are any.

    >>> near("tmax", ["T_max", "eta_min"])
    '; did you mean T_max?'
    """
    words = {word.lower(): word for word in known}
    found = [words[match] for match in difflib.get_close_matches(name.lower(), list(words))]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def with_arguments(name: str, args: Mapping[str, Any]) -> str:
    """A name with its arguments, each behind a colon, as the command line has them.

    Example:
        >>> with_arguments("sgd", {"momentum": 0.9, "nesterov": True})
        'sgd:momentum=0.9:nesterov=true'
    """
    told = (value if isinstance(value, str) else json.dumps(value, separators=(",", ":")) for value in args.values())
    return ":".join([name, *(f"{key}={value}" for key, value in zip(args, told, strict=True))])
