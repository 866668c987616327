"""The account of a slot: where the time of each iteration went, how many bytes moved, and the log's record of it."""

import time
from collections.abc import Callable

from psgd.core.ids import LEAD, Slot
from psgd.core.slot import Finish, Phase
from psgd.runlog import Iteration

_WAITING = (Phase.ASKING, Phase.READY)
"""For the grant; for the worker, which runs another slot."""


class Chronicle:
    """Follows one incarnation of a slot, and makes its records.

    An iteration's time is what has passed since the one before ended, or, for the first, since the slot has introduced
    itself. It is cut in three: computing; waiting for others (for the grant, for the worker's other slots, at the
    barrier); and all else, which is transfer.

    Args:
        worker: that runs the slot.
        clock: seconds, monotonic; the records' ``time_s`` is on it.
    """

    def __init__(self, worker: int, slot: Slot, clock: Callable[[], float] = time.perf_counter) -> None:
        self._worker = worker
        self._slot = slot
        self._clock = clock
        self._phase = Phase.NEW
        self._phase_began = self._began = self._ended = clock()
        self._delivered_at = self._taken_at = self._began
        self._pushing_s = 0.0
        self._wait_s = 0.0
        self._moved_bytes = 0

    # ------------------------------------------------------------------ what happens to the slot

    def delivered(self) -> None:
        """A reply is here; the worker may be at another slot. Any thread may say so: the last one's time counts."""
        self._delivered_at = self._clock()

    def taken(self) -> None:
        """The worker has come to a reply."""
        self._taken_at = self._clock()

    def moved(self, count: int) -> None:
        """So many bytes of weights or of a gradient have moved."""
        self._moved_bytes += count

    def entered(self, phase: Phase) -> None:
        """The slot machine has come to a phase; said before what it sends then is sent."""
        if phase is self._phase:
            return
        now = self._clock()
        spent = now - self._phase_began
        # A phase in which shards are asked ends when the worker takes the last reply: until then it was elsewhere.
        idle = spent if self._phase in _WAITING else self._overlooked_s()
        self._wait_s += idle
        if self._phase is Phase.NEW:
            self._began = now
        if self._phase is Phase.PUSHING:
            self._ended, self._pushing_s = now, spent - idle
        self._phase, self._phase_began = phase, now

    def _overlooked_s(self) -> float:
        """How long the last reply of a phase lay here, until the worker came to it."""
        return self._taken_at - self._delivered_at if self._delivered_at >= self._phase_began else 0.0

    # ------------------------------------------------------------------ the record

    def iteration(
        self,
        finish: Finish,
        loss: float | None,
        samples: int,
        compute_s: float,
        inner_lr: tuple[float, ...] = (),
    ) -> Iteration:
        """The record of the iteration that has ended with the phase before this one.

        Args:
            loss: mean over the batch, if anybody knows it.
            samples: how many the batch had.
            compute_s: seconds of forward and backward.
            inner_lr: of local steps.
        """
        receipt = finish.receipts[LEAD]
        elapsed = self._ended - self._began
        wait_s = self._wait_s + min(receipt.held_s, self._pushing_s)
        record = Iteration(
            time_s=self._ended,
            worker=self._worker,
            slot=self._slot,
            step=finish.step,
            loss=loss,
            samples=samples,
            status=receipt.status,
            lag=receipt.lag,
            version=receipt.version,
            lr=receipt.lr,
            compute_s=compute_s,
            wait_s=wait_s,
            clip_scale=receipt.clip_scale,
            transfer_s=max(elapsed - compute_s - wait_s, 0.0),
            bytes=self._moved_bytes,
            inner_lr=inner_lr,
        )
        self._began, self._wait_s, self._moved_bytes = self._ended, 0.0, 0
        return record
