"""The log's record of what a slot has finished, the same for every kind of loop."""

import time

from psgd.core.ids import LEAD, Slot
from psgd.core.slot import Finish
from psgd.runlog import Iteration


class Chronicle:
    """Makes the records of one slot.

    Args:
        worker: that runs the slot.
    """

    def __init__(self, worker: int, slot: Slot) -> None:
        self._worker = worker
        self._slot = slot
        self._finished_at = time.perf_counter()

    def iteration(
        self,
        finish: Finish,
        loss: float | None,
        samples: int,
        compute_s: float,
        inner_lr: tuple[float, ...] = (),
    ) -> Iteration:
        """The record of an iteration that has its final answer now; ``time_s`` is on ``time.perf_counter``.

        Args:
            loss: mean over the batch, if anybody knows it.
            samples: how many the batch had.
            compute_s: seconds of forward and backward.
            inner_lr: of local steps.
        """
        now = time.perf_counter()
        elapsed, self._finished_at = now - self._finished_at, now
        receipt = finish.receipts[LEAD]
        return Iteration(
            time_s=now,
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
            wait_s=max(elapsed - compute_s, 0.0),
            clip_scale=receipt.clip_scale,
            inner_lr=inner_lr,
        )
