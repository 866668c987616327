"""A shard's way to the other shards."""

import logging
import threading
from collections import deque
from collections.abc import Mapping

from psgd.core.messages import PeerMessage
from psgd.errors import InternalError
from psgd.transport import wire
from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.key import JobKey
from psgd.transport.rpc.stub import CallError, Stub

_log = logging.getLogger(__name__)

_CAPACITY = 1024
_TOGETHER = 64
_DEADLINE_S = 5.0


class RpcPeerLink:
    """A shard's way to others, see `psgd.transport.base.PeerLink`.

    Messages to one shard arrive in order, if they arrive; while it can not keep up, new ones are dropped.

    Args:
        addresses: the servers of the other shards, by their number.
        key: the job's.
    """

    def __init__(self, addresses: Mapping[int, str], *, key: JobKey) -> None:
        self._outboxes = {shard: _Outbox(shard, Stub(address, key)) for shard, address in addresses.items()}

    def tell(self, shard: int, message: PeerMessage) -> None:
        """Send without waiting.

        Raises:
            InternalError: if there is no such shard, or a number of the message can not be sent.
        """
        outbox = self._outboxes.get(shard)
        if outbox is None:
            raise InternalError(f"shard {shard} is none of this shard's peers: {sorted(self._outboxes)}")
        outbox.put(wire.peer_message(message))

    def close(self) -> None:
        """Stop sending; what has not been sent is dropped."""
        for outbox in self._outboxes.values():
            outbox.close()


class _Outbox:
    """What one peer is still to be told, and the thread that tells it."""

    def __init__(self, shard: int, stub: Stub) -> None:
        self._shard = shard
        self._stub = stub
        self._changed = threading.Condition()
        self._waiting: deque[shard_pb2.PeerMessage] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._send_all, name=f"psgd-rpc-peer-{shard}", daemon=True)
        self._thread.start()

    def put(self, message: shard_pb2.PeerMessage) -> None:
        with self._changed:
            if len(self._waiting) < _CAPACITY:
                self._waiting.append(message)
                self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._stub.close()
        self._thread.join()

    def _send_all(self) -> None:
        while messages := self._next():
            try:
                self._stub.tell(messages, _DEADLINE_S)
            except CallError as failure:
                _log.debug("%d messages to shard %d are lost: %s", len(messages), self._shard, failure)

    def _next(self) -> list[shard_pb2.PeerMessage]:
        """What to send together; nothing means that the link was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            return [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
