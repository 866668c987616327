"""A shard that does what a test tells it, and a caller that waits for its replies."""

import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from psgd.core.ids import Generation, Incarnation, Slot, Step, Version
from psgd.core.layout import Span
from psgd.core.messages import (
    Advance,
    Announce,
    Ask,
    Done,
    Figures,
    Granted,
    Inspect,
    Join,
    Joined,
    Leave,
    Load,
    Loaded,
    Pull,
    Pulled,
    Push,
    Read,
    Receipt,
    Refused,
    Reply,
    Request,
    Settle,
    Snapshot,
    Status,
)
from psgd.transport.base import Connection, Deliver, PushId, Sizes

PATIENCE_S = 20.0

FIRST = Incarnation(1)


def push(slot: int = 0, step: int = 0) -> Push:
    return Push(Slot(slot), FIRST, Step(step), tick=0, pulled=Version(0), finite=True)


def pull(slot: int = 0, step: int = 0, *, whole: bool = False) -> Pull:
    return Pull(Slot(slot), FIRST, Step(step), whole=whole)


def receipt(step: int = 0, version: int = 1) -> Receipt:
    return Receipt(Step(step), Status.ACCEPTED, "applied", Version(version), 0, (0.5,), None)


def answers(request: Request) -> Reply:
    """A plausible reply to every request."""
    match request:
        case Join():
            return Joined(3)
        case Ask(_, _, step):
            return Granted(step, tick=7)
        case Pull(_, _, step):
            return Pulled(Version(5), step, unchanged=False)
        case Push(_, _, step):
            return receipt(step)
        case Load():
            return Loaded()
        case Read(boundary):
            return Snapshot(boundary, Version(9))
        case Inspect():
            return Figures(Version(4), 4, 8, 1, 2, (4, 4))
        case Advance() | Leave() | Announce() | Settle():
            return Done()
        case _:
            return Refused("none of a caller's requests")


class Arrival(NamedTuple):
    request: Request
    payload: bytes | None
    deliver: Deliver


class ScriptedEndpoint:
    """Notes what arrives, and answers at once; or, where ``answer`` returns None, when the test delivers."""

    def __init__(
        self,
        pushed: bytes = b"",
        frozen: bytes = b"",
        answer: Callable[[Request], Reply | None] = answers,
    ) -> None:
        whole = len(pushed) + len(frozen)
        self.sizes = Sizes(push=len(pushed), pull=len(pushed), whole=whole, total=whole)
        self.whole = bytearray(pushed + frozen)
        self.answer = answer
        self.arrivals: list[Arrival] = []
        self.prepared: list[tuple[PushId, tuple[int, int] | None, bytes]] = []
        self._arrived: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._heard = threading.Condition()

    def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
        arrival = Arrival(request, None if payload is None else bytes(payload), deliver)
        self.arrivals.append(arrival)
        self._arrived.put(arrival)
        reply = self.answer(request)
        if reply is not None:
            deliver(reply, self._payload(request))

    def prepare(self, push: PushId, payload: memoryview, ready: Span | None) -> None:
        span = None if ready is None else (ready.start, ready.stop)
        with self._heard:
            self.prepared.append((push, span, b"" if ready is None else bytes(payload[ready.start : ready.stop])))
            self._heard.notify_all()

    def hears(self, count: int) -> bool:
        """Whether it has heard of so many pieces in time."""
        with self._heard:
            return self._heard.wait_for(lambda: len(self.prepared) >= count, PATIENCE_S)

    def next_arrival(self) -> Arrival:
        return self._arrived.get(timeout=PATIENCE_S)

    def _payload(self, request: Request) -> memoryview | None:
        match request:
            case Pull(whole=False):
                return memoryview(self.whole)[: self.sizes.pull]
            case Pull() | Read():
                return memoryview(self.whole)
            case _:
                return None


class Delivered:
    """Where a reply arrives."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self.replies: list[tuple[Reply, bytes | None]] = []

    def __call__(self, reply: Reply, payload: memoryview | None) -> None:
        self.replies.append((reply, None if payload is None else bytes(payload)))
        self._arrived.set()

    @property
    def here(self) -> bool:
        return self._arrived.is_set()

    def wait(self) -> tuple[Reply, bytes | None]:
        assert self._arrived.wait(PATIENCE_S), "no reply"
        [only] = self.replies
        return only


def ask(
    connection: Connection,
    request: Request,
    payload: bytes | bytearray | memoryview | None = None,
    into: bytearray | None = None,
) -> tuple[Reply, bytes | None]:
    """Submit and wait."""
    delivered = Delivered()
    connection.submit(
        request,
        delivered,
        None if payload is None else memoryview(payload),
        () if into is None else (memoryview(into),),
    )
    return delivered.wait()


ANNOUNCE = Announce(Generation(2), (FIRST, Incarnation(2)))
