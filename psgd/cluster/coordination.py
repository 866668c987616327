"""What runs inside the coordinator's actor; without torch, whose import would delay every start by seconds."""

import threading
import time
from dataclasses import dataclass

from psgd.coordinator.coordinator import Coordinator, Decision, Event, Ticked, WorkerBeat
from psgd.core.ids import Incarnation
from psgd.runlog import Timed


@dataclass(frozen=True, slots=True)
class Beat:
    """A worker's sign of life.

    Args:
        incarnation: of the worker's process.
        sent_s: when, on the clock of its process, as the records' ``time_s`` are.
        records: since the last one.
    """

    worker: int
    incarnation: Incarnation
    sent_s: float
    records: tuple[Timed, ...]


class CoordinatorHost:
    """The coordinator, with a mailbox for whoever reports and one for the driver.

    Args:
        coordinator: decides.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._changed = threading.Condition()
        self._decisions: list[Decision] = []
        self._beats: list[Beat] = []
        self._failure: Exception | None = None

    def tell(self, event: Event) -> None:
        """Something has happened."""
        with self._changed:
            self._decide(event)
            self._changed.notify()

    def beat(self, beat: Beat) -> None:
        """A worker is alive, and has records."""
        with self._changed:
            self._decide(WorkerBeat(beat.worker, beat.incarnation))
            self._beats.append(beat)

    def collect(self, timeout_s: float) -> tuple[list[Decision], list[Beat]]:
        """What the driver has to do and to write since the last call; waits for a decision, but not longer.

        Raises:
            Exception: what a rule of the user's, or ours, has raised since; whoever reported did not wait to hear it.
        """
        with self._changed:
            if not self._decisions and self._failure is None:
                self._changed.wait(timeout_s)
            self._decide(Ticked())
            if self._failure is not None:
                raise self._failure
            decisions, self._decisions = self._decisions, []
            beats, self._beats = self._beats, []
            return decisions, beats

    def stopped_early(self) -> str | None:
        """Why the run ended before its budget, or None."""
        return self._coordinator.stopped_early

    def _decide(self, event: Event) -> None:
        try:
            self._decisions += self._coordinator.handle(event, time.monotonic())
        except Exception as error:  # of any kind: the user's own stopping rule is called in there
            self._failure = self._failure or error
            self._changed.notify()
