"""How a party enters: it shows the job's key, and is welcomed or sent away."""

import socket

from psgd.errors import PeerError
from psgd.transport.generated.psgd.v1 import doorbell_pb2
from psgd.transport.key import JobKey
from psgd.transport.shm.packets import Receiver, close_all, path_of, send

GREETED_WITHIN_S = 10.0


def enter(through: socket.socket, receiver: Receiver, name: str, key: JobKey) -> tuple[doorbell_pb2.Welcome, list[int]]:
    """Ring at a doorbell and show the key.

    Args:
        through: not connected yet.
        receiver: of the same socket.

    Returns:
        The welcome, and the descriptors that came with it, which are the caller's.

    Raises:
        PeerError: if this party is not let in.
        OSError: if there is no such doorbell on this host.
    """
    through.settimeout(GREETED_WITHIN_S)
    through.connect(path_of(name))
    send(through, doorbell_pb2.Ring(hello=doorbell_pb2.Hello(token=key.token, job=key.job)))
    received = receiver.receive(doorbell_pb2.Chime)
    through.settimeout(None)
    if received is None:
        raise PeerError("it closed the connection")
    chime, descriptors = received
    if chime.WhichOneof("chime") != "welcome":
        close_all(descriptors)
        raise PeerError(chime.farewell or "it did not say welcome")
    return chime.welcome, descriptors
