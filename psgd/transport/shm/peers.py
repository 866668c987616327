"""A shard's way to another shard on its own host."""

import logging
import socket

from psgd.core.messages import PeerMessage
from psgd.errors import LostError, PeerError
from psgd.transport import wire
from psgd.transport.generated.psgd.v1 import doorbell_pb2
from psgd.transport.key import JobKey
from psgd.transport.shm.greeting import enter
from psgd.transport.shm.packets import Receiver, close_all, new_socket, send

_log = logging.getLogger(__name__)


class ShmPeer:
    """Tells another shard what the protocol has for it, best effort.

    Args:
        name: of the other shard's doorbell.
        key: the job's.

    Raises:
        LostError: if there is no such doorbell on this host, or it does not let this shard in.
    """

    def __init__(self, name: str, *, key: JobKey) -> None:
        self._socket = new_socket()
        try:
            _, descriptors = enter(self._socket, Receiver(self._socket), name, key)
        except (OSError, PeerError) as error:
            self._socket.close()
            raise LostError(f"unix:@{name} can not be reached: {error}") from error
        close_all(descriptors)

    def tell(self, message: PeerMessage) -> None:
        """Send without waiting; while the other shard can not keep up, messages are dropped.

        Raises:
            InternalError: if a number of the message can not be sent.
        """
        ring = doorbell_pb2.Ring(tell=wire.peer_message(message))
        try:
            send(self._socket, ring, flags=socket.MSG_DONTWAIT)
        except OSError as error:
            _log.debug("a message to another shard is lost: %s", error)

    def close(self) -> None:
        """Stop sending."""
        self._socket.close()
