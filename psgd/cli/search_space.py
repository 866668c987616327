"""The space of ``psgd tune``: from ``--space lr=log:1e-4:1e-1`` to domains, and from values to the options of a run."""

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from psgd.cli.options import plain
from psgd.cli.train_config import TrainConfig
from psgd.cli.values import EmptyError, convert, read_scalar, required, split_list
from psgd.errors import ConfigurationError
from psgd.training.names import unknown
from psgd.tuning.space import Choices, Domain, Range

NOT_SEARCHED = {"groups", "out", "json", "dry_run", "plot", "keep_best"}
"""Options of several parameters at once, and those that say nothing about the training."""

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"(?P<kind>[a-z]+):(?P<low>{NUMBER}):(?P<high>{NUMBER})")
KINDS: Mapping[str, Mapping[str, bool]] = {
    "uniform": {},
    "log": {"log": True},
    "int": {"whole": True},
    "logint": {"log": True, "whole": True},
}
GRAMMAR = "A,B,... or uniform|log|int|logint:LOW:HIGH"


def parse_space(entries: Mapping[str, Any]) -> dict[str, Domain]:
    """The domain of each setting.

    Args:
        entries: an option of ``psgd train``, or a key inside such an option behind a dot, to what it may be: text, or
            what YAML makes of it, a list or a scalar.

    Raises:
        ConfigurationError: if there is no such option, or it can not take such values.

    Example:
        >>> parse_space({"lr": "log:1e-4:1e-1", "optimizer_args.momentum": "0,0.9"})
        {'lr': Range(low=0.0001, high=0.1, log=True, whole=False), 'optimizer_args.momentum': Choices(values=(0, 0.9))}
    """
    domains = {}
    for written, value in entries.items():
        name = _name(written)
        if name in domains:
            raise ConfigurationError(f"space must name each setting once, got {name} twice")
        domains[name] = _parse_domain(name, value)
    return domains


def override(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """The options of one trial.

    Args:
        values: by the names of a space.

    Raises:
        ConfigurationError: if they contradict each other.
    """
    options: dict[str, Any] = {}
    for name, value in values.items():
        option, _, key = name.partition(".")
        options[option] = {**(options.get(option, getattr(config, option)) or {}), key: value} if key else value
    return replace(config, **options)


def _name(written: str) -> str:
    """The setting's name, with the option's as a field is written."""
    option, dot, key = written.partition(".")
    option = option.replace("-", "_")
    hints = _searched()
    if option not in hints:
        raise unknown("space", option, hints)
    keyed = typing.get_origin(required(hints[option])) is dict
    if keyed and not key:
        raise ConfigurationError(f"space must name one key of {option}, as in {option}.KEY={GRAMMAR}")
    if dot and not keyed:
        raise ConfigurationError(f"space: {option} has no keys, got {written!r}")
    return f"{option}{dot}{key}"


def _searched() -> dict[str, Any]:
    """The types of the options that can be searched."""
    hints = typing.get_type_hints(TrainConfig)
    return {name: hints[name] for name in plain(TrainConfig()) if name not in NOT_SEARCHED}


def _parse_domain(name: str, value: Any) -> Domain:
    option, _, key = name.partition(".")
    hint = _searched()[option]
    read: Callable[[Any], Any] = read_scalar if key else partial(convert, f"space: {option}", hint)
    try:
        if isinstance(value, str) and _is_range(value, hint, key):
            return _parse_range(value, hint, key)
        return Choices(tuple(read(item) for item in _items(value, hint)))
    except EmptyError as error:
        raise ConfigurationError(f"space: {name} must {error}, got {value!r}") from None
    except ConfigurationError as error:
        text = str(error)
        raise ConfigurationError(text if text.startswith("space") else f"space: {name}: {text}") from None


def _is_range(text: str, hint: Any, key: str) -> bool:
    """Whether text is, or was meant to be, a range; a model of the user's own may look like one: ``my.pkg:factory``."""
    kind, colon, _ = text.partition(":")
    numeric = bool(key) or required(hint) in (int, float)
    return bool(colon) and (kind in KINDS or (numeric and RANGE.fullmatch(text) is not None))


def _parse_range(text: str, hint: Any, key: str) -> Range:
    match = RANGE.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"a range must be uniform|log|int|logint:LOW:HIGH, got {text!r}")
    if match["kind"] not in KINDS:
        raise unknown("a range", match["kind"], KINDS)
    numbers = Range(float(match["low"]), float(match["high"]), **KINDS[match["kind"]])
    if not key and required(hint) not in (int, float):
        raise ConfigurationError(f"it is no number: list its choices, as A,B,..., got {text!r}")
    if not key and required(hint) is int and not numbers.whole:
        kind = "logint" if numbers.log else "int"
        raise ConfigurationError(f"it takes whole numbers: try {kind}:{match['low']}:{match['high']}, got {text!r}")
    return numbers


def _items(value: Any, hint: Any) -> Sequence[Any]:
    """The choices, still as they are written; a list among them stands in brackets."""
    if isinstance(value, list):
        return value
    if not isinstance(value, str):
        return [value]
    items = split_list(value)
    if typing.get_origin(required(hint)) is not tuple:
        return items
    return [[] if item == "[]" else item.removeprefix("[").removesuffix("]") for item in items]
