import gc
import logging
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from psgd.core.ids import Boundary
from psgd.core.messages import Inspect, Load, Loaded, Read, Refused, Reply, Request
from psgd.errors import LostError, ResourceError
from psgd.transport.base import Connection, Deliver
from psgd.transport.flat import view_bytes
from psgd.transport.generated.psgd.v1 import doorbell_pb2
from psgd.transport.key import JobKey
from psgd.transport.memory import MemoryConnection
from psgd.transport.shm import Segment, SegmentPool, ShmConnection, ShmServer
from psgd.transport.shm.packets import Receiver, new_socket, path_of, send
from tests.transport.scripted import PATIENCE_S, Delivered, ScriptedEndpoint, answers, ask, pull, push, receipt
from tests.transport.shm.footprint import footprint, visits_end
from tests.transport.shm.visitor import KEY

PUSHED, FROZEN = b"pushed!!", b"frozen"
SIZE = len(PUSHED)


class Keeping(ScriptedEndpoint):
    """Keeps the very memory that requests come with, and answers when told to."""

    def __init__(self) -> None:
        super().__init__(PUSHED, FROZEN, answer=lambda _: None)
        self.payloads: list[memoryview] = []

    def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
        if payload is not None:
            self.payloads.append(payload)
        super().submit(request, deliver, payload)


class Setup:
    """Connections to a scripted shard."""

    def __init__(self, endpoint: ScriptedEndpoint | None = None) -> None:
        self.endpoint = ScriptedEndpoint(PUSHED, FROZEN) if endpoint is None else endpoint
        self.server = ShmServer(self.endpoint, key=KEY, slots=4)
        self.pool = SegmentPool()
        self.connections: list[ShmConnection] = []

    def connect(self) -> ShmConnection:
        self.connections.append(ShmConnection(self.server.name, shard=3, key=KEY, pool=self.pool))
        return self.connections[-1]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.server.close()
        gc.collect()  # a scripted endpoint remembers what arrived, which remembers whom to answer


@pytest.fixture
def setups() -> Iterator[Callable[..., Setup]]:
    made: list[Setup] = []

    def make(endpoint: ScriptedEndpoint | None = None) -> Setup:
        made.append(Setup(endpoint))
        return made[-1]

    yield make
    for each in made:
        each.close()


Setups = Callable[..., Setup]


def submitted(
    connection: ShmConnection, request: Request, payload: memoryview | None = None, into: Sequence[memoryview] = ()
) -> Delivered:
    delivered = Delivered()
    connection.submit(request, delivered, payload, into)
    return delivered


# ------------------------------------------------------------------ no copy


def test_a_payload_in_the_pool_is_the_same_memory_at_the_shard(setups: Setups) -> None:
    endpoint = Keeping()
    setup = setups(endpoint)
    connection = setup.connect()
    memory = setup.pool.allocate(100)
    memory[10:18] = 1
    delivered = submitted(connection, push(), view_bytes(memory[10:18]))
    arrival = endpoint.next_arrival()
    memory[10:18] = 2
    assert bytes(endpoint.payloads[0]) == bytes([2]) * SIZE
    arrival.deliver(receipt(), None)
    assert delivered.wait() == (receipt(), None)


def test_weights_are_written_by_the_shard_where_they_are_wanted(setups: Setups) -> None:
    """The bytes are there before the connection has heard of the reply."""
    setup = setups(Keeping())
    connection = setup.connect()
    memory = setup.pool.allocate(100)
    pieces = [view_bytes(memory[50:58]), view_bytes(memory[3:9])]
    delivered = submitted(connection, pull(whole=True), into=pieces)
    arrival = setup.endpoint.next_arrival()
    with connection._lock:  # the connection can take no reply now
        arrival.deliver(answers(pull()), memoryview(PUSHED + FROZEN))
        assert (bytes(pieces[0]), bytes(pieces[1])) == (PUSHED, FROZEN)
        assert not delivered.here
    assert delivered.wait() == (answers(pull()), None)


def test_segments_are_shown_once_to_each_shard(setups: Setups) -> None:
    near, far = setups(), setups()
    far.pool = near.pool
    memory = near.pool.allocate(2 * SIZE)
    connections = [near.connect(), far.connect()]
    for connection in connections:
        ask(connection, push(), view_bytes(memory[:SIZE]))
    shown = footprint()
    for step in range(20):
        for connection in connections:
            assert ask(connection, push(step=step), view_bytes(memory[SIZE:]))[0] == receipt(step)
            assert submitted(connection, pull(), into=[view_bytes(memory[:SIZE])]).wait() == (answers(pull()), None)
    assert footprint() == shown


# ------------------------------------------------------------------ memory of any kind


@pytest.mark.parametrize("pooled", [(), (0,), (1,), (0, 1)])
def test_bytes_land_in_memory_of_any_kind(setups: Setups, pooled: tuple[int, ...]) -> None:
    setup = setups()
    pieces = [
        view_bytes(setup.pool.allocate(size)) if k in pooled else memoryview(bytearray(size))
        for k, size in enumerate((SIZE, len(FROZEN)))
    ]
    assert submitted(setup.connect(), pull(whole=True), into=pieces).wait() == (answers(pull()), None)
    assert [bytes(piece) for piece in pieces] == [PUSHED, FROZEN]


def test_empty_pieces_take_nothing(setups: Setups) -> None:
    setup = setups()
    pieces = [memoryview(b""), view_bytes(setup.pool.allocate(SIZE)), view_bytes(torch.empty(0, dtype=torch.uint8))]
    assert submitted(setup.connect(), pull(), into=pieces).wait() == (answers(pull()), None)
    assert bytes(pieces[1]) == PUSHED


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_memory_that_a_reply_does_not_fit_stays_as_it_is(setups: Setups, pooled: bool, size: int) -> None:
    setup = setups()
    memory = setup.pool.allocate(size) if pooled else torch.zeros(size, dtype=torch.uint8)
    memory.fill_(7)
    reply, _ = submitted(setup.connect(), pull(), into=[view_bytes(memory)]).wait()
    assert isinstance(reply, Refused)
    assert reply.reason == f"the payload of Pulled has {SIZE} bytes, expected {size}"
    assert memory.tolist() == [7] * size


def test_lent_memory_is_given_back(setups: Setups) -> None:
    class Forgetful(ScriptedEndpoint):
        def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
            deliver(answers(request), self._payload(request))

    setup = setups(Forgetful(PUSHED, FROZEN))
    connection = setup.connect()
    gradient, into = memoryview(bytearray(PUSHED)), bytearray(SIZE)

    def once(step: int) -> None:
        assert ask(connection, push(step=step), gradient) == (receipt(step), None)
        assert ask(connection, pull(step=step), into=into) == (answers(pull(step=step)), None)
        assert ask(connection, Read(Boundary(1))) == (answers(Read(Boundary(1))), PUSHED + FROZEN)
        ask(connection, Inspect())  # behind it both ends have let go of what came before

    before = footprint()
    for step in range(334):  # a thousand requests
        once(step)
    assert footprint() == before
    assert len(connection._under_way) == 0
    assert len(connection._offers.known) == 0


def test_whole_states_go_in_and_out(setups: Setups) -> None:
    setup = setups()
    connection = setup.connect()
    assert ask(connection, Load(), b"x" * (SIZE + len(FROZEN))) == (Loaded(), None)
    assert ask(connection, Read(Boundary(2))) == (answers(Read(Boundary(2))), PUSHED + FROZEN)


# ------------------------------------------------------------------ too little memory


def test_a_request_that_finds_no_memory_is_refused_and_the_next_is_served(
    setups: Setups, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = setups()
    connection = setup.connect()
    gradient = setup.pool.allocate(SIZE)

    def short(size: int) -> Segment:
        raise ResourceError(f"{size} bytes of shared memory are wanted, 7 bytes are available")

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "create", short)
        for request, content in ((push(), memoryview(PUSHED)), (pull(), None)):
            reply, _ = submitted(connection, request, content, [memoryview(bytearray(SIZE))]).wait()
            assert isinstance(reply, Refused)
            assert reply.reason.startswith(f"shard 3 at unix:@{setup.server.name}: the request could not be sent: ")
            assert reply.reason.endswith(f" {SIZE} bytes of shared memory are wanted, 7 bytes are available")
        # The gradient's segment was not shown with it, though it was found.
        both = [view_bytes(gradient), memoryview(bytearray(len(FROZEN)))]
        assert isinstance(submitted(connection, pull(whole=True), into=both).wait()[0], Refused)
    assert setup.endpoint.arrivals == []
    assert ask(connection, push(), view_bytes(gradient)) == (receipt(), None)


def short_of_memory(size: int) -> Segment:
    raise ResourceError("no memory")


class Spares:
    """Makes spare connections, and knows what became of them."""

    def __init__(self) -> None:
        self.endpoint = ScriptedEndpoint(PUSHED, FROZEN)
        self.made: list[MemoryConnection] = []

    def __call__(self) -> Connection:
        self.made.append(MemoryConnection(self.endpoint))
        return self.made[-1]


def test_what_no_memory_can_be_lent_to_takes_the_spare_connection_and_all_else_does_not(
    setups: Setups, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    setup, spares = setups(), Spares()
    connection = ShmConnection(setup.server.name, shard=3, key=KEY, pool=setup.pool, make_spare=spares)
    setup.connections.append(connection)
    assert ask(connection, Load(), PUSHED + FROZEN) == (Loaded(), None)
    assert spares.made == []
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "create", short_of_memory)
        into = bytearray(SIZE)
        assert ask(connection, pull(), into=into) == (answers(pull()), None)
        assert into == PUSHED
        assert ask(connection, Load(), FROZEN + PUSHED) == (Loaded(), None)
        assert ask(connection, Inspect()) == (answers(Inspect()), None)
    assert ask(connection, pull(), into=into) == (answers(pull()), None)
    assert [arrival.request for arrival in setup.endpoint.arrivals] == [Load(), Inspect(), pull()]
    assert [(arrival.request, arrival.payload) for arrival in spares.endpoint.arrivals] == [
        (pull(), None),
        (Load(), FROZEN + PUSHED),
    ]
    assert len(spares.made) == 1
    assert caplog.messages == [f"shard 3 at unix:@{setup.server.name} is asked on another plane: no memory"]


def test_the_spare_connection_ends_with_the_connection(setups: Setups, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, spares = setups(), Spares()
    spares.endpoint.answer = lambda _: None
    connection = ShmConnection(setup.server.name, shard=3, key=KEY, pool=setup.pool, make_spare=spares)
    setup.connections.append(connection)
    monkeypatch.setattr(Segment, "create", short_of_memory)
    delivered = submitted(connection, Read(Boundary(1)))
    assert not delivered.here
    connection.close()
    assert delivered.wait() == (Refused("the connection was closed"), None)
    assert ask(connection, Read(Boundary(1)))[0] == Refused(
        f"shard 3 at unix:@{setup.server.name}: the connection was closed"
    )
    assert len(spares.endpoint.arrivals) == len(spares.made) == 1


# ------------------------------------------------------------------ who is let in


def test_an_unknown_name_is_a_lost_error_that_says_where() -> None:
    before = footprint()
    with pytest.raises(LostError, match=r"^shard 3 at unix:@psgd-elsewhere can not be reached: .*Connection refused$"):
        ShmConnection("psgd-elsewhere", shard=3, key=KEY, pool=SegmentPool())
    assert footprint() == before


def test_whoever_is_sent_away_hears_why(setups: Setups) -> None:
    setup = setups()
    before = footprint()
    with pytest.raises(LostError, match=r"can not be reached: a hello without the token of job job-1$") as raised:
        ShmConnection(setup.server.name, shard=0, key=JobKey("job-1", "guessed"), pool=SegmentPool())
    assert "guessed" not in str(raised.value)
    visits_end()
    assert footprint() == before


class Impostor:
    """A doorbell that says what a test wants."""

    def __init__(self, *said: doorbell_pb2.Chime | bytes | None, descriptors: Sequence[int] = ()) -> None:
        self.name = f"psgd-test-{id(self)}-{threading.get_ident()}"
        self._said = said
        self._descriptors = descriptors
        self._listening = new_socket()
        self._listening.bind(path_of(self.name))
        self._listening.listen()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        visitor, _ = self._listening.accept()
        with visitor:
            receiver = Receiver(visitor)
            for chime in self._said:
                assert receiver.receive(doorbell_pb2.Ring) is not None
                if isinstance(chime, bytes):
                    visitor.send(chime)
                elif chime is not None:
                    send(visitor, chime, self._descriptors)

    def close(self) -> None:
        self._thread.join()
        self._listening.close()


def welcome(pull: int, total: int, offset: int = 0, size: int | None = None) -> doorbell_pb2.Chime:
    region = doorbell_pb2.Region(offset=offset, size=total if size is None else size)
    return doorbell_pb2.Chime(
        welcome=doorbell_pb2.Welcome(pull_bytes=pull, whole_bytes=total, total_bytes=total, weights=region)
    )


@pytest.mark.parametrize(
    ("said", "shown", "line"),
    [
        (None, 0, "it closed the connection"),
        (doorbell_pb2.Chime(farewell="another version"), 0, "another version"),
        (doorbell_pb2.Chime(farewell="and descriptors"), 2, "and descriptors"),
        (doorbell_pb2.Chime(delivered=doorbell_pb2.Delivered()), 1, "it did not say welcome"),
        (b"\xff\xff", 0, "protobuf can not parse these 2 bytes as Chime"),
        (welcome(10, 5000), 2, "a segment has 4096 bytes, its message says 5000"),
        (welcome(10, 100, offset=4000), 1, "a segment has 4096 bytes, its message says 4100"),
        (welcome(10, 100, size=99), 2, "the shard's weights have 100 bytes, its segment shows 99"),
    ],
)
def test_whatever_does_not_welcome_is_lost_and_leaves_nothing(
    said: doorbell_pb2.Chime | bytes | None, shown: int, line: str
) -> None:
    segment = Segment.create(100)
    before = footprint()
    impostor = Impostor(said, descriptors=[segment.descriptor] * shown)
    with pytest.raises(LostError, match=f"can not be reached: {line}"):
        ShmConnection(impostor.name, shard=0, key=KEY, pool=SegmentPool())
    impostor.close()
    assert footprint() == before


def test_a_silent_doorbell_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psgd.transport.shm.greeting.GREETED_WITHIN_S", 0.05)
    listening = new_socket()
    listening.bind(path_of("psgd-test-silent"))
    listening.listen()
    with listening, pytest.raises(LostError, match="can not be reached: timed out"):
        ShmConnection("psgd-test-silent", shard=0, key=KEY, pool=SegmentPool())


# ------------------------------------------------------------------ the end


def test_closing_leaves_nothing(setups: Setups) -> None:
    setup = setups()
    before = footprint()
    connection = setup.connect()
    ask(connection, push(), view_bytes(setup.pool.allocate(SIZE)))
    setup.connections.clear()
    setup.pool = SegmentPool()
    setup.endpoint.arrivals.clear()
    setup.endpoint.next_arrival()
    connection.close()
    connection.close()
    del connection
    visits_end()
    assert footprint() == before


def test_a_server_that_closes_refuses_what_is_under_way_and_what_comes(setups: Setups) -> None:
    setup = setups(Keeping())
    connection = setup.connect()
    delivered = submitted(connection, push(), memoryview(PUSHED))
    setup.endpoint.next_arrival()
    setup.server.close()
    for reply in (delivered.wait()[0], ask(connection, Inspect())[0]):
        assert reply == Refused(f"shard 3 at unix:@{setup.server.name}: it closed the connection")


@pytest.mark.parametrize("said", [doorbell_pb2.Chime(farewell="you are mistaken"), b"\xff\xff\xff"])
def test_what_ends_the_connection_is_in_the_refusal(said: doorbell_pb2.Chime | bytes) -> None:
    hello = doorbell_pb2.Chime(welcome=doorbell_pb2.Welcome())
    impostor = Impostor(hello, said)
    connection = ShmConnection(impostor.name, shard=0, key=KEY, pool=SegmentPool())
    reply, _ = ask(connection, Inspect())
    assert isinstance(reply, Refused)
    reason = "protobuf can not parse these 3 bytes" if isinstance(said, bytes) else "you are mistaken"
    assert reason in reply.reason
    connection.close()
    impostor.close()


def test_a_connection_may_be_closed_within_a_delivery_and_the_others_are_refused(setups: Setups) -> None:
    setup = setups(Keeping())
    connection = setup.connect()
    closed = Delivered()

    def close(reply: Reply, payload: memoryview | None) -> None:
        connection.close()
        closed(reply, None)

    connection.submit(Inspect(), close)
    other = submitted(connection, push(), memoryview(PUSHED))
    first, second = (setup.endpoint.next_arrival() for _ in range(2))
    first.deliver(answers(first.request), None)
    assert closed.wait()[0] == answers(first.request)
    assert other.wait()[0] == Refused(f"shard 3 at unix:@{setup.server.name}: the connection was closed")
    second.deliver(receipt(), None)
    connection.close()  # from here it waits
    visits_end()
    assert footprint().threads == 1  # the doorbell's


def test_whoever_fails_to_take_a_reply_is_logged_and_the_connection_goes_on(
    setups: Setups, caplog: pytest.LogCaptureFixture
) -> None:
    connection = setups().connect()

    def fail(reply: Reply, payload: memoryview | None) -> None:
        raise ValueError("as scripted")

    with caplog.at_level(logging.ERROR):
        connection.submit(Inspect(), fail)
        assert ask(connection, Inspect())[0] == answers(Inspect())
    assert "whoever waited for Figures could not take it" in caplog.text


def test_closing_waits_for_nobody_who_is_not_delivered(setups: Setups) -> None:
    """A shard that never answers does not keep a worker from ending."""
    setup = setups(Keeping())
    connection = setup.connect()
    delivered = submitted(connection, push(), memoryview(PUSHED))
    setup.endpoint.next_arrival()
    thread = threading.Thread(target=connection.close)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert isinstance(delivered.wait()[0], Refused)
