"""The plane within one process: direct calls."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from psgd.core.messages import PeerMessage, Refused, Reply, Request
from psgd.transport.base import Deliver, Endpoint, PushId, Upload, nobody_waits
from psgd.transport.payload import as_bytes, expected_bytes, land, wrong_size
from psgd.transport.upload import LateUpload


class MemoryConnection:
    """A way to a shard in the same process.

    A request that is submitted while another is being delivered on the same thread takes its turn after it, so that
    an endpoint that answers at once can be driven for any number of steps without growing the stack.

    Args:
        endpoint: the shard.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._under_way: set[_Call] = set()
        self._closed = False

    def submit(
        self,
        request: Request,
        deliver: Deliver,
        payload: memoryview | None = None,
        into: Sequence[memoryview] = (),
    ) -> None:
        """Hand the request to the endpoint; see `psgd.transport.base.Connection`."""
        call = _Call(request, deliver, as_bytes(payload), into)
        with self._lock:
            closed = self._closed
            if not closed:
                self._under_way.add(call)
        _turns.take(partial(deliver, _CLOSED, None) if closed else partial(self._carry, call))

    def begin(self, push: PushId, payload: memoryview) -> Upload:
        """Begin a push; on this plane its bytes are taken at the end."""
        return LateUpload(self, payload)

    def close(self) -> None:
        """Refuse what is under way; no ``into`` is written from here on."""
        with self._lock:
            self._closed = True
            given_up, self._under_way = self._under_way, set()
        for call in given_up:
            call.deliver(_CLOSED, None)

    def _carry(self, call: "_Call") -> None:
        size, expected = call.payload.nbytes, expected_bytes(self._endpoint, type(call.request))
        if size != expected:
            self._arrived(call, Refused(wrong_size(type(call.request), size, expected)), None)
            return
        # The endpoint may keep its payload beyond the reply (a staged gradient whose sender was fenced off or has
        # given up) and write into it; the caller's memory is the caller's again once the reply is there.
        copy = memoryview(bytearray(call.payload)) if size else None
        self._endpoint.submit(call.request, partial(self._arrived, call), copy)

    def _arrived(self, call: "_Call", reply: Reply, payload: memoryview | None) -> None:
        with self._lock:  # while bytes land, so that none does after close()
            if call not in self._under_way:
                return
            self._under_way.remove(call)
            landed = land(reply, payload, call.into)
        call.deliver(*landed)


class MemoryPeerLink:
    """A shard's way to others in the same process.

    Args:
        endpoints: the other shards by their number; may be completed after the link was made.
    """

    def __init__(self, endpoints: Mapping[int, Endpoint]) -> None:
        self._endpoints = endpoints
        self._closed = False

    def tell(self, shard: int, message: PeerMessage) -> None:
        """Hand the message to the shard."""
        if not self._closed:
            _turns.take(partial(self._endpoints[shard].submit, message, nobody_waits))

    def close(self) -> None:
        """Stop sending."""
        self._closed = True


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """A request that waits for its reply."""

    request: Request
    deliver: Deliver
    payload: memoryview
    into: Sequence[memoryview]


class _Turns(threading.local):
    """Calls of one thread, one after another instead of one within the other."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] | None = None

    def take(self, call: Callable[[], None]) -> None:
        if self._waiting is not None:
            self._waiting.append(call)
            return
        self._waiting = deque([call])
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            self._waiting = None


_turns = _Turns()
_CLOSED = Refused("the connection was closed")
