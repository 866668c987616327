"""Copies between host and device that nobody waits for, in the order in which they begin."""

from typing import Protocol

import torch


class Mark(Protocol):
    """A place in a stream, behind a copy."""

    def query(self) -> bool:
        """Whether the stream has come here: the copy, and all that began before it, is done."""

    def synchronize(self) -> None:
        """Wait until it has."""


class CopyStream(Protocol):
    """Where copies go one after another, see `ModelStream` and `SideStream`."""

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> Mark:
        """Begin to copy.

        Whatever the model is to compute before this call is in the copy. The host's side of it must neither be read
        nor written until the mark is reached.
        """


class ModelStream:
    """Copies take their turn among what the model computes: what comes after one sees what it brought."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> Mark:
        """Begin to copy, see `CopyStream`."""
        target.copy_(source, non_blocking=True)
        mark: Mark = torch.cuda.current_stream(self._device).record_event()
        return mark


class SideStream:
    """Copies go on beside what the model computes after it has asked for them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> Mark:
        """Begin to copy, see `CopyStream`."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream), torch.no_grad():
            target.copy_(source, non_blocking=True)
        source.record_stream(self._stream)  # or its memory might be used again before it is copied
        mark: Mark = self._stream.record_event()
        return mark
