"""A frozen dataclass as options: flags > environment > YAML > the fields' defaults.

Each field of the dataclass, made with `option`, is one setting: ``batch_size`` is the flag ``--batch-size``, the
variable ``PSGD_BATCH_SIZE`` and the YAML key ``batch_size``. Its type says how text is read; whatever the value
must be beyond that, the dataclass checks itself.
"""

import argparse
import dataclasses
import difflib
import itertools
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml

from psgd.errors import ConfigurationError

Config = TypeVar("Config")
PREFIX = "PSGD_"
COMMA = re.compile(r",(?![^\[(]*[\])])")
"""Commas outside brackets: ``betas=[0.9,0.99],eps=1e-8`` are two arguments."""
SERVICE = re.compile(rf"{PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT|PORT)(_\w+)?")
"""What Kubernetes sets in every pod for a service whose name begins with psgd; no option's variable looks like it."""


class Entries(dict[str, Any]):
    """A mapping that is given one entry an option, as its values may hold commas: ``--space lr=0.1,0.2 --space …``.

    In one text, as in a variable of the environment, entries are separated by semicolons.
    """


class EmptyError(ValueError):
    """A value, or a part of one, says nothing: that is a slip, not a word for the default."""


WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
NOTHING = ("null", "none")
"""What an option that may be left out is told to have the same."""


class OneLineParser(argparse.ArgumentParser):
    """Raises what argparse would print below its usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            ConfigurationError: always; with a hint if an option is misspelt.
        """
        _, unrecognized, words = message.partition("unrecognized arguments: ")
        hint = ""
        if unrecognized:
            known = [flag for action in self._actions for flag in action.option_strings]
            hint = _hint(words.split()[0].partition("=")[0], known)
        raise ConfigurationError(f"{message}{hint}; see {self.prog} --help")


def option(default: Any, group: str, help: str, metavar: str | None = None) -> Any:
    """A field that is an option; what it is about as in `about`."""
    return dataclasses.field(default=default, metadata=about(group, help, metavar))


def words(help: str, metavar: str) -> Any:
    """A field of texts that are given without a flag, behind the command; commas are parts of them."""
    return dataclasses.field(default=(), metadata={**about("Words", help, metavar), "words": True})


def about(group: str, help: str, metavar: str | None = None) -> dict[str, Any]:
    """The metadata that make an option of a field.

    Args:
        group: the heading that it stands under in ``--help``.
        help: one line.
        metavar: what stands for the value in ``--help``.
    """
    return {"group": group, "help": help, "metavar": metavar}


def parse(
    kind: type[Config],
    prog: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    beside: Sequence[type[Any]] = (),
) -> Config:
    """Read a configuration from all its sources.

    Args:
        kind: a dataclass whose fields are made with `option`.
        prog: the command, for messages.
        beside: what else the environment may configure: other commands.

    Raises:
        ConfigurationError: if an option is unknown, or a value is empty, not of its type or refused by the dataclass;
            the message says where a refused value comes from that was not typed.
        SystemExit: after ``--help`` and ``--print_config``.
    """
    parser = _parser(kind, prog)
    mixed = any(_is_words(field) for field in _options(kind))  # words may stand between flags
    given = vars(parser.parse_intermixed_args(argv) if mixed else parser.parse_args(argv))
    _check_variables(environment, (kind, *beside), prog)
    print_config, file = given.pop("print_config", False), _file(given, environment)
    values: dict[str, Any] = {} if file is None else _read_yaml(kind, Path(file))
    sources = dict.fromkeys(values, file)
    hints = typing.get_type_hints(kind)
    for field in _options(kind):
        variable = PREFIX + field.name.upper()
        if variable in environment:
            sources[field.name] = f"{variable} in the environment"
            values[field.name] = convert(f"{variable} in the environment", hints[field.name], environment[variable])
        if field.name in given:
            sources.pop(field.name, None)
            values[field.name] = _typed(field, hints[field.name], given[field.name])
    config = _make(kind, values, sources)
    if print_config:
        print(as_yaml(config), end="")
        parser.exit()
    return config


def _file(given: dict[str, Any], environment: Mapping[str, str]) -> str | None:
    """The YAML file, if there is one."""
    variable = f"{PREFIX}CONFIG"
    if "config" in given:
        return typing.cast(str, convert("--config", str, given.pop("config")))
    return convert(f"{variable} in the environment", str, environment[variable]) if variable in environment else None


def _typed(field: "dataclasses.Field[Any]", hint: Any, value: Any) -> Any:
    """The value of an option of the command line."""
    if not _is_words(field):
        return convert(_flag(field.name), hint, value)
    return tuple(convert(field.metadata["metavar"], str, word) for word in value)


def _make(kind: type[Config], values: Mapping[str, Any], sources: Mapping[str, Any]) -> Config:
    """The configuration.

    Args:
        sources: of values that were not typed.
    """
    try:
        return kind(**values)
    except ConfigurationError as error:
        name = str(error).partition(" ")[0].removesuffix(":")
        if name not in sources:
            raise
        raise ConfigurationError(f"{error}; {name} is from {sources[name]}") from None


def _parser(kind: type[Any], prog: str) -> argparse.ArgumentParser:
    behind = [field for field in _options(kind) if _is_words(field)]
    parser = OneLineParser(
        prog=prog,
        usage=" ".join([prog, "[OPTION ...]", *(f"{each.metadata['metavar']} ..." for each in behind)]),
        epilog=f"Flags win over {PREFIX}<OPTION> variables, those over --config's YAML, that over the defaults. A flag "
        "of several values, with commas or with =, may be given several times: they add up.",
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with options: the names below, with _ for -")
    parser.add_argument("--print_config", "--print-config", action="store_true", help="print the YAML and exit")
    for field in behind:
        about_it = field.metadata
        parser.add_argument(field.name, nargs="*", metavar=about_it["metavar"], help=about_it["help"])
    hints = typing.get_type_hints(kind)
    flags = (field for field in _options(kind) if field not in behind)
    for heading, fields in itertools.groupby(flags, lambda field: field.metadata["group"]):
        group = parser.add_argument_group(heading)
        for field in fields:
            group.add_argument(_flag(field.name), **_argument(field, hints[field.name]))
    return parser


def _argument(field: "dataclasses.Field[Any]", hint: Any) -> dict[str, Any]:
    """What argparse wants to know about an option."""
    text = field.metadata["help"]
    if hint is bool:
        on = " (default: on)" if field.default else ""
        return {"action": argparse.BooleanOptionalAction, "help": f"{text}{on}"}
    if field.default not in (None, (), dataclasses.MISSING):
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        text += f" (default: {default})"
    metavar = field.metadata["metavar"] or _metavar(hint)
    return {
        "action": "append" if _is_many(hint) else "store",
        "metavar": metavar,
        "help": text.replace("%", "%%"),
    }


def _metavar(hint: Any) -> str:
    hint = required(hint)
    if typing.get_origin(hint) is Literal:
        return "|".join(typing.get_args(hint))
    return {int: "N", float: "X"}.get(hint, "NAME")


def _check_variables(environment: Mapping[str, str], kinds: Sequence[type[Any]], prog: str) -> None:
    """Refuse a variable that looks like an option's, and is none's."""
    words = ["CONFIG", *(field.name.upper() for kind in kinds for field in _options(kind))]
    for variable in environment:
        word = variable.removeprefix(PREFIX)
        stray = word != variable and word not in words and not SERVICE.fullmatch(variable)
        if stray and environment[variable]:
            hint = _hint(word.upper(), words, PREFIX)
            raise ConfigurationError(f"{variable} in the environment is no option's{hint}; see {prog} --help")


def _read_yaml(kind: type[Any], path: Path) -> dict[str, Any]:
    """The options of a YAML file, converted."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"config: can not read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"config {path} must be YAML, got: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"config {path} must hold options as 'name: value', got {str(content)[:60]!r}")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in _options(kind)]
    for key in content:
        if key not in names:
            raise ConfigurationError(f"config {path}: there is no option {key!r}{_hint(str(key), names)}")
    return {key: convert(f"{key} in {path}", hints[key], value) for key, value in content.items()}


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


def _options(kind: type[Any]) -> list["dataclasses.Field[Any]"]:
    return [field for field in dataclasses.fields(kind) if "help" in field.metadata]


def _is_words(field: "dataclasses.Field[Any]") -> bool:
    return bool(field.metadata.get("words"))


def required(hint: Any) -> Any:
    """The type without None."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def _is_many(hint: Any) -> bool:
    """Whether it is made of several values, and its flag may be given several times."""
    return hint is Entries or typing.get_origin(required(hint)) in (tuple, dict)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _hint(word: str, known: Sequence[str], prefix: str = "") -> str:
    """What may have been meant; ``prefix`` stands before all of them, so that it does not make them alike."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def as_yaml(config: Any) -> str:
    """The options as a file that ``--config`` reads."""
    return yaml.safe_dump(plain(config), sort_keys=False)


def plain(config: Any) -> dict[str, Any]:
    """The options as YAML's own types."""
    return {field.name: _as_yaml_type(getattr(config, field.name)) for field in _options(type(config))}


def _as_yaml_type(value: Any) -> Any:
    match value:
        case tuple():
            return list(value)
        case Entries():
            return dict(value)
        case _:
            return value
