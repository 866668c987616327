"""The trials that a search has made so far, on disk: what an interrupted one goes on from."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from psgd.errors import DataError
from psgd.tuning.trials import Trial, as_plain, from_plain

FILE_NAME = "trials.jsonl"


class Journal:
    """One line a trial, in the order in which they ended.

    Args:
        folder: of the search.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME

    @property
    def exists(self) -> bool:
        """Whether a search has begun here."""
        return self._path.exists()

    def read(self) -> list[Trial]:
        """The trials; a last line without its end (the writer was killed) is left out.

        Raises:
            DataError: if a line is no trial.
        """
        with self._path.open(encoding="utf-8") as lines:
            return [self._decode(line) for line in lines if line.endswith("\n")]

    def begin(self, kept: Sequence[Trial]) -> None:
        """Start anew with the trials that are kept: either all of them are there, or what was before.

        Raises:
            OSError: if the disk does not take them.
        """
        partial = self._path.with_name(f".{FILE_NAME}.partial")
        partial.write_text("".join(map(_encode, kept)), encoding="utf-8")
        os.replace(partial, self._path)

    def append(self, trial: Trial) -> None:
        """Add a trial, and see it on the disk.

        Raises:
            OSError: if the disk does not take it.
        """
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_encode(trial))
            file.flush()
            os.fsync(file.fileno())

    def _decode(self, line: str) -> Trial:
        try:
            return from_plain(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{self._path}: not a trial of a search: {line[:80]!r} ({error})") from error


def _encode(trial: Trial) -> str:
    return json.dumps(as_plain(trial), allow_nan=False) + "\n"
