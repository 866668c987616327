"""What a worker has of the planes: its connections to all shards, and the memory that they carry best."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from psgd.core.ids import Slot
from psgd.core.layout import Layout
from psgd.transport.base import Connection
from psgd.transport.flat import allocate


@dataclass(frozen=True, slots=True, eq=False)
class Attachment:
    """A worker's side of the planes.

    Args:
        connections: indexed by shard.
        weights: (layout.bytes,) uint8, the flat space: pulls land in it.
        gradients: by slot, (layout.pushed_bytes,) uint8, zeroed: pushes are sent from it, and it stays as it is
            while one is under way.
    """

    connections: Sequence[Connection]
    weights: torch.Tensor
    gradients: Mapping[Slot, torch.Tensor]

    def close(self) -> None:
        """Close every connection; the memory stays."""
        for connection in self.connections:
            connection.close()


def attach(connections: Sequence[Connection], layout: Layout, slots: Iterable[Slot]) -> Attachment:
    """An attachment with memory of this process' own, which every plane can carry."""
    gradients = {slot: allocate(layout.pushed_bytes) for slot in slots}
    return Attachment(connections, allocate(layout.bytes), gradients)
