"""``psgd bench plane``: bytes through one connection of psgd's own, beside bare grpcio and a bare socket.

All three go to processes of their own, over the loopback, one after another, round after round.
"""

import queue
import secrets
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from psgd.bench.machine import facts
from psgd.bench.peers import raw_grpc
from psgd.bench.processes import serving
from psgd.bench.times import ratio
from psgd.core.ids import Incarnation, Slot, Step, Version
from psgd.core.layout import Span
from psgd.core.messages import Done, Pull, Pulled, Push, Receipt, Refused, Reply, Request, Status
from psgd.errors import LostError
from psgd.transport.base import Connection, Deliver, PushId, Sizes
from psgd.transport.flat import view_bytes
from psgd.transport.key import JobKey
from psgd.transport.rpc import RpcConnection, RpcServer
from psgd.transport.shm import SegmentPool, ShmConnection, ShmServer

MB = 10**6
BYTES_PER_GB = 10**9
LOOPBACK = "127.0.0.1"
JOB = "psgd-bench"


class Way(Protocol):
    """Something to send so many bytes through."""

    def push(self, size: int) -> None:
        """Send them, and wait until they are there."""

    def pull(self, size: int) -> None:
        """Get them."""

    def close(self) -> None:
        """Let go of it."""


def measure_plane(plane: str, mbytes: int, rounds: int, warmup: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Push and pull a payload through each way in turn.

    Args:
        mbytes: 10^6 bytes, of the payload.
        tell: takes a line about how far we are.

    Returns:
        Medians in GB/s (10^9 bytes), and how much of the ceilings psgd reaches.

    Raises:
        PsgdError: if a payload does not arrive.
    """
    size = mbytes * MB
    seconds: dict[str, list[float]] = {}
    with _ways(plane, size) as ways:
        for number in range(-warmup, rounds):
            for name, way in ways.items():
                for move in (way.push, way.pull):
                    began = time.perf_counter()
                    move(size)
                    if number >= 0:
                        seconds.setdefault(f"{name}_{move.__name__}", []).append(time.perf_counter() - began)
            tell(f"round {number + 1} of {rounds}" if number >= 0 else "warming up")
    return summarize(plane, size, seconds)


def summarize(plane: str, size: int, seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    """The figures.

    Args:
        size: bytes of a payload.
        seconds: of each transfer, by way and direction, as in ``psgd_push``.
    """
    rates = {name: size / statistics.median(each) / BYTES_PER_GB for name, each in seconds.items()}
    return {
        "plane": plane,
        "mbytes": size // MB,
        **{f"{name}_gb_s": rate for name, rate in rates.items()},
        "ratio_raw_push": ratio(rates["psgd_push"], rates["raw_push"]),
        "ratio_raw_pull": ratio(rates["psgd_pull"], rates["raw_pull"]),
        "machine": facts(),
    }


@contextmanager
def _ways(plane: str, size: int) -> Iterator[dict[str, Way]]:
    """All ways, each to a server in a process of its own."""
    token = secrets.token_urlsafe()
    servers: list[Callable[[], AbstractContextManager[Any]]]
    servers = [partial(PLANES[plane].serve, size, token), partial(raw_grpc.serve, 1), serve_socket]
    with serving(servers) as (endpoint, raw, port), ExitStack() as closing:
        ways: dict[str, Way] = {
            "psgd": PlaneWay(*PLANES[plane].connect(endpoint, token, size)),
            "raw": raw_grpc.RawConnection(raw),
            "tcp": SocketWay(port),
        }
        for way in ways.values():
            closing.callback(way.close)
        yield ways


# ------------------------------------------------------------------ psgd's own planes


@dataclass(frozen=True, slots=True)
class OwnPlane:
    """How a plane of psgd's own is opened.

    Args:
        serve: serves an endpoint of so many bytes to whoever has the token; yields where.
        connect: to what is served there, with the token; and so many bytes of memory that the plane carries best.
    """

    serve: Callable[[int, str], AbstractContextManager[str]]
    connect: Callable[[str, str, int], tuple[Connection, memoryview]]


@contextmanager
def _serve_rpc(size: int, token: str) -> Iterator[str]:
    server = RpcServer(Answering(size), key=JobKey(JOB, token), host=LOOPBACK, slots=1)
    try:
        yield server.address
    finally:
        server.close()


def _connect_rpc(address: str, token: str, size: int) -> tuple[Connection, memoryview]:
    return RpcConnection(address, shard=0, key=JobKey(JOB, token)), memoryview(bytearray(size))


@contextmanager
def _serve_shm(size: int, token: str) -> Iterator[str]:
    server = ShmServer(Answering(size), key=JobKey(JOB, token), slots=1)
    try:
        yield server.name
    finally:
        server.close()


def _connect_shm(name: str, token: str, size: int) -> tuple[Connection, memoryview]:
    pool = SegmentPool()
    memory = view_bytes(pool.allocate(size))
    return ShmConnection(name, shard=0, key=JobKey(JOB, token), pool=pool), memory


PLANES = {"rpc": OwnPlane(_serve_rpc, _connect_rpc), "shm": OwnPlane(_serve_shm, _connect_shm)}


class Answering:
    """An endpoint that has nothing to do: it takes every push and always has the same weights.

    Args:
        size: bytes of a push, and of a pull.
    """

    def __init__(self, size: int) -> None:
        self.sizes = Sizes(push=size, pull=size, whole=size, total=size)
        self._weights = memoryview(bytearray(size))

    def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
        """Answer at once."""
        match request:
            case Push(step=step):
                deliver(Receipt(step, Status.ACCEPTED, "measured", Version(step), 0, (), None), None)
            case Pull(step=step):
                deliver(Pulled(Version(step), step, unchanged=False), self._weights)
            case _:
                deliver(Done(), None)

    def prepare(self, push: PushId, payload: memoryview, ready: Span | None) -> None:
        """There is nothing to prepare."""


class PlaneWay:
    """A connection of psgd's own.

    Args:
        memory: as many bytes as the largest push or pull has.
    """

    def __init__(self, connection: Connection, memory: memoryview) -> None:
        self._connection = connection
        self._memory = memory
        self._step = 0
        self._replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()

    def push(self, size: int) -> None:
        """A gradient, and its receipt."""
        self._step += 1
        push = Push(Slot(0), Incarnation(0), Step(self._step), 0, Version(0), finite=True)
        self._connection.submit(push, self._deliver, payload=self._memory[:size])
        self._wait()

    def pull(self, size: int) -> None:
        """The weights."""
        pull = Pull(Slot(0), Incarnation(0), Step(self._step))
        self._connection.submit(pull, self._deliver, into=[self._memory[:size]])
        self._wait()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _deliver(self, reply: Reply, _payload: memoryview | None) -> None:
        self._replies.put(reply)

    def _wait(self) -> None:
        reply = self._replies.get()
        if isinstance(reply, Refused):
            raise LostError(f"the plane did not take the payload: {reply.reason}")


# ------------------------------------------------------------------ a bare socket

PUSH, PULL = b"+", b"-"
SIZE_BYTES = 8
BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class _Socket:
    """A TCP connection, by whole messages."""

    socket: socket.socket
    block: memoryview

    def send(self, size: int) -> None:
        while size:
            size -= self.socket.send(self.block[: min(size, len(self.block))])

    def receive(self, size: int) -> None:
        while size:
            received = self.socket.recv_into(self.block[: min(size, len(self.block))])
            if not received:
                raise EOFError
            size -= received

    def exactly(self, size: int) -> bytes:
        self.receive(size)
        return bytes(self.block[:size])


@contextmanager
def serve_socket() -> Iterator[int]:
    """Take bytes and give bytes over one TCP connection; yields the port."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        threading.Thread(target=_answer, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]


def _answer(listening: socket.socket) -> None:
    accepted, _ = listening.accept()
    with accepted:
        peer = _Socket(accepted, memoryview(bytearray(BLOCK)))
        while True:
            try:
                told = peer.exactly(1 + SIZE_BYTES)
            except EOFError:
                return
            size = int.from_bytes(told[1:])
            if told[:1] == PULL:
                peer.send(size)
            else:
                peer.receive(size)
                peer.send(1)


class SocketWay:
    """One TCP connection to `serve_socket`."""

    def __init__(self, port: int) -> None:
        self._peer = _Socket(socket.create_connection((LOOPBACK, port)), memoryview(bytearray(BLOCK)))
        self._peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def push(self, size: int) -> None:
        """Send so many bytes, and wait for a byte that says that they are there."""
        self._peer.socket.sendall(PUSH + size.to_bytes(SIZE_BYTES))
        self._peer.send(size)
        self._peer.receive(1)

    def pull(self, size: int) -> None:
        """Get so many bytes."""
        self._peer.socket.sendall(PULL + size.to_bytes(SIZE_BYTES))
        self._peer.receive(size)

    def close(self) -> None:
        """Close the connection."""
        self._peer.socket.close()
