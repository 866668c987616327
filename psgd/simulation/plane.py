"""The plane of the simulator: the requests and bytes of every other plane, on their way in virtual time."""

from collections.abc import Mapping, Sequence
from functools import partial

from psgd.core.messages import PeerMessage, Pull, Pulled, Push, Receipt, Reply, Request, Snapshot
from psgd.simulation.agenda import Act
from psgd.simulation.network import Network, Node
from psgd.simulation.server import Server
from psgd.transport.base import Deliver, PushId, Sizes, Upload, nobody_waits
from psgd.transport.payload import as_bytes, expected_bytes, land
from psgd.transport.upload import LateUpload


class SimulatedConnection:
    """A worker's way to a shard.

    Args:
        worker: the node that it begins at.
        shard: the node of the server.
        wake: called behind every reply that was delivered.
    """

    def __init__(self, network: Network, worker: Node, shard: Node, server: Server, wake: Act) -> None:
        self._network = network
        self._ends = (worker, shard)
        self._server = server
        self._wake = wake
        self._closed = False

    def submit(
        self,
        request: Request,
        deliver: Deliver,
        payload: memoryview | None = None,
        into: Sequence[memoryview] = (),
    ) -> None:
        """Send the request, see `psgd.transport.base.Connection`."""
        if self._closed:
            return
        # The shard may keep its payload beyond the reply; the worker's memory is the worker's again then.
        copy = None if payload is None else memoryview(bytearray(as_bytes(payload)))
        answered = partial(self._answered, request, deliver, into)
        work = partial(self._server.shard.submit, request, answered, copy)
        arrive = partial(self._server.arrive, work, isinstance(request, Push | Pull))
        self._network.send(*self._ends, expected_bytes(self._server.shard, type(request)), arrive)

    def begin(self, push: PushId, payload: memoryview) -> Upload:
        """Begin a push; its bytes leave at the end."""
        return LateUpload(self, payload)

    def close(self) -> None:
        """The worker is gone: what has left it arrives at a shard, what comes back reaches nobody."""
        self._closed = True

    def _answered(
        self, request: Request, deliver: Deliver, into: Sequence[memoryview], reply: Reply, payload: memoryview | None
    ) -> None:
        copy = None if payload is None else memoryview(bytes(payload))
        size = received_bytes(self._server.shard.sizes, request, reply)
        arrived = partial(self._arrived, deliver, into, reply, copy)
        worker, shard = self._ends
        self._server.leave(partial(self._network.send, shard, worker, size, arrived))

    def _arrived(self, deliver: Deliver, into: Sequence[memoryview], reply: Reply, payload: memoryview | None) -> None:
        if not self._closed:
            deliver(*land(reply, payload, into))
            self._wake()


class SimulatedPeers:
    """A shard's way to the others.

    Args:
        own: the shard's number.
        servers: by number; may be completed after this was made.
        nodes: of all shards, by number.
    """

    def __init__(self, network: Network, own: int, servers: Mapping[int, Server], nodes: Sequence[Node]) -> None:
        self._network = network
        self._own = own
        self._servers = servers
        self._nodes = nodes

    def tell(self, shard: int, message: PeerMessage) -> None:
        """Send the message when the present request is done with."""
        other = self._servers[shard]
        arrive = partial(other.arrive, partial(other.shard.submit, message, nobody_waits))
        ends = self._nodes[self._own], self._nodes[shard]
        self._servers[self._own].leave(partial(self._network.send, *ends, 0, arrive))

    def close(self) -> None:
        """There is nothing to let go of."""


def received_bytes(sizes: Sizes, request: Request, reply: Reply) -> int:
    """The bytes of the tensors that travel with a reply."""
    match reply:
        case Pulled(unchanged=False):
            return sizes.whole if isinstance(request, Pull) and request.whole else sizes.pull
        case Receipt(renewed=True):
            return sizes.pull
        case Snapshot():
            return sizes.total
        case _:
            return 0
