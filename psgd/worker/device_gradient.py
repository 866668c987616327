"""What a slot pushes from a GPU: gradients are copied to the host while backward goes on."""

from dataclasses import dataclass

import torch

from psgd.core.layout import Layout
from psgd.transport.flat import views
from psgd.worker.gradient import SlotGradient


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy on its way to the host.

    Args:
        version: of the value when it was copied.
        total: its sum, on the device.
        done: recorded behind the copy.
    """

    value: torch.Tensor
    version: int
    total: torch.Tensor
    done: torch.cuda.Event


class DeviceGradient(SlotGradient):
    """One slot's gradient on a CUDA device, and its copy on the host.

    ``.grad`` stays on the device. Copies run on a stream of their own, from pinned memory; nothing waits for them but
    `is_finite`, which comes last.

    Args:
        memory: (layout.pushed_bytes,) uint8, zeroed, on the host; pinned if it can be.
        device: where the model computes.
    """

    def __init__(self, memory: torch.Tensor, layout: Layout, device: torch.device) -> None:
        super().__init__(memory, layout)
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._host = views(memory, layout, pushed_only=True)
        self._copies: dict[str, _Copy] = {}
        self._counts = dict.fromkeys(self._host, 0)
        self._on_their_way: list[str] = []

    def keep(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Begin to copy the value, unless this very one was copied since it last changed."""
        last = self._copies.get(name)
        if last is not None and last.value is value and last.version == value._version:
            return value
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream), torch.no_grad():
            self._host[name].copy_(value, non_blocking=True)
            total = value.sum()
        value.record_stream(self._stream)  # or its memory might be used again before it is copied
        self._copies[name] = _Copy(value, value._version, total, self._stream.record_event())
        self._counts[name] += 1
        self._on_their_way.append(name)
        return value

    def arrived(self, name: str) -> list[str]:
        """Those that have come to the host since the last call."""
        there = []
        while self._on_their_way and self._copies[self._on_their_way[0]].done.query():
            there.append(self._on_their_way.pop(0))
        return there

    def version(self, name: str) -> int:
        """Changes with every copy."""
        return self._counts[name]

    def zero(self, name: str) -> None:
        """There is no gradient."""
        self._copies.pop(name, None)
        self._host[name].zero_()

    def is_finite(self, pulled: dict[str, torch.Tensor]) -> bool:
        """Wait for the copies; whether no value is NaN or Inf, see `SlotGradient.is_finite`."""
        totals = [self._copies[name].total for name in self._judged if name in self._copies]
        self._stream.synchronize()
        self._on_their_way.clear()
        self._copies = {}
        if not totals or torch.stack(totals).isfinite().all().item():
            return True
        return not any(self._is_spoilt(name, pulled) for name in self._judged)


def pin(memory: torch.Tensor) -> None:
    """Let the device copy to and from this host memory by itself; where CUDA refuses, copies are slower but right.

    Args:
        memory: (size,) uint8, shared or not; it stays pinned as long as the process lives.
    """
    if memory.numel() and not memory.is_pinned():
        torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), 0)
