"""Whose turn it is among the slots of a worker: one rule for real workers and simulated ones."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

from psgd.core.modes import Mode
from psgd.core.slot import Phase, SlotMachine


class Runner(Protocol):
    """One slot of a worker."""

    @property
    def machine(self) -> SlotMachine:
        """Where the slot stands."""

    @property
    def renewing(self) -> bool:
        """Whether a push is under way whose receipts bring new weights: nobody may compute at the old ones."""


AnyRunner = TypeVar("AnyRunner", bound=Runner)


def following(runners: Iterable[AnyRunner]) -> AnyRunner | None:
    """The slot that has started the fewest iterations, if it is ready and nobody computes or is about to."""
    going = [runner for runner in runners if runner.machine.phase is not Phase.ENDED]
    if any(runner.machine.phase in (Phase.PULLING, Phase.COMPUTING) or runner.renewing for runner in going):
        return None  # the replica is taken
    chosen = min(going, key=_started, default=None)
    return chosen if chosen is not None and chosen.machine.phase is Phase.READY else None


def may_renew(runner: Runner, runners: Iterable[Runner], mode: Mode) -> bool:
    """Whether no other slot of the worker has use for the old weights, nor for the time that new ones take."""
    phases = {other.machine.phase for other in runners if other is not runner} - {Phase.ENDED}
    at_a_barrier = {Phase.PUSHING} if mode.weights_stand else set()
    return mode.receipt_renews and phases <= at_a_barrier


def _started(runner: Runner) -> tuple[int, int]:
    """Iterations started, then the slot's number."""
    machine = runner.machine
    return (machine.clock + (machine.phase is Phase.PUSHING), machine.slot)
