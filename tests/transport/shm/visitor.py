"""A party at a doorbell that says what a test wants, made of sockets and protobuf alone."""

import socket
from collections.abc import Sequence

from google.protobuf.message import Message

from psgd.core.messages import Reply, Request
from psgd.transport import wire
from psgd.transport.generated.psgd.v1 import doorbell_pb2
from psgd.transport.key import JobKey
from psgd.transport.shm.packets import Receiver, close_all, new_socket, path_of, send
from psgd.transport.wire import OperationId
from tests.transport.scripted import PATIENCE_S

KEY = JobKey("job-1", "a-secret")


def region(segment: int, offset: int, size: int) -> doorbell_pb2.Region:
    return doorbell_pb2.Region(segment=segment, offset=offset, size=size)


def submit(
    request: Request,
    sequence: int = 0,
    segments: Sequence[tuple[int, int, bool]] = (),
    payload: doorbell_pb2.Region | None = None,
    into: Sequence[doorbell_pb2.Region] = (),
    in_place: bool = False,
) -> doorbell_pb2.Ring:
    """A request.

    Args:
        segments: (id, size, once) of each that is announced.
    """
    message = doorbell_pb2.Submit(
        request=wire.request_message(OperationId(7, sequence), request),
        segments=[doorbell_pb2.Segment(id=number, size=size, once=once) for number, size, once in segments],
        into=into,
        in_place=in_place,
    )
    if payload is not None:
        message.payload.CopyFrom(payload)
    return doorbell_pb2.Ring(submit=message)


class Visitor:
    """A connection to a doorbell.

    Args:
        key: shown at once; None: nothing is said.
    """

    def __init__(self, name: str, key: JobKey | None = KEY) -> None:
        self.socket = new_socket()
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(path_of(name))
        self._receiver = Receiver(self.socket)
        self.welcome: doorbell_pb2.Welcome | None = None
        if key is not None:
            self.say(doorbell_pb2.Ring(hello=doorbell_pb2.Hello(token=key.token, job=key.job)))
            self.welcome = self.hear().welcome

    def say(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        send(self.socket, message, descriptors)

    def say_bytes(self, content: bytes, descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self.socket, [content], list(descriptors))

    def hear(self) -> doorbell_pb2.Chime:
        received = self._receiver.receive(doorbell_pb2.Chime)
        assert received is not None, "the connection was closed"
        close_all(received[1])
        return received[0]

    def reply(self) -> tuple[int, Reply, int]:
        """Of which request, what, and how many bytes."""
        delivered = self.hear().delivered
        return delivered.sequence, wire.reply_of(delivered.reply), delivered.size

    def farewell(self) -> str:
        """Why the shard does not go on; nothing comes behind it."""
        chime = self.hear()
        assert chime.WhichOneof("chime") == "farewell", chime
        assert self.is_over()
        return chime.farewell

    def is_over(self) -> bool:
        try:
            return self._receiver.receive(doorbell_pb2.Chime) is None
        except ConnectionResetError:  # the shard has not read all of what was said
            return True

    def close(self) -> None:
        self.socket.close()
