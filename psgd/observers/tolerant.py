"""A full disk ends the writing, not the training."""

import logging

from psgd.runlog import Observer, Record

log = logging.getLogger("psgd")


class Tolerant:
    """Passes records on to a writer until it fails once, then says so in a warning and goes on without it.

    Args:
        writer: whatever writes to disk.
    """

    def __init__(self, writer: Observer) -> None:
        self._writer = writer
        self._failed = False

    def __call__(self, record: Record) -> None:
        """Pass the record on."""
        if not self._failed:
            try:
                self._writer(record)
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """Close the writer, which may write what it has buffered."""
        try:
            self._writer.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            log.warning("%s gave up: %s; training goes on unwritten", type(self._writer).__name__, error)
