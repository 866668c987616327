"""What a slot pushes from a GPU: gradients are copied to the host while backward goes on."""

from dataclasses import dataclass
from itertools import takewhile

import torch
from torch.nn.utils import get_total_norm

from psgd.core.layout import Layout
from psgd.worker.copy_stream import CopyStream, Mark
from psgd.worker.gradient import SlotGradient


@dataclass(frozen=True, slots=True)
class _Copy:
    """The newest copy of a value.

    Args:
        version: of the value when the copy began.
    """

    value: torch.Tensor
    version: int
    done: Mark


class DeviceGradient(SlotGradient):
    """One slot's gradient on a device, and its copy on the host.

    ``.grad`` stays on the device. Nothing waits for a copy but `is_finite`, which comes last.

    Args:
        memory: (layout.pushed_bytes,) uint8, zeroed, on the host; pinned if it can be.
        stream: beside that of the model.
    """

    gathers = False

    def __init__(self, memory: torch.Tensor, layout: Layout, stream: CopyStream) -> None:
        super().__init__(memory, layout)
        self._stream = stream
        self._copies: dict[str, _Copy] = {}
        self._counts = dict.fromkeys(self._targets, 0)
        self._on_their_way: dict[str, Mark] = {}  # in the order in which they began
        self._newest: Mark | None = None

    def begin(self) -> None:
        """What was copied before is not meant to be final."""
        self._on_their_way.clear()

    def keep(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Begin to copy the value, unless this very one was copied since it last changed.

        Returns:
            The value itself.
        """
        last = self._copies.get(name)
        if last is not None and last.value is value and last.version == value._version:
            return value
        mark = self._newest = self._stream.copy(value, self._targets[name])
        self._copies[name] = _Copy(value, value._version, mark)
        self._counts[name] += 1
        self._on_their_way.pop(name, None)
        self._on_their_way[name] = mark
        return value

    def arrived(self, name: str) -> list[str]:
        """Those that have come to the host since the last call."""
        there = list(takewhile(lambda name: self._on_their_way[name].query(), self._on_their_way))
        for each in there:
            del self._on_their_way[each]
        return there

    def version(self, name: str) -> int:
        """Changes with every copy, and when there is no gradient any more."""
        return self._counts[name]

    def zero(self, name: str) -> None:
        """There is no gradient."""
        given_up = self._copies.pop(name, None)
        if given_up is not None:
            given_up.done.synchronize()  # it would write over the zeros
        self._on_their_way.pop(name, None)
        self._counts[name] += 1
        self._targets[name].zero_()

    def is_finite(self, pulled: dict[str, torch.Tensor]) -> bool:
        """Wait for the copies; whether no value is NaN or Inf, see `SlotGradient.is_finite`."""
        values = [self._copies[name].value.detach() for name in self._judged if name in self._copies]
        finite = bool(get_total_norm(values).isfinite())  # computed on the device, while the last copies go on
        if self._newest is not None:
            self._newest.synchronize()
        self._copies, self._newest = {}, None
        self._on_their_way.clear()
        # The norm of large values may be infinite, too.
        return finite or not any(self._is_spoilt(name, pulled) for name in self._judged)
