"""What a run's folder already has: whether the run is there, complete, and the one that is asked for."""

import json
import shutil
from collections import deque
from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path
from typing import Any

from psgd.errors import ConfigurationError
from psgd.runlog import FILE_NAME, Footer, Header, Record, decode_line, encode


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
        ConfigurationError: if a run with other settings is there, which nobody should lose unasked, complete or not.
        DataError: if the log is damaged.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        return State.ABSENT
    header, last = _ends(file)
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


def _difference(there: Mapping[str, Any], asked: Mapping[str, Any], within: str = "") -> str | None:
    """The first setting that differs, in words; None if none does."""
    for name in sorted({*there, *asked}):
        old, new = there.get(name), asked.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found = _difference(old, new, f"{within}{name}.")
            if found is not None:
                return found
        elif old != new:
            return f"{within}{name} is {old!r} there, {new!r} here"
    return None
