"""The run's log on disk."""

from pathlib import Path
from typing import TextIO

from psgd.errors import ConfigurationError
from psgd.runlog import FILE_NAME, Header, Record, encode


class JsonLinesWriter:
    """Writes each record at once, so that a killed run leaves everything but its last line.

    The folder and the file come into being with the first record: a run that is refused leaves nothing behind.

    Args:
        folder: where ``run.jsonl`` goes; made with its parents.
        header: the log's first line.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self._path = folder / FILE_NAME
        self._header = header
        self._file: TextIO | None = None

    def __call__(self, record: Record) -> None:
        """Append the record.

        Raises:
            ConfigurationError: if another run has written a log there in the meantime.
            OSError: if the disk does not take it.
        """
        if self._file is None:
            self._file = self._open()
            self._file.write(encode(self._header) + "\n")
        self._file.write(encode(record) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> TextIO:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._path.open("x", encoding="utf-8", buffering=1)  # line-buffered: a line is written whole
        except FileExistsError:
            raise ConfigurationError(
                f"out must be without a run, got {self._path.parent}: {FILE_NAME} is there"
            ) from None
