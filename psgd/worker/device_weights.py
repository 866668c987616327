"""Where a replica's weights lie: where pulls land, or copied to a GPU before each iteration."""

from typing import Protocol

import torch

from psgd.core.layout import Layout
from psgd.worker.copy_stream import CopyStream, Mark, ModelStream


class ReplicaWeights(Protocol):
    """The flat space that a model's parameters are views of."""

    memory: torch.Tensor
    """(layout.bytes,) uint8, on the model's device."""

    def renew(self) -> None:
        """What was pulled is what the model computes with from here on."""

    def settle(self) -> None:
        """The next pull may land, once this has returned."""


class WeightsInPlace:
    """The memory where pulls land is what the model computes with.

    Args:
        memory: (layout.bytes,) uint8, on the host.
    """

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory

    def renew(self) -> None:
        """They are there."""

    def settle(self) -> None:
        """Nothing is under way."""


class WeightsOnDevice:
    """A copy on the device, made in one piece; what is frozen is copied once.

    Args:
        host: (layout.bytes,) uint8, where pulls land; pinned if it can be.
        device: where the model computes.
        stream: that of the model.
    """

    def __init__(self, host: torch.Tensor, layout: Layout, device: torch.device, stream: CopyStream) -> None:
        self.memory = torch.zeros_like(host, device=device)
        self._host = host
        self._pushed_bytes = layout.pushed_bytes
        self._stream = stream
        self._newest: Mark | None = None

    def renew(self) -> None:
        """Begin to copy; the model's next kernel comes after it."""
        size = self._host.numel() if self._newest is None else self._pushed_bytes
        self._newest = self._stream.copy(self._host[:size], self.memory[:size])

    def settle(self) -> None:
        """Wait for the copy; long done, unless nothing was computed from it."""
        if self._newest is not None:
            self._newest.synchronize()


def weights_on(device: torch.device, memory: torch.Tensor, layout: Layout) -> ReplicaWeights:
    """The weights for a model on this device.

    Args:
        memory: (layout.bytes,) uint8, on the host, where pulls land.
    """
    if device.type == "cpu":
        return WeightsInPlace(memory)
    return WeightsOnDevice(memory, layout, device, ModelStream(device))
