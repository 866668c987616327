"""How the value of an option is read: from text, or from what YAML made of it, by the option's type."""

import json
import math
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from psgd.errors import ConfigurationError

COMMA = re.compile(r",(?![^\[(]*[\])])")
"""Commas outside brackets: ``betas=[0.9,0.99],eps=1e-8`` are two arguments."""
WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
NOTHING = ("null", "none")
"""What an option that may be left out is told to have the same."""


class Entries(dict[str, Any]):
    """A mapping that is given one entry an option, as its values may hold commas: ``--space lr=0.1,0.2 --space …``.

    In one text, as in a variable of the environment, entries are separated by semicolons.
    """


class EmptyError(ValueError):
    """A value, or a part of one, says nothing: that is a slip, not a word for the default."""


def convert(name: str, hint: Any, value: Any) -> Any:
    """A value of the hint's type, from text or from what YAML made of it.

    Raises:
        ConfigurationError: if it can not be read as that, or is empty.
    """
    optional = hint != required(hint)
    if optional and value in (None, *NOTHING, *([word] for word in NOTHING)):
        return None
    hint = required(hint)
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            *others, last = typing.get_args(hint)
            known = f"{', '.join(others)} or {last}" if others else last
            raise ConfigurationError(f"{name} must be {known}, got {value!r}")
        return value
    words, reader = READERS[typing.get_origin(hint) or hint]
    try:
        return reader(value)
    except EmptyError as error:
        raise ConfigurationError(f"{name} must {error}, got {value!r}") from None
    except (ValueError, TypeError):
        raise ConfigurationError(f"{name} must be {words}, got {value!r}") from None


def _read_integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    return int(value)


def _read_number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _read_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() not in WORDS:
        raise ValueError
    return WORDS[str(value).lower()]


def _read_text(value: Any) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise TypeError
    if not str(value).strip():
        raise EmptyError("not be empty")
    return str(value)


def _read_list(value: Any) -> tuple[str, ...]:
    """From ``a,b``, from a list of such, or from both."""
    if isinstance(value, list | tuple):
        return tuple(item for text in value for item in _read_list(text))
    return split_list(_read_text(value))


def split_list(text: str) -> tuple[str, ...]:
    """The items of ``a,b``.

    Raises:
        EmptyError: if there is nothing between two commas, before the first or behind the last.
    """
    items = tuple(item.strip() for item in COMMA.split(text))
    if not all(items):
        raise EmptyError("have no empty item")
    return items


def _read_mapping(value: Any) -> dict[str, Any]:
    """From ``k=v,k=v``, or from a mapping of YAML."""
    if isinstance(value, dict):
        return {str(key): read_scalar(item) for key, item in value.items()}
    pairs = [item.partition("=") for item in _read_list(value)]
    if not all(key and equals for key, equals, _ in pairs):
        raise ValueError
    return {key.strip(): read_scalar(text) for key, _, text in pairs}


def _read_entries(value: Any) -> Entries:
    """From ``k=v; k=v``, from a list of such, or from a mapping of YAML; values stay as they are."""
    if isinstance(value, dict):
        return Entries({str(key): item for key, item in value.items()})
    texts = value if isinstance(value, list) else [value]
    items = [item for text in texts for item in _read_text(text).split(";")]
    if not all(item.strip() for item in items):
        raise EmptyError("have no empty item")
    pairs = [item.partition("=") for item in items]
    entries = Entries({key.strip(): text.strip() for key, _, text in pairs})
    if len(entries) < len(pairs) or not all(key and text for key, text in entries.items()):
        raise ValueError
    return entries


def read_scalar(value: Any) -> Any:
    """What JSON makes of text (numbers, true, null, lists), else the text; YAML 1.1 leaves ``1e-4`` as text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def parse_metric_value(name: str, text: str) -> tuple[str, float]:
    """A metric, as evaluations name it, and the value that it is to reach.

    Args:
        name: of the option.

    Raises:
        ConfigurationError: if it is written in another way.

    Example:
        >>> parse_metric_value("until", "test_accuracy=0.95")
        ('test_accuracy', 0.95)
    """
    metric, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not metric or not math.isfinite(number):
        raise ConfigurationError(f"{name} must be METRIC=VALUE, such as test_accuracy=0.95, got {text!r}")
    return metric, number


READERS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    int: ("an integer", _read_integer),
    float: ("a number", _read_number),
    bool: ("true or false", _read_bool),
    str: ("a text", _read_text),
    tuple: ("a list, separated by commas", _read_list),
    dict: ("a list of key=value, separated by commas", _read_mapping),
    Entries: ("key=value, once for each key", _read_entries),
}


def required(hint: Any) -> Any:
    """The type without None."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint
