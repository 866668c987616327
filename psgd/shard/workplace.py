"""Where a shard's weights are updated: in the memory that planes serve, or on a device that gets copies of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch

from psgd.config import ShardDevice
from psgd.core.layout import Span
from psgd.core.spans import without
from psgd.errors import ResourceError
from psgd.shard.mean import Average, average_at_once, average_in_chunks


class Workplace(Protocol):
    """A shard's weights, and the gradients that they are updated with."""

    memory: torch.Tensor
    """As the planes' memory: the weights that are updated."""

    average: Average
    """Takes the mean of gradients that are here."""

    def load(self) -> None:
        """The planes' memory has new weights, which this is to start from."""

    def bring(self, gradients: Sequence[torch.Tensor], ready: Span) -> list[torch.Tensor]:
        """The gradients where the weights are, each with at least these bytes; the same ones until `forget`.

        Args:
            gradients: (pushed bytes,) uint8 each, on the host; these bytes stay as they are until the update.
        """

    def forget(self) -> None:
        """What was brought does not count any more."""

    def finish_reading(self) -> None:
        """Whatever reads the gradients that were brought has ended: from then on they may change."""

    def publish(self) -> None:
        """Let the planes see the weights as they are now; from then on gradients may change."""


MakeWorkplace = Callable[[torch.Tensor, int], Workplace]
"""From the planes' memory, and the bytes of its pushed part."""


class InPlace:
    """The planes' memory itself.

    Args:
        host: (part.bytes,) uint8: the pushed part, then the frozen one.
        pushed_bytes: of the pushed part.
    """

    def __init__(self, host: torch.Tensor, pushed_bytes: int) -> None:
        self.memory = host
        self.average: Average = average_in_chunks

    def load(self) -> None:
        """They are here."""

    def bring(self, gradients: Sequence[torch.Tensor], ready: Span) -> list[torch.Tensor]:
        """They are here."""
        return list(gradients)

    def forget(self) -> None:
        """Nothing was brought."""

    def finish_reading(self) -> None:
        """It has."""

    def publish(self) -> None:
        """They are seen."""


@dataclass(frozen=True, slots=True)
class _Brought:
    """A gradient's place on the device.

    Args:
        host: kept, so that nothing else comes to lie at its place there.
        there: its bytes that were copied.
    """

    host: torch.Tensor
    memory: torch.Tensor
    there: list[Span] = field(default_factory=list)


class OnDevice:
    """A copy on a device, beside one of each staged gradient; all goes in the order of the device's default stream.

    A byte of a gradient is copied once, and the weights' pushed part once an update.

    Args:
        host: as of `InPlace`; pinned if it can be, as gradients.
        pushed_bytes: of the pushed part.
        device: that they are copied to.
    """

    def __init__(self, host: torch.Tensor, pushed_bytes: int, device: torch.device) -> None:
        self.memory = torch.zeros_like(host, device=device)
        self.average: Average = average_at_once
        self._host = host
        self._pushed_bytes = pushed_bytes
        self._brought: dict[int, _Brought] = {}  # by the place on the host
        self._spare: list[torch.Tensor] = []

    def load(self) -> None:
        """Copy all of the weights to the device."""
        self.memory.copy_(self._host)

    def bring(self, gradients: Sequence[torch.Tensor], ready: Span) -> list[torch.Tensor]:
        """Begin to copy what is not there yet."""
        return [self._bring(gradient, ready) for gradient in gradients]

    def _bring(self, gradient: torch.Tensor, ready: Span) -> torch.Tensor:
        brought = self._brought.get(gradient.data_ptr())
        if brought is None:
            memory = self._spare.pop() if self._spare else torch.empty_like(gradient, device=self.memory.device)
            brought = self._brought[gradient.data_ptr()] = _Brought(gradient, memory)
        for rest in list(without(ready, brought.there)):
            brought.memory[rest.start : rest.stop].copy_(gradient[rest.start : rest.stop], non_blocking=True)
            brought.there.append(rest)
        return brought.memory

    def forget(self) -> None:
        """Its memory on the device is used again, for whatever comes."""
        self._spare += [brought.memory for brought in self._brought.values()]
        self._brought = {}

    def finish_reading(self) -> None:
        """Wait for the copies, which go on behind this process' back."""
        if self.memory.is_cuda:
            torch.cuda.default_stream(self.memory.device).synchronize()

    def publish(self) -> None:
        """Copy the pushed part back, and wait for it: gradients were read before."""
        self._host[: self._pushed_bytes].copy_(self.memory[: self._pushed_bytes])


def workplace_on(device: ShardDevice) -> MakeWorkplace:
    """What makes a shard's workplace.

    Raises:
        ResourceError: if this process has no such device.
    """
    if device == "cpu":
        return InPlace
    if not torch.cuda.is_available():
        raise ResourceError(
            f"shard_device cuda needs a GPU that torch can use, torch {torch.__version__} finds none in the shard's "
            "process: give it a GPU and a CUDA build of torch, or use shard_device cpu"
        )
    return partial(OnDevice, device=torch.device("cuda", 0))  # Ray shows a shard only its own
