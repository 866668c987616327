"""What a worker has of the planes: its connections to all shards, and the memory that they carry best."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from psgd.config import Job
from psgd.core.ids import Shard, Slot
from psgd.transport.base import Connection
from psgd.transport.pinned import allocator
from psgd.transport.wire_format import JobWire

Allocate = Callable[[int], torch.Tensor]
"""Zeroed memory of so many bytes: (size,) uint8."""


def _nothing() -> None:
    """Weights of this process' own are whole again after every pull."""


@dataclass(frozen=True, slots=True, eq=False)
class Attachment:
    """A worker's side of the planes.

    Args:
        connections: indexed by shard.
        wire: how payloads are written.
        weights: (layout.bytes,) uint8, the flat space, which pulls fill.
        received: uint8, where pulls land as ``wire.pulls`` says; the weights themselves if they come as they are.
        sent: by slot, zeroed uint8, where pushes are sent from as ``wire.pushes`` says; it stays as it is while one
            is under way.
        find_written: the first byte of the weights that this process has cut off from the shards' by writing near it,
            or None; notices only what the plane can not undo with the next pull.
        read_in_place: shards whose weights, but the frozen ones, show here without being moved.
    """

    connections: Sequence[Connection]
    wire: JobWire
    weights: torch.Tensor
    received: torch.Tensor
    sent: Mapping[Slot, torch.Tensor]
    find_written: Callable[[], int | None] = _nothing
    read_in_place: frozenset[Shard] = frozenset()

    def close(self) -> None:
        """Close every connection; the memory stays."""
        for connection in self.connections:
            connection.close()


def attach(
    connections: Sequence[Connection],
    job: Job,
    slots: Iterable[Slot],
    *,
    allocate_shared: Allocate | None = None,
    weights: torch.Tensor | None = None,
) -> Attachment:
    """An attachment over these connections.

    Args:
        slots: that the worker runs.
        allocate_shared: gives memory that the connections carry without a copy; None: they know no such.
        weights: (layout.bytes,) uint8; None: to be allocated.

    Raises:
        ResourceError: as ``allocate_shared`` does.
    """
    wire = JobWire(job)
    allocate = allocator(job.training.use_gpu)
    allocate_shared = allocate_shared or allocate
    sent = {slot: allocate_shared(wire.pushes[-1].stop) for slot in slots}
    if wire.pull_is_identity:
        own = allocate_shared(job.layout.bytes) if weights is None else weights
        return Attachment(connections, wire, own, own, sent)
    received = allocate_shared(wire.pulls[-1].stop)
    return Attachment(connections, wire, allocate(job.layout.bytes), received, sent)
