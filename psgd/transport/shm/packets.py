"""Packets: one protobuf message each over a Unix socket, with descriptors beside it."""

import array
import os
import socket
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import Message

from psgd.errors import PeerError
from psgd.transport import wire

LARGEST = 2**18
"""Bytes; the kernel itself allows less."""

MOST_DESCRIPTORS = 8

_DESCRIPTORS_SPACE = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)

Parsed = TypeVar("Parsed", bound=Message)


def new_socket() -> socket.socket:
    """A Unix socket that keeps messages apart."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def path_of(name: str) -> str:
    """The address with this name: in the abstract namespace, so there is no file to be left behind."""
    return f"\0{name}"


def send(to: socket.socket, message: Message, descriptors: Sequence[int] = (), flags: int = 0) -> None:
    """Send a packet.

    Raises:
        OSError: if the other side is gone, or the packet is too large.
    """
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    to.sendmsg([message.SerializeToString()], beside, flags | socket.MSG_NOSIGNAL)


class Receiver:
    """Receives packets of one kind, one after another.

    Args:
        origin: whose packets.
        kind: of message.
    """

    def __init__(self, origin: socket.socket) -> None:
        self._origin = origin
        self._buffer = bytearray(LARGEST)

    def receive(self, kind: type[Parsed]) -> tuple[Parsed, list[int]] | None:
        """The next message, and the descriptors that came with it, which are the caller's; None at the end.

        Raises:
            PeerError: if it is no such message; its descriptors are closed then.
            OSError: if the connection breaks.
        """
        size, beside, flags, _ = self._origin.recvmsg_into([self._buffer], _DESCRIPTORS_SPACE, socket.MSG_CMSG_CLOEXEC)
        descriptors = [number for _, _, data in beside for number in array.array("i", data)]
        if not size and not flags & socket.MSG_TRUNC and not descriptors:
            return None
        try:
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise PeerError(f"a packet must have at most {LARGEST} bytes and {MOST_DESCRIPTORS} descriptors")
            return wire.parse(kind, bytes(memoryview(self._buffer)[:size])), descriptors
        except PeerError:
            close_all(descriptors)
            raise


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody has taken over."""
    for number in descriptors:
        os.close(number)
