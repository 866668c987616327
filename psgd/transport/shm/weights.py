"""A shard's weights as a worker on the same host reads them where they are."""

import mmap
import os

from psgd.errors import PeerError
from psgd.transport.generated.psgd.v1 import doorbell_pb2
from psgd.transport.payload import copy
from psgd.transport.shm.overlay import Overlay
from psgd.transport.shm.segment import address_of, map_sealed


class StandingWeights:
    """The memory of a shard whose weights change only while every slot waits.

    Args:
        descriptor: of the segment, which this owns from here on.
        welcome: says where the weights lie in it.

    Raises:
        PeerError: if the memory is not what the welcome says.
        OSError: if it can not be mapped.
    """

    def __init__(self, descriptor: int, welcome: doorbell_pb2.Welcome) -> None:
        region = welcome.weights
        self._offset = region.offset
        self._pushed_bytes = welcome.pull_bytes
        self._descriptor = descriptor
        self._place = -1
        self._shown = (0, 0)
        size = region.offset + region.size
        if region.size != welcome.total_bytes:
            os.close(descriptor)
            raise PeerError(f"the shard's weights have {welcome.total_bytes} bytes, its segment shows {region.size}")
        self._all = map_sealed(descriptor, size, mmap.PROT_READ)[region.offset :].data

    def lay_over(self, overlay: Overlay, start: int) -> None:
        """Show the pushed part in an overlay, from byte ``start`` on.

        Raises:
            ResourceError: if the kernel refuses.
        """
        stop = start + self._pushed_bytes
        first, last = overlay.lay(self._descriptor, self._offset, start, stop)
        self._place = address_of(overlay.memory.numpy().data[start:stop]) if self._pushed_bytes else -1
        self._shown = (first - start, last - start)

    def are_at(self, view: memoryview) -> bool:
        """Whether the view is the place in the overlay."""
        return view.nbytes == self._pushed_bytes > 0 and address_of(view) == self._place

    def complete(self, pushed: memoryview, frozen: memoryview | None) -> None:
        """Copy what the overlay does not show: the broken pages at both ends, and the frozen part if it is wanted."""
        first, last = self._shown
        copy(pushed[:first], self._all[:first])
        copy(pushed[last:], self._all[last : self._pushed_bytes])
        if frozen is not None:
            copy(frozen, self._all[self._pushed_bytes :])

    def close(self) -> None:
        """Let go of the descriptor; what is mapped stays."""
        os.close(self._descriptor)
