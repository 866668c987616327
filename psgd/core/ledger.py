"""The ledger: every push counts exactly once, and a repeat gets the first answer.

One push a slot is in flight, so one entry a slot is all there is to remember.
"""

from dataclasses import dataclass

from psgd.core.ids import Slot, Step
from psgd.core.messages import Receipt


@dataclass(frozen=True, slots=True)
class Entry:
    """The newest push of a slot that this shard knows.

    Args:
        receipt: the final answer, or None while the gradient is staged.
    """

    step: Step
    receipt: Receipt | None


class Ledger:
    """The newest push of each slot, and its answer."""

    def __init__(self) -> None:
        self._entries: dict[Slot, Entry] = {}

    def entry(self, slot: Slot) -> Entry | None:
        """The newest push of a slot, or None if there has been none."""
        return self._entries.get(slot)

    def knows(self, slot: Slot, step: Step) -> bool:
        """Whether this push, or a later one of the slot, has been here: then it is a repeat."""
        entry = self._entries.get(slot)
        return entry is not None and step <= entry.step

    def receipt(self, slot: Slot, step: Step) -> Receipt | None:
        """The answer that this very push got; None while it is staged, and for older ones (nobody waits for those)."""
        entry = self._entries.get(slot)
        return entry.receipt if entry is not None and entry.step == step else None

    def finished(self, slot: Slot) -> int:
        """Iterations of the slot that are answered: 1 + the newest answered step."""
        entry = self._entries.get(slot)
        if entry is None:
            return 0
        return entry.step + (0 if entry.receipt is None else 1)

    def stage(self, slot: Slot, step: Step) -> None:
        """A new push is whole, and waits for its answer."""
        self._entries[slot] = Entry(step, None)

    def answer(self, slot: Slot, receipt: Receipt) -> None:
        """The push of ``receipt.step`` has its final answer."""
        self._entries[slot] = Entry(receipt.step, receipt)
