"""A frozen dataclass as options: flags > environment > YAML > the fields' defaults.

Each field of the dataclass, made with `option`, is one setting: ``batch_size`` is the flag ``--batch-size``, the
variable ``PSGD_BATCH_SIZE`` and the YAML key ``batch_size``. Its type says how text is read; whatever the value
must be beyond that, the dataclass checks itself.
"""

import argparse
import dataclasses
import difflib
import itertools
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml

from psgd.cli.values import Entries, convert, required
from psgd.errors import ConfigurationError

Config = TypeVar("Config")
PREFIX = "PSGD_"
SERVICE = re.compile(rf"{PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT|PORT)(_\w+)?")
"""What Kubernetes sets in every pod for a service whose name begins with psgd; no option's variable looks like it."""


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


def _options(kind: type[Any]) -> list["dataclasses.Field[Any]"]:
    return [field for field in dataclasses.fields(kind) if "help" in field.metadata]


def _is_words(field: "dataclasses.Field[Any]") -> bool:
    return bool(field.metadata.get("words"))


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
