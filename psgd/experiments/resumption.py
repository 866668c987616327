"""What a run's folder already has: whether the run is there, complete, and the one that is asked for."""

import json
import shutil
from collections import deque
from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path
from typing import Any

from psgd.errors import ConfigurationError, DataError
from psgd.runlog import FILE_NAME, Footer, Header, Record, decode_line, encode

FIRST = ("world", "options", "until", "max_seconds")
"""Settings that tell how the command was called: if they differ, others follow from them."""
LAST = ("evaluate_every",)
"""Settings that follow from others where nobody says them."""
TYPED = {"until": "budget target", "max_seconds": "budget seconds"}
"""What settings are called where they are typed, if not by their own names."""
MOST_LETTERS = 40
"""Of a value in a message."""


class State(Enum):
    """How far a run is."""

    ABSENT = auto()
    BROKEN_OFF = auto()
    COMPLETE = auto()


def state_of(folder: Path, settings: Mapping[str, Any]) -> State:
    """How far the run in a folder is.

    Args:
        settings: of the run that is asked for, as the log's header is going to say them.

    Raises:
        ConfigurationError: if a run with other settings is there, which nobody should lose unasked, complete or not;
            or a file.
        DataError: if the log is damaged.
    """
    if folder.is_file():
        raise ConfigurationError(f"out must have a folder for each run, got {folder}, a file; choose another folder")
    file = folder / FILE_NAME
    if not file.is_file():
        return State.ABSENT
    try:
        header, last = _ends(file)
    except DataError as error:
        raise DataError(f"{error}; remove {folder} to have the run made again") from error
    if not isinstance(header, Header):
        return State.BROKEN_OFF
    differing = _difference(header.settings, _as_logged(settings))
    if differing is not None:
        raise ConfigurationError(
            f"out must be without runs of other settings, got {folder}: {differing}; choose another folder"
        )
    return State.COMPLETE if isinstance(last, Footer) else State.BROKEN_OFF


def clear(folder: Path) -> None:
    """Remove a run that was broken off.

    Raises:
        OSError: if that is not allowed.
    """
    shutil.rmtree(folder)


def _ends(file: Path) -> tuple[Record | None, Record | None]:
    """The first and the last record; None for one that was not written to its end."""
    with file.open("rb") as lines:
        first = lines.readline()
        number, last = next(iter(deque(enumerate(lines, start=2), maxlen=1)), (1, b""))
    return decode_line(file, 1, first), decode_line(file, number, last)


def _as_logged(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a log makes of settings: tuples become lists, and so on."""
    fields = json.loads(encode(Header(dict(settings), {}, "")))
    found: dict[str, Any] = fields["settings"]
    return found


def _difference(there: Mapping[str, Any], asked: Mapping[str, Any], within: tuple[str, ...] = ()) -> str | None:
    """The setting that tells best how two runs differ, in the words of who asks for one; None if none does."""
    for name in sorted({*there, *asked}, key=_turn):
        old, new, path = there.get(name), asked.get(name), (*within, name)
        if old == new:
            continue
        if path == ("world",) and None in (old, new):
            return f"simulate is {_switch(old)} there, {_switch(new)} here"
        if isinstance(old, dict) or isinstance(new, dict):
            found = _difference(_as_mapping(old), _as_mapping(new), path)
            if found is not None:
                return found
        else:
            return f"{_typed(path)} is {' there, '.join(_shortened(old, new))} here"
    return None


def _turn(name: str) -> tuple[int, str]:
    """When a setting is looked at."""
    return FIRST.index(name) if name in FIRST else len(FIRST) + (name in LAST), name


def _as_mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _switch(world: object) -> str:
    return "off" if world is None else "on"


def _typed(path: tuple[str, ...]) -> str:
    """A setting as the command line names it."""
    match path:
        case ("world", "slots", slot):
            return f"compute_of {slot}"
        case ("options" | "world", *names):
            return ".".join(TYPED.get(name, name) for name in names)
        case _:
            return ".".join(path)


def _shortened(*values: object) -> list[str]:
    """Values on one line, cut off where they can be told apart all the same."""
    words = ["none" if each is None else each if isinstance(each, str) else json.dumps(each) for each in values]
    short = [text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…" for text in words]
    return words if len(set(short)) < len(set(words)) else short
