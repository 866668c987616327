"""What a run's folder already has: whether the run is there, complete, and the one that is asked for."""

import json
import shutil
from collections import deque
from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path
from typing import Any

from psgd.errors import ConfigurationError
from psgd.runlog import FILE_NAME, Footer, Header, Record, decode, encode


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
        ConfigurationError: if a complete run with other settings is there, which nobody should lose unasked.
        DataError: if the log is damaged.
    """
    file = folder / FILE_NAME
    if not file.is_file():
        return State.ABSENT
    header, last = _ends(file)
    if not (isinstance(header, Header) and isinstance(last, Footer)):
        return State.BROKEN_OFF
    differing = _difference(header.settings, _as_logged(settings))
    if differing is not None:
        raise ConfigurationError(
            f"out must be without runs of other settings, got {folder}: {differing}; choose another folder"
        )
    return State.COMPLETE


def clear(folder: Path) -> None:
    """Remove a run that was broken off.

    Raises:
        OSError: if that is not allowed.
    """
    shutil.rmtree(folder)


def _ends(file: Path) -> tuple[Record | None, Record | None]:
    """The first and the last record; None for one that was not written to its end."""
    with file.open(encoding="utf-8") as lines:
        first = lines.readline()
        last = next(iter(deque(lines, maxlen=1)), "")
    return _decode_whole(first), _decode_whole(last)


def _decode_whole(line: str) -> Record | None:
    return decode(line) if line.endswith("\n") else None


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
