"""What every plane promises, over each of them."""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from psgd.core.ids import Boundary, Incarnation, Shard, Slot, Step, Version
from psgd.core.layout import Span
from psgd.core.messages import (
    Advance,
    Ask,
    Commit,
    Confirm,
    Ended,
    Held,
    Inspect,
    Join,
    Leave,
    Load,
    Pulled,
    Read,
    Receipt,
    Refused,
    Request,
    Settle,
)
from psgd.transport.base import Connection, Deliver, Endpoint, PeerLink, PushId, Upload
from psgd.transport.key import JobKey
from psgd.transport.memory import MemoryConnection, MemoryPeerLink
from psgd.transport.rpc import Retry, RpcConnection, RpcPeerLink, RpcServer
from psgd.transport.shm import Segment, SegmentPool, ShmConnection, ShmServer
from tests.transport.scripted import (
    ANNOUNCE,
    FIRST,
    Arrival,
    Delivered,
    ScriptedEndpoint,
    answers,
    ask,
    pull,
    push,
    receipt,
)

SLOTS = 4
KEY = JobKey("job-1", "a secret")
MIB = 2**20


@dataclass
class Plane:
    """Connects endpoints, and closes what it has made."""

    name: str
    closers: list[Callable[[], None]] = field(default_factory=list)
    servers: dict[int, RpcServer] = field(default_factory=dict)
    pool: SegmentPool = field(default_factory=SegmentPool)

    def connect(self, endpoint: Endpoint, *, weights_stand: bool = False) -> Connection:
        connection: Connection
        if self.name == "memory":
            connection = MemoryConnection(endpoint)
        elif self.name == "shm":
            doorbell = self._ring(endpoint, weights_stand)
            connection = ShmConnection(doorbell.name, shard=0, key=KEY, pool=self.pool)
        else:
            retry = Retry(patience_s=5.0)
            connection = RpcConnection(self._serve(endpoint).address, shard=0, key=KEY, retry=retry)
        self.closers.append(connection.close)
        return connection

    def gradient(self, size: int) -> memoryview:
        """Memory that the plane carries best."""
        return self.pool.allocate(size).numpy().data if self.name == "shm" else memoryview(bytearray(size))

    def link(self, endpoints: dict[int, Endpoint]) -> PeerLink:
        link: PeerLink
        if self.name == "memory":
            link = MemoryPeerLink(endpoints)
        else:
            addresses = {shard: self._serve(endpoint).address for shard, endpoint in endpoints.items()}
            link = RpcPeerLink(addresses, key=KEY)
        self.closers.append(link.close)
        return link

    def close(self) -> None:
        for close in reversed(self.closers):
            close()

    def _serve(self, endpoint: Endpoint) -> RpcServer:
        server = RpcServer(endpoint, key=KEY, host="127.0.0.1", slots=SLOTS, park_s=0.2)
        self.closers.append(server.close)
        return server

    def _ring(self, endpoint: Endpoint, weights_stand: bool) -> ShmServer:
        weights = (Segment.create(endpoint.sizes.total), 0) if weights_stand else None
        server = ShmServer(endpoint, key=KEY, slots=SLOTS, weights=weights)
        self.closers.append(server.close)
        return server


@pytest.fixture(params=["memory", "rpc", "shm"])
def plane(request: pytest.FixtureRequest) -> Iterator[Plane]:
    made = Plane(request.param)
    yield made
    made.close()


def content(size: int) -> bytes:
    return np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()


BARE_REQUESTS: list[Request] = [
    Join(Slot(1), FIRST),
    Ask(Slot(3), FIRST, Step(9)),
    Advance(Slot(0), FIRST, Step(2)),
    Leave(Slot(2), FIRST, 11),
    ANNOUNCE,
    Settle(Boundary(3), stop=True),
    Inspect(),
    push(1, 5),
    pull(2, 6),
    Load(),
    Read(Boundary(0)),
]


@pytest.mark.parametrize("request_", BARE_REQUESTS, ids=lambda request: type(request).__name__)
def test_every_request_reaches_the_shard_as_it_is_and_so_does_its_reply(plane: Plane, request_: Request) -> None:
    endpoint = ScriptedEndpoint()
    assert ask(plane.connect(endpoint), request_) == (answers(request_), None)
    assert [arrival.request for arrival in endpoint.arrivals] == [request_]


@pytest.mark.parametrize("size", [0, 1, 255, MIB - 1, MIB, 3 * MIB + 7])
def test_payloads_arrive_to_the_byte_in_both_directions(plane: Plane, size: int) -> None:
    weights, gradient = content(size), content(size)[::-1]
    endpoint = ScriptedEndpoint(weights, frozen=b"frozen")
    connection = plane.connect(endpoint)
    assert ask(connection, push(), gradient)[0] == receipt()
    assert ask(connection, Load(), gradient + b"FROZEN")[0] == answers(Load())
    assert [arrival.payload or b"" for arrival in endpoint.arrivals] == [gradient, gradient + b"FROZEN"]
    assert ask(connection, pull()) == (answers(pull()), weights or None)
    assert ask(connection, pull(whole=True))[1] == weights + b"frozen"
    assert ask(connection, Read(Boundary(1)))[1] == weights + b"frozen"


def test_reply_bytes_land_where_the_caller_wants_them(plane: Plane) -> None:
    weights = np.arange(300_000, dtype=np.float32)
    connection = plane.connect(ScriptedEndpoint(weights.tobytes(), frozen=b"frozen"))
    into = np.zeros_like(weights)
    delivered = Delivered()
    connection.submit(pull(), delivered, into=[into.data])
    assert delivered.wait() == (answers(pull()), None)
    np.testing.assert_array_equal(into, weights)


def test_pull_of_what_the_worker_has_leaves_its_memory_alone(plane: Plane) -> None:
    unchanged = Pulled(Version(3), Step(0), unchanged=True)
    endpoint = ScriptedEndpoint(b"weights", answer=lambda request: None)
    into = bytearray(b"weights")
    delivered = Delivered()
    plane.connect(endpoint).submit(pull(), delivered, into=[memoryview(into)])
    endpoint.next_arrival().deliver(unchanged, memoryview(b""))
    assert delivered.wait() == (unchanged, None)
    assert into == b"weights"


def test_reply_that_does_not_fit_is_refused_with_both_numbers(plane: Plane) -> None:
    into = bytearray(5)
    reply, _ = ask(plane.connect(ScriptedEndpoint(b"weights")), pull(), into=into)
    assert isinstance(reply, Refused)
    assert "Pulled has 7 bytes, expected 5" in reply.reason
    assert into == bytes(5)


@pytest.mark.parametrize(("request_", "expected"), [(push(), 4), (Load(), 10), (Ask(Slot(0), FIRST, Step(0)), 0)])
@pytest.mark.parametrize("size", [3, 5])
def test_payload_of_another_size_is_refused_with_both_numbers(
    plane: Plane, request_: Request, expected: int, size: int
) -> None:
    endpoint = ScriptedEndpoint(b"four", frozen=b"frozen")
    reply, _ = ask(plane.connect(endpoint), request_, bytes(size))
    assert isinstance(reply, Refused)
    assert f"{type(request_).__name__} has {size} bytes, expected {expected}" in reply.reason
    assert endpoint.arrivals == []


def test_caller_may_use_its_memory_again_once_the_reply_is_there(plane: Plane) -> None:
    kept: list[memoryview] = []

    class Keeping(ScriptedEndpoint):
        def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
            assert payload is not None
            kept.append(payload)
            super().submit(request, deliver, payload)

    gradient = bytearray(b"first")
    connection = plane.connect(Keeping(b"abcde"))
    ask(connection, push(step=0), gradient)
    gradient[:] = b"other"
    ask(connection, push(step=1), gradient)
    assert [bytes(view) for view in kept] == [b"first", b"other"]


def test_decision_may_come_later_from_any_thread(plane: Plane) -> None:
    endpoint = ScriptedEndpoint(b"abcd", answer=lambda request: None)
    delivered = Delivered()
    plane.connect(endpoint).submit(push(), delivered, memoryview(b"ABCD"))
    arrival = endpoint.next_arrival()
    assert not delivered.here
    threading.Thread(target=arrival.deliver, args=(receipt(), None)).start()
    assert delivered.wait() == (receipt(), None)


def test_repeat_gets_what_the_shard_answers_to_repeats(plane: Plane) -> None:
    ledger: dict[Request, Receipt] = {}

    def answer(request: Request) -> Receipt:
        return ledger.setdefault(request, receipt(version=len(ledger) + 1))

    connection = plane.connect(ScriptedEndpoint(b"abcd", answer=answer))
    first = ask(connection, push(), b"ABCD")
    assert ask(connection, push(), b"ABCD") == first == (receipt(version=1), None)
    assert len(ledger) == 1


def test_slots_that_wait_for_each_other_share_a_connection(plane: Plane) -> None:
    waiting: list[Arrival] = []

    def answer(request: Request) -> None:
        waiting.append(endpoint.arrivals[-1])
        if len(waiting) == SLOTS:
            for arrival in waiting:
                arrival.deliver(answers(arrival.request), None)

    endpoint = ScriptedEndpoint(b"abcd", answer=answer)
    connection = plane.connect(endpoint)
    delivered = [Delivered() for _ in range(SLOTS)]
    for slot, deliver in enumerate(delivered):
        connection.submit(push(slot, step=slot), deliver, memoryview(f"ABC{slot}".encode()))
        if slot < SLOTS - 1:
            endpoint.next_arrival()
    assert [deliver.wait()[0] for deliver in delivered] == [receipt(slot) for slot in range(SLOTS)]
    assert [arrival.payload for arrival in waiting] == [b"ABC0", b"ABC1", b"ABC2", b"ABC3"]


def test_whoever_takes_a_reply_may_submit_the_next_request(plane: Plane) -> None:
    connection = plane.connect(ScriptedEndpoint(b"abcd"))
    ended = Delivered()

    def following(step: int, *_: object) -> None:
        deliver = partial(following, step + 1) if step < 3000 else ended
        connection.submit(Ask(Slot(0), FIRST, Step(step)), deliver)

    count = 3000
    if plane.name == "rpc":  # has a stack for each; a few show that it does not block
        count = 20
    following(3000 - count)
    assert ended.wait()[0] == answers(Ask(Slot(0), FIRST, Step(3000)))


@pytest.mark.parametrize("reply", [Refused("slot 0 is incarnation 3 by now"), Ended()])
def test_refusal_and_end_pass_through(plane: Plane, reply: Refused | Ended) -> None:
    connection = plane.connect(ScriptedEndpoint(b"abcd", answer=lambda request: reply))
    assert ask(connection, push(), b"ABCD") == (reply, None)
    assert ask(connection, pull(), into=bytearray(4)) == (reply, None)
    assert ask(connection, Ask(Slot(0), FIRST, Step(0))) == (reply, None)


def test_closing_refuses_what_is_under_way(plane: Plane) -> None:
    endpoint = ScriptedEndpoint(b"abcd", answer=lambda request: None)
    connection = plane.connect(endpoint)
    pushing, pulling, into = Delivered(), Delivered(), bytearray(4)
    connection.submit(push(), pushing, memoryview(b"ABCD"))
    connection.submit(pull(), pulling, into=[memoryview(into)])
    arrivals = [endpoint.next_arrival(), endpoint.next_arrival()]
    connection.close()
    for reply, _ in (pushing.wait(), pulling.wait(), ask(connection, push(), b"ABCD")):
        assert isinstance(reply, Refused)
        assert "connection was closed" in reply.reason
    for arrival in arrivals:
        arrival.deliver(answers(arrival.request), memoryview(b"late"))
    assert (len(pushing.replies), len(pulling.replies)) == (1, 1)
    assert into == bytes(4)


def test_connection_may_be_closed_by_whoever_takes_a_reply(plane: Plane) -> None:
    connection = plane.connect(ScriptedEndpoint())
    closed = Delivered()

    def close(*reply_and_payload: object) -> None:
        connection.close()
        closed(Ended(), None)

    connection.submit(Inspect(), close)
    closed.wait()


def test_peers_hear_messages_in_order(plane: Plane) -> None:
    endpoints = {0: ScriptedEndpoint(), 2: ScriptedEndpoint()}
    link = plane.link(dict(endpoints))
    held = [Held(Shard(1), Slot(slot), Step(7), finite=slot != 2) for slot in range(SLOTS)]
    for message in held:
        link.tell(0, message)
    link.tell(2, Commit(Step(7), (Slot(0), Slot(3)), update=True))
    link.tell(2, Confirm(Shard(1), Step(7)))
    assert [endpoints[0].next_arrival().request for _ in held] == held
    heard = [endpoints[2].next_arrival().request for _ in range(2)]
    assert heard == [Commit(Step(7), (Slot(0), Slot(3)), update=True), Confirm(Shard(1), Step(7))]


def test_closed_link_is_silent(plane: Plane) -> None:
    endpoint = ScriptedEndpoint()
    link = plane.link({0: endpoint})
    link.close()
    link.tell(0, Confirm(Shard(1), Step(0)))
    assert endpoint.arrivals == []


# ------------------------------------------------------------------ pushes that begin before they are computed

SIZE = 3 * MIB + 8
BEGUN = PushId(Slot(1), Incarnation(1), Step(5))
BEGUN_PUSH = push(slot=1, step=5)


def begin(
    plane: Plane, endpoint: ScriptedEndpoint, *, weights_stand: bool = True
) -> tuple[Upload, memoryview, Connection]:
    """A push that has begun, the memory that it will be computed in, and what it goes over."""
    connection = plane.connect(endpoint, weights_stand=weights_stand)
    payload = plane.gradient(endpoint.sizes.push)
    return connection.begin(BEGUN, payload), payload, connection


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weights_stand", [True, False])
def test_bytes_that_become_final_in_any_order_arrive_exactly(plane: Plane, weights_stand: bool, seed: int) -> None:
    draw, gradient = random.Random(seed), content(SIZE)
    bounds = [0, *sorted(draw.sample(range(SIZE), 2 * seed)), SIZE]
    pieces = [Span(*pair) for pair in pairwise(bounds)]
    draw.shuffle(pieces)
    endpoint = ScriptedEndpoint(bytes(SIZE))
    upload, payload, _ = begin(plane, endpoint, weights_stand=weights_stand)
    for piece in pieces[: seed + 1]:  # the rest goes with the end
        payload[piece.start : piece.stop] = gradient[piece.start : piece.stop]
        upload.ready(piece)
    payload[:] = gradient
    delivered = Delivered()
    upload.finish(BEGUN_PUSH, delivered)
    assert delivered.wait() == (receipt(5), None)
    [arrival] = endpoint.arrivals
    assert arrival.request == BEGUN_PUSH
    assert arrival.payload == gradient


def test_a_push_of_which_nothing_was_ready_is_sent_in_the_end(plane: Plane) -> None:
    endpoint = ScriptedEndpoint(b"abcd")
    upload, payload, _ = begin(plane, endpoint)
    payload[:] = b"ABCD"
    delivered = Delivered()
    upload.finish(BEGUN_PUSH, delivered)
    assert delivered.wait() == (receipt(5), None)
    assert [arrival.payload for arrival in endpoint.arrivals] == [b"ABCD"]
    assert endpoint.prepared == []


@pytest.mark.parametrize("ready", [(), ((0, 4),), ((4, 6), (0, 2))])
def test_bytes_that_were_withdrawn_are_sent_as_they_are_in_the_end(
    plane: Plane, ready: tuple[tuple[int, int], ...]
) -> None:
    endpoint = ScriptedEndpoint(b"weights!")
    upload, payload, _ = begin(plane, endpoint)
    payload[:] = b"gradient"
    for start, stop in ready:
        upload.ready(Span(start, stop))
    payload[:] = b"CLIPPED!"
    upload.withdraw()
    upload.ready(Span(6, 8))  # that may still be said
    delivered = Delivered()
    upload.finish(BEGUN_PUSH, delivered)
    assert delivered.wait() == (receipt(5), None)
    assert [arrival.payload for arrival in endpoint.arrivals] == [b"CLIPPED!"]


def test_weights_come_with_the_receipt_of_a_push_that_has_begun(plane: Plane) -> None:
    renewed = replace(receipt(5), renewed=True)
    endpoint = ScriptedEndpoint(b"abcd", answer=lambda request: None)
    upload, _, _ = begin(plane, endpoint, weights_stand=False)
    upload.ready(Span(0, 2))
    into, delivered = bytearray(4), Delivered()
    upload.finish(replace(BEGUN_PUSH, renew=True), delivered, [memoryview(into)])
    endpoint.next_arrival().deliver(renewed, memoryview(b"news"))
    assert delivered.wait() == (renewed, None)
    assert into == b"news"


def test_two_slots_push_at_the_same_time(plane: Plane) -> None:
    endpoint = ScriptedEndpoint(b"weights!")
    connection = plane.connect(endpoint, weights_stand=True)
    payloads = [plane.gradient(8) for _ in range(2)]
    uploads = [connection.begin(PushId(Slot(s), FIRST, Step(5)), payloads[s]) for s in range(2)]
    for start in (4, 0):
        for slot, upload in enumerate(uploads):
            payloads[slot][start : start + 4] = b"%d" % slot * 4
            upload.ready(Span(start, start + 4))
    delivered = [Delivered(), Delivered()]
    for slot in (1, 0):
        uploads[slot].finish(push(slot, 5), delivered[slot])
    assert [each.wait()[0] for each in delivered] == [receipt(5), receipt(5)]
    arrived = {arrival.request: arrival.payload for arrival in endpoint.arrivals}
    assert arrived == {push(0, 5): b"00000000", push(1, 5): b"11111111"}


def test_closing_refuses_a_push_that_has_begun(plane: Plane) -> None:
    upload, _, connection = begin(plane, ScriptedEndpoint(b"weights!"))
    upload.ready(Span(0, 4))
    connection.close()
    upload.ready(Span(4, 8))
    upload.withdraw()
    delivered = Delivered()
    upload.finish(BEGUN_PUSH, delivered)
    reply, _ = delivered.wait()
    assert isinstance(reply, Refused)
    assert "connection was closed" in reply.reason


@pytest.mark.parametrize("weights_stand", [True, False])
def test_the_shard_hears_what_is_final_where_that_helps(plane: Plane, weights_stand: bool) -> None:
    """On rpc of each piece, as bytes are sent anyway; on shm before the end, where weights stand; else never."""
    endpoint = ScriptedEndpoint(b"weights!")
    upload, payload, _ = begin(plane, endpoint, weights_stand=weights_stand)
    for start in (6, 2, 0):
        payload[start : start + 2] = b"%d." % start
        upload.ready(Span(start, start + 2))
    payload[4:6] = b"4."
    delivered = Delivered()
    upload.finish(BEGUN_PUSH, delivered)
    delivered.wait()
    heard = [(BEGUN, (6, 8), b"6."), (BEGUN, (2, 4), b"2."), (BEGUN, (0, 2), b"0.")]
    told = {"memory": [], "rpc": [*heard, (BEGUN, (4, 6), b"4.")], "shm": heard if weights_stand else []}
    assert endpoint.prepared == told[plane.name]
    assert [arrival.payload for arrival in endpoint.arrivals] == [b"0.2.4.6."]


def test_the_shard_hears_that_bytes_were_withdrawn() -> None:
    plane = Plane("shm")
    endpoint = ScriptedEndpoint(b"weights!")
    upload, _, _ = begin(plane, endpoint)
    upload.ready(Span(0, 4))
    upload.withdraw()
    delivered = Delivered()
    upload.finish(BEGUN_PUSH, delivered)
    delivered.wait()
    plane.close()
    assert endpoint.prepared == [(BEGUN, (0, 4), bytes(4)), (BEGUN, None, b"")]


def test_memory_that_the_shard_does_not_see_is_none_to_tell_it_about() -> None:
    plane = Plane("shm")
    endpoint = ScriptedEndpoint(b"weights!")
    upload, delivered = plane.connect(endpoint, weights_stand=True).begin(BEGUN, memoryview(b"gradient")), Delivered()
    upload.ready(Span(0, 4))
    upload.finish(BEGUN_PUSH, delivered)
    delivered.wait()
    plane.close()
    assert endpoint.prepared == []
    assert [arrival.payload for arrival in endpoint.arrivals] == [b"gradient"]
