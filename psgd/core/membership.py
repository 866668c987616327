"""The membership: which worker, in which incarnation, runs each slot; and the fence that keeps old ones out."""

from dataclasses import dataclass, replace

from psgd.core.ids import Generation, Incarnation, Slot


@dataclass(frozen=True, slots=True)
class Membership:
    """Slot → worker → incarnation, in one generation; only the coordinator makes a new one.

    Args:
        workers: the worker that runs each slot, indexed by slot.
        incarnations: of the process that runs each slot, indexed by slot.
    """

    generation: Generation
    workers: tuple[int, ...]
    incarnations: tuple[Incarnation, ...]

    @classmethod
    def first(cls, slots: int, workers: int) -> "Membership":
        """Slots dealt to workers in turn.

        >>> Membership.first(slots=4, workers=2).slots_of(1)
        (1, 3)
        """
        return cls(Generation(0), tuple(slot % workers for slot in range(slots)), (Incarnation(0),) * slots)

    def slots_of(self, worker: int) -> tuple[Slot, ...]:
        """The slots that a worker runs, ascending."""
        return tuple(Slot(slot) for slot, runs in enumerate(self.workers) if runs == worker)

    def incarnation_of(self, worker: int) -> Incarnation:
        """The incarnation in which a worker runs its slots."""
        return self.incarnations[self.slots_of(worker)[0]]

    def replaced(self, worker: int) -> "Membership":
        """The next generation, in which the worker's slots have a new incarnation."""
        incarnations = tuple(
            Incarnation(incarnation + (runs == worker))
            for incarnation, runs in zip(self.incarnations, self.workers, strict=True)
        )
        return replace(self, generation=Generation(self.generation + 1), incarnations=incarnations)


class Fence:
    """Which incarnation of each slot may push: the highest that was announced or introduced itself."""

    def __init__(self, slots: int) -> None:
        self._current = [Incarnation(0)] * slots
        self._generation = -1

    def announce(self, generation: int, incarnations: tuple[Incarnation, ...]) -> None:
        """Take the coordinator's membership, indexed by slot; an older one is ignored."""
        if generation > self._generation:
            self._generation = generation
            for slot, incarnation in enumerate(incarnations):
                self.raise_to(Slot(slot), incarnation)

    def raise_to(self, slot: Slot, incarnation: Incarnation) -> None:
        """A higher incarnation fences off the lower ones; a lower one changes nothing."""
        self._current[slot] = max(self._current[slot], incarnation)

    def refusal(self, slot: Slot, incarnation: Incarnation) -> str | None:
        """Why a new request of this incarnation is refused, or None if it is welcome."""
        if not 0 <= slot < len(self._current):
            return f"slot must be in 0 … {len(self._current) - 1}, got {slot}"
        if incarnation < self._current[slot]:
            return f"incarnation {incarnation} of slot {slot} was replaced by incarnation {self._current[slot]}"
        return None
