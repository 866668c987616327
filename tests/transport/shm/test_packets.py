import os
import socket
from collections.abc import Iterator

import pytest
from google.protobuf.message import Message

from psgd.errors import PeerError
from psgd.transport.generated.psgd.v1 import doorbell_pb2
from psgd.transport.shm import packets
from psgd.transport.shm.packets import MOST_DESCRIPTORS, Receiver, close_all, send
from tests.transport.shm.footprint import footprint

Ring = doorbell_pb2.Ring
Pair = tuple[socket.socket, Receiver]


@pytest.fixture
def ends() -> Iterator[Pair]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield near, Receiver(far)
    near.close()
    far.close()


def hello(job: str) -> Message:
    return Ring(hello=doorbell_pb2.Hello(token="t", job=job))


def test_messages_keep_apart_and_in_order(ends: Pair) -> None:
    near, receiver = ends
    sent = [hello("a" * length) for length in (1, 0, 1000, 3)]
    for message in sent:
        send(near, message)
    near.shutdown(socket.SHUT_WR)
    assert [receiver.receive(Ring) for _ in sent] == [(message, []) for message in sent]
    assert receiver.receive(Ring) is None


def test_descriptors_come_with_their_message_and_do_not_survive_exec(ends: Pair) -> None:
    near, receiver = ends
    reading, writing = os.pipe()
    send(near, hello("a"))
    send(near, hello("b"), [writing])
    os.close(writing)
    assert receiver.receive(Ring) == (hello("a"), [])
    received = receiver.receive(Ring)
    assert received is not None
    (descriptor,) = received[1]
    assert not os.get_inheritable(descriptor)
    os.write(descriptor, b"through")
    close_all([descriptor])
    assert os.read(reading, 100) == b"through"
    assert os.read(reading, 100) == b""  # nobody has the writing end any more
    os.close(reading)


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"\x0a\x05ab"])
def test_what_is_no_such_message_is_a_peer_error_and_its_descriptors_are_closed(ends: Pair, content: bytes) -> None:
    near, receiver = ends
    before = footprint()
    socket.send_fds(near, [content], [near.fileno()] * 3)
    with pytest.raises(PeerError, match=f"protobuf can not parse these {len(content)} bytes as Ring"):
        receiver.receive(Ring)
    assert footprint() == before


def test_a_packet_that_is_too_large_is_a_peer_error(ends: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "LARGEST", 1000)  # there are kernels that carry no more than the real one
    near, _ = ends
    receiver = Receiver(ends[1]._origin)
    before = footprint()
    fitting = hello("a" * 991)
    send(near, fitting)
    assert receiver.receive(Ring) == (fitting, [])
    send(near, hello("a" * 992), [near.fileno()])
    with pytest.raises(PeerError, match=f"a packet must have at most 1000 bytes and {MOST_DESCRIPTORS} descriptors"):
        receiver.receive(Ring)
    assert footprint() == before


def test_too_many_descriptors_are_a_peer_error_and_all_are_closed(ends: Pair) -> None:
    near, receiver = ends
    before = footprint()
    send(near, hello("a"), [near.fileno()] * MOST_DESCRIPTORS)
    received = receiver.receive(Ring)
    assert received is not None
    assert len(received[1]) == MOST_DESCRIPTORS
    close_all(received[1])
    send(near, hello("a"), [near.fileno()] * (MOST_DESCRIPTORS + 1))
    with pytest.raises(PeerError, match="at most"):
        receiver.receive(Ring)
    assert footprint() == before


def test_whoever_sends_to_one_who_has_gone_gets_an_error_and_no_signal(ends: Pair) -> None:
    near, receiver = ends
    receiver._origin.close()
    with pytest.raises(BrokenPipeError):
        send(near, hello("a"))


def test_what_the_kernel_does_not_carry_is_an_os_error(ends: Pair) -> None:
    near, _ = ends
    with pytest.raises(OSError, match="Message too long"):
        send(near, hello("a" * 2**24))
