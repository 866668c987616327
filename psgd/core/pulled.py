"""Which versions of its weights a shard has to remember, as gradients may yet come that were computed from them."""

from psgd.core.ids import Incarnation, Slot, Version
from psgd.core.messages import Pull


class PulledVersions:
    """For each slot, the versions that it may be computing at.

    It is one, unless the network asks twice: then either answer may be the one that the slot took.
    """

    def __init__(self) -> None:
        self._by_slot: dict[Slot, set[Version]] = {}
        self._pulled_since: dict[Slot, Incarnation] = {}

    def gave(self, pull: Pull, version: Version) -> None:
        """A pull was answered: its slot has not gone on from its receipt, nor does an older incarnation compute.

        Args:
            pull: for the iteration that follows the slot's newest push.
        """
        if self._pulled_since.get(pull.slot) != pull.incarnation:
            self._pulled_since[pull.slot] = pull.incarnation
            self._by_slot[pull.slot] = set()
        self._by_slot[pull.slot].add(version)

    def pushed(self, slot: Slot, onward: Version | None) -> None:
        """A push was answered.

        Args:
            onward: the version that the slot may go on from without a pull.
        """
        self._pulled_since.pop(slot, None)
        self._by_slot[slot] = set() if onward is None else {onward}

    def has(self, slot: Slot, version: Version) -> bool:
        """Whether the slot may have computed at this version."""
        return version in self._by_slot.get(slot, ())

    def beside(self, slot: Slot) -> set[Version]:
        """What the other slots may be computing at."""
        return {version for other, versions in self._by_slot.items() if other != slot for version in versions}
