"""A shard's payloads: gradients as they arrive, weights as they leave."""

import torch

from psgd.core.ids import Version
from psgd.transport.flat import allocate, as_memory, view_bytes
from psgd.transport.staging import Staging
from psgd.transport.wire_format import WireFormat


class Payloads:
    """Reads and writes what the wire format says; with float32 that is the shard's own memory.

    Args:
        wire: of the shard's part.
        memory: (part.bytes,) uint8: the shard's weights, the pushed part, then the frozen one.
        pushed_bytes: of the pushed part.
        slots: of the job, each of which has one gradient here at most.
    """

    def __init__(self, wire: WireFormat, memory: torch.Tensor, pushed_bytes: int, slots: int) -> None:
        self.sizes = wire.sizes
        self._wire = wire
        self._memory = memory
        self._pushed_bytes = pushed_bytes
        self._gradients = Staging(pushed_bytes, keep=slots)
        self._weights = memory if wire.pull.identity else allocate(wire.sizes.whole)
        self._version: Version | None = None

    def read_push(self, payload: torch.Tensor) -> torch.Tensor:
        """A gradient: (part.pushed.bytes,) uint8, float32 inside.

        Args:
            payload: (sizes.push,) uint8, from a peer.

        Raises:
            PeerError: if the codec writes no such bytes.
        """
        if self._wire.push.identity:
            return payload
        gradient = as_memory(self._gradients.take(self._pushed_bytes))
        self._wire.push.decode(payload, gradient)
        return gradient

    def weights(self, version: Version, *, whole: bool) -> memoryview:
        """The weights for a worker; to be read before the next update, and the same memory until then.

        Args:
            version: of the weights as they are now.
            whole: with the frozen part.
        """
        if not self._wire.pull.identity and version != self._version:
            self._wire.pull.encode(self._memory[: self._pushed_bytes], self._weights[: self.sizes.pull])
            self._weights[self.sizes.pull :] = self._memory[self._pushed_bytes :]
            self._version = version
        return view_bytes(self._weights[: self.sizes.whole if whole else self.sizes.pull])
