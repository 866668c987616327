"""What can be done with a step's gradients before they are whole: average the bytes that all slots have."""

from dataclasses import dataclass, field

import torch

from psgd.core.ids import Slot
from psgd.core.layout import Span
from psgd.core.spans import intersection
from psgd.transport.base import PushId


@dataclass(slots=True)
class _Begun:
    """A push of which some bytes are final."""

    push: PushId
    memory: torch.Tensor
    ready: list[Span] = field(default_factory=list)


class Preparation:
    """The pushes of the open step that have begun, and where all slots have come to.

    Args:
        slots: of the job.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._begun: dict[Slot, _Begun] = {}

    def contradicts(self, push: PushId, memory: torch.Tensor) -> bool:
        """Whether the slot has begun another push than this one, or this one in other memory."""
        begun = self._begun.get(push.slot)
        return begun is not None and (begun.push != push or begun.memory.data_ptr() != memory.data_ptr())

    def add(self, push: PushId, memory: torch.Tensor, ready: Span) -> list[Span]:
        """Some bytes are final.

        Args:
            push: the one that its slot has begun, if it has.
            memory: of the whole push.

        Returns:
            Those of these bytes that are final for every slot, in the same step.
        """
        self._begun.setdefault(push.slot, _Begun(push, memory)).ready.append(ready)
        if len(self._begun) < self._slots or len({each.push.step for each in self._begun.values()}) > 1:
            return []
        common = [ready]
        for other in self._begun.values():
            common = intersection(common, other.ready)
        return common

    @property
    def gradients(self) -> list[torch.Tensor]:
        """The memory of all that have begun, in slot order."""
        return [begun.memory for _, begun in sorted(self._begun.items())]

    def drop(self) -> None:
        """The step has closed, or what was final has changed."""
        self._begun.clear()
