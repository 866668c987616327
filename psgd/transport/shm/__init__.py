"""The plane within a host: tensors in shared memory, requests over a Unix socket."""

from psgd.transport.shm.client import ShmConnection
from psgd.transport.shm.overlay import Overlay
from psgd.transport.shm.peers import ShmPeer
from psgd.transport.shm.segment import Segment, SegmentPool
from psgd.transport.shm.server import ShmServer

__all__ = ["Overlay", "Segment", "SegmentPool", "ShmConnection", "ShmPeer", "ShmServer"]
