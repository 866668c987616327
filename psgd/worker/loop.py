"""The built-in loop: a worker runs its slots in turns until the run has ended."""

import queue
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Generic, Protocol, TypeVar

from psgd.core.modes import Mode
from psgd.core.slot import Chosen, Compute, Computed, Finish, Halt, Phase, SlotEffect, SlotEvent
from psgd.errors import LostError
from psgd.runlog import Iteration
from psgd.worker.compute import Computation
from psgd.worker.record import Chronicle
from psgd.worker.runner import Inbox
from psgd.worker.turns import Runner, following, may_renew

PATIENCE_S = 1.0


class Driven(Runner, Protocol):
    """One slot, as the loop drives it, see `psgd.worker.runner.SlotRunner`."""

    chronicle: Chronicle

    def start(self) -> None:
        """Introduce the slot to the shards."""

    def choice(self) -> Chosen:
        """What to feed the machine when the slot is to run next."""

    def take(self, event: SlotEvent) -> list[SlotEffect]:
        """Feed the machine, send what it sends; the other effects are the loop's."""


AnySlot = TypeVar("AnySlot", bound=Driven)
Make = Callable[[AnySlot, Compute], tuple[Computation, Computed]]
"""Leaves the gradient that is wanted in what the slot pushes."""
Pace = Callable[[int, int, float, Callable[[float], None]], None]
"""(step, slot, seconds that the computation took, what is to be called with the seconds that it takes, when it has)."""


def at_once(step: int, slot: int, seconds: float, resume: Callable[[float], None]) -> None:
    """A computation takes as long as it took."""
    resume(seconds)


class Worker(Generic[AnySlot]):
    """Slots in turns.

    One slot computes at a time, the one that has started the fewest iterations; meanwhile the pushes of the others
    are under way.

    Args:
        number: of the worker, for the record.
        runners: one a slot.
        make: makes gradients.
        observe: told about every finished iteration; ``time_s`` is on the chronicles' clock.
        pace: when a slot goes on behind its computation.
    """

    def __init__(
        self,
        number: int,
        mode: Mode,
        runners: Sequence[AnySlot],
        make: Make[AnySlot],
        inbox: Inbox,
        observe: Callable[[Iteration], None],
        pace: Pace = at_once,
    ) -> None:
        self._number = number
        self._mode = mode
        self._runners = {runner.machine.slot: runner for runner in runners}
        self._make = make
        self._inbox = inbox
        self._observe = observe
        self._pace = pace
        self._computed: dict[int, Computation] = {}

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
        chosen = following(self._runners.values())
        if chosen is None:
            return False
        self._take(chosen, chosen.choice())
        return True

    def _take(self, runner: AnySlot, event: SlotEvent) -> None:
        for effect in runner.take(event):
            self._perform(runner, effect)

    def _perform(self, runner: AnySlot, effect: SlotEffect) -> None:
        slot = runner.machine.slot
        match effect:
            case Compute(step):
                computation, computed = self._make(runner, effect)
                self._pace(step, slot, computation.seconds, partial(self._push, runner, computation, computed))
            case Finish():
                done, chronicle = self._computed.pop(slot), runner.chronicle
                self._observe(chronicle.iteration(effect, done.loss, done.samples, done.seconds, done.inner_lr))
            case Halt(reason):
                raise LostError(f"slot {slot} on worker {self._number} was refused: {reason}")

    def _push(self, runner: AnySlot, computation: Computation, computed: Computed, seconds: float) -> None:
        self._computed[runner.machine.slot] = replace(computation, seconds=seconds)
        renew = may_renew(runner, self._runners.values(), self._mode)
        self._take(runner, replace(computed, renew=renew))
