"""One observer for many."""

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from psgd.runlog import Observer, Record


class Broadcast:
    """Passes records on to all observers, in their order, and closes all when the run has ended."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def __call__(self, record: Record) -> None:
        """Pass the record on."""
        for observer in self._observers:
            observer(record)

    def __enter__(self) -> Self:
        """Observe the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every observer, also when one of them fails at it."""
        with ExitStack() as stack:
            for observer in reversed(self._observers):
                stack.callback(observer.close)
