"""The built-in loop: a worker runs its slots in turns until the run has ended."""

import queue
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from psgd.config import Job
from psgd.core.ids import Slot
from psgd.core.slot import Compute, Finish, Halt, Phase, SlotEffect, SlotEvent
from psgd.errors import LostError
from psgd.runlog import Iteration
from psgd.worker.compute import Computation
from psgd.worker.record import Chronicle
from psgd.worker.replica import Replica
from psgd.worker.runner import Inbox, SlotRunner

ComputeGradient = Callable[[Compute, Slot, Callable[[], None]], Computation]
"""(what the slot machine wants, slot, before the last backward pass): leaves the gradient in the replica.

Where nothing is final before the end, the last is not called.
"""

PATIENCE_S = 1.0


class Worker:
    """Slots in turns on one replica.

    One slot computes at a time, the one that has started the fewest iterations; meanwhile the pushes of the others
    are under way.

    Args:
        runners: one a slot.
        compute: leaves the gradient of (step, slot) in the replica's tensors.
        observe: told about every finished iteration; ``time_s`` is on this process' ``time.perf_counter``.
        number: of the worker, for the record.
    """

    def __init__(
        self,
        number: int,
        job: Job,
        runners: Sequence[SlotRunner],
        replica: Replica,
        compute: ComputeGradient,
        inbox: Inbox,
        observe: Callable[[Iteration], None],
    ) -> None:
        self._number = number
        mode = job.rules.mode
        self._receipt_renews, self._weights_stand = mode.receipt_renews, mode.weights_stand
        self._overlap = job.training.overlap
        self._runners = {runner.machine.slot: runner for runner in runners}
        self._replica = replica
        self._compute = compute
        self._inbox = inbox
        self._observe = observe
        self._computed: dict[int, Computation] = {}
        self._chronicles = {slot: Chronicle(number, slot) for slot in self._runners}

    @property
    def done(self) -> bool:
        """Whether every slot has come to its end."""
        return all(runner.machine.phase is Phase.ENDED for runner in self._runners.values())

    @property
    def clocks(self) -> dict[int, int]:
        """Finished iterations by slot."""
        return {slot: runner.machine.clock for slot, runner in self._runners.items()}

    def start(self) -> None:
        """Introduce the slots to the shards."""
        for runner in self._runners.values():
            runner.start()

    def run(self) -> None:
        """Run the slots until they have come to their end.

        Raises:
            LostError: if a shard refuses a slot: this worker was replaced, or a shard is gone.
        """
        self.start()
        while not self.done:
            self.advance(timeout_s=PATIENCE_S)

    def advance(self, timeout_s: float) -> bool:
        """Handle one reply, waiting for it at most so long; then let the next slot run if it may.

        Returns:
            Whether anything was there to do.

        Raises:
            LostError: if a shard refuses a slot: this worker was replaced, or a shard is gone.
        """
        try:
            slot, event = self._inbox.get(timeout=timeout_s) if timeout_s > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return self._choose_all()
        self._take(self._runners[slot], event)
        self._choose_all()
        return True

    def _choose_all(self) -> bool:
        """Slots that need no pull have computed when they were chosen: then it is the next one's turn at once."""
        chosen = self._choose()
        while chosen and self._choose():
            pass
        return chosen

    def _choose(self) -> bool:
        going = [runner for runner in self._runners.values() if runner.machine.phase is not Phase.ENDED]
        if any(runner.machine.phase in (Phase.PULLING, Phase.COMPUTING) or runner.renewing for runner in going):
            return False  # the replica is taken
        following = min(going, key=lambda runner: runner.turn, default=None)
        if following is None or following.machine.phase is not Phase.READY:
            return False
        self._take(following, following.choice())
        return True

    def _let_leave(self, runner: SlotRunner) -> None:
        """The last backward pass begins: what it completes is final."""
        if self._overlap:
            runner.begin_push()
            self._replica.aim(runner.outgoing.gradient, runner.outgoing.leave)

    def _may_renew(self, runner: SlotRunner) -> bool:
        """Whether no other slot of this worker has use for the old weights, nor for the time that new ones take."""
        phases = {other.machine.phase for other in self._runners.values() if other is not runner} - {Phase.ENDED}
        at_a_barrier = {Phase.PUSHING} if self._weights_stand else set()
        return self._receipt_renews and phases <= at_a_barrier

    def _take(self, runner: SlotRunner, event: SlotEvent) -> None:
        for effect in runner.take(event):
            self._perform(runner, effect)

    def _perform(self, runner: SlotRunner, effect: SlotEffect) -> None:
        slot = runner.machine.slot
        match effect:
            case Compute():
                self._replica.renew()
                self._replica.aim(runner.outgoing.gradient)
                self._replica.clear_gradients()
                self._computed[slot] = self._compute(effect, slot, partial(self._let_leave, runner))
                computed = self._replica.gather(runner.outgoing.gradient)
                self._take(runner, replace(computed, renew=self._may_renew(runner)))
            case Finish():
                done = self._computed.pop(slot)
                chronicle = self._chronicles[slot]
                self._observe(chronicle.iteration(effect, done.loss, done.samples, done.seconds, done.inner_lr))
            case Halt(reason):
                raise LostError(f"slot {slot} on worker {self._number} was refused: {reason}")
