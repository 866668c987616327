import fcntl
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from psgd.core.ids import Shard, Slot, Step
from psgd.core.messages import Confirm, Done, Held, Inspect, Load, Loaded, Refused, Request
from psgd.transport import wire
from psgd.transport.base import Deliver
from psgd.transport.generated.psgd.v1 import doorbell_pb2, shard_pb2
from psgd.transport.key import JobKey
from psgd.transport.shm import Segment, SegmentPool, ShmConnection, ShmServer
from psgd.transport.shm.packets import MOST_DESCRIPTORS, new_socket, path_of
from tests.transport.scripted import PATIENCE_S, ScriptedEndpoint, answers, ask, pull, push, receipt
from tests.transport.shm.footprint import footprint, visits_end
from tests.transport.shm.visitor import KEY, Visitor, region, submit

SLOTS = 2
WEIGHTS = b"weights!"
SIZE = len(WEIGHTS)
Ring = doorbell_pb2.Ring


class Setup:
    """A scripted shard behind a doorbell."""

    def __init__(self, endpoint: ScriptedEndpoint | None = None) -> None:
        self.endpoint = ScriptedEndpoint(WEIGHTS, b"frozen") if endpoint is None else endpoint
        self.server = ShmServer(self.endpoint, key=KEY, slots=SLOTS)
        self.visitors: list[Visitor] = []

    def visitor(self, key: JobKey | None = KEY) -> Visitor:
        self.visitors.append(Visitor(self.server.name, key))
        return self.visitors[-1]

    def serves(self) -> bool:
        """Whether somebody else is served as if nothing had happened."""
        connection = ShmConnection(self.server.name, shard=0, key=KEY, pool=SegmentPool())
        answered = ask(connection, pull()) == (answers(pull()), WEIGHTS)
        connection.close()
        self.endpoint.arrivals.pop()
        self.endpoint.next_arrival()
        return answered

    def close(self) -> None:
        for visitor in self.visitors:
            visitor.close()
        self.server.close()
        gc.collect()  # a scripted endpoint remembers what arrived, which remembers whom to answer


@pytest.fixture
def setup() -> Iterator[Setup]:
    made = Setup()
    yield made
    made.close()


# ------------------------------------------------------------------ the contract, by protobuf alone


def test_a_visitor_made_of_the_contract_pushes_and_pulls(setup: Setup) -> None:
    visitor = setup.visitor()
    assert visitor.welcome == doorbell_pb2.Welcome(pull_bytes=SIZE, whole_bytes=SIZE + 6, total_bytes=SIZE + 6)
    segment = Segment.create(100)
    segment.view[10:18] = b"gradient"
    visitor.say(submit(push(), 5, [(3, 100, False)], payload=region(3, 10, 8)), [segment.descriptor])
    assert visitor.reply() == (5, receipt(), 0)
    assert setup.endpoint.arrivals[0].payload == b"gradient"
    visitor.say(submit(pull(whole=True), 6, into=[region(3, 50, 8), region(3, 80, 6)]))
    assert visitor.reply() == (6, answers(pull()), SIZE + 6)
    assert bytes(segment.view[50:58]) + bytes(segment.view[80:86]) == WEIGHTS + b"frozen"


def test_messages_of_other_shards_are_heard(setup: Setup) -> None:
    visitor = setup.visitor()
    for message in (Held(Shard(1), Slot(0), Step(3), finite=True), Confirm(Shard(1), Step(3))):
        visitor.say(Ring(tell=wire.peer_message(message)))
        assert setup.endpoint.next_arrival().request == message


# ------------------------------------------------------------------ who is let in


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (JobKey("job-1", "a-secreT"), "a hello without the token of job job-1"),
        (JobKey("job-1", "guess"), "a hello without the token of job job-1"),
        (JobKey("job-2", KEY.token), "a hello of job 'job-2' at a shard of job 'job-1'"),
    ],
)
def test_whoever_does_not_show_the_jobs_key_is_sent_away(
    setup: Setup, key: JobKey, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    visitor = setup.visitor(None)
    visitor.say(Ring(hello=doorbell_pb2.Hello(token=key.token, job=key.job)))
    assert visitor.farewell() == line
    assert setup.endpoint.arrivals == []
    assert setup.serves()
    assert caplog.messages == [f"a visitor of the doorbell was sent away: {line}"]
    assert "secre" not in caplog.text + line


def in_segment(request: Request, *where: int, into: bool = False) -> Callable[[int], tuple[Ring, list[int]]]:
    """A request with one segment of 100 bytes, and a region."""

    def ring(descriptor: int) -> tuple[Ring, list[int]]:
        at = region(*where)
        if into:
            return submit(request, 0, [(1, 100, False)], into=[at]), [descriptor]
        return submit(request, 0, [(1, 100, False)], payload=at), [descriptor]

    return ring


BAD: dict[str, tuple[Callable[[int], tuple[Ring, list[int]]], str]] = {
    "a second hello": (
        lambda _: (Ring(hello=doorbell_pb2.Hello(token=KEY.token, job=KEY.job)), []),
        "expected a request or a message of another shard, got neither",
    ),
    "no request": (
        lambda _: (Ring(submit=doorbell_pb2.Submit()), [0]),
        "0 segments came with 1 descriptors",
    ),
    "an empty request": (
        lambda _: (Ring(submit=doorbell_pb2.Submit(in_place=True)), []),
        "a Request without a request that this version knows",
    ),
    "an empty tell": (
        lambda _: (Ring(tell=doorbell_pb2.Ring().tell), [0, 0]),
        "a PeerMessage without a message that this version knows",
    ),
    "more segments than descriptors": (
        lambda fd: (submit(push(), 0, [(1, 100, False), (2, 100, False)]), [fd]),
        "2 segments came with 1 descriptors",
    ),
    "fewer segments than descriptors": (
        lambda fd: (submit(push(), 0, [(1, 100, False)]), [fd, fd]),
        "1 segments came with 2 descriptors",
    ),
    "too many descriptors": (
        lambda fd: (submit(push(), 0, [(n, 100, False) for n in range(9)]), [fd] * 9),
        f"a packet must have at most 262144 bytes and {MOST_DESCRIPTORS} descriptors",
    ),
    "a segment larger than it is": (
        lambda fd: (submit(push(), 0, [(1, 2**40, False)]), [fd]),
        "a segment has 4096 bytes, its message says 1099511627776",
    ),
    "no segment": (
        lambda _: (submit(push(), 0, [(1, 100, False)]), [0]),
        "a segment must be sealed memory, got another kind of file: Invalid argument",
    ),
    "an unknown segment": (in_segment(push(), 2, 0, SIZE), "segment 2 was never shown"),
    "a region outside": (
        in_segment(push(), 1, 93, SIZE),
        "bytes 93 + 8 lie outside of a segment of 100 bytes",
    ),
    "a region far outside": (
        in_segment(push(), 1, 2**64 - 1, 2),
        "bytes 18446744073709551615 + 2 lie outside of a segment of 100 bytes",
    ),
    "a target outside": (
        in_segment(pull(), 1, 0, 101, into=True),
        "bytes 0 + 101 lie outside of a segment of 100 bytes",
    ),
    "a target in an unknown segment": (in_segment(pull(), 7, 0, SIZE, into=True), "segment 7 was never shown"),
    "a slot out of range": (in_segment(push(slot=2), 1, 0, SIZE), "slot 2 is none of this job, which has 2: 0 … 1"),
    "a pull of a slot out of range": (lambda _: (submit(pull(slot=9)), []), "slot 9 is none of this job"),
    "an absurd number": (
        lambda _: (
            Ring(submit=doorbell_pb2.Submit(request=shard_pb2.Request(join=shard_pb2.Join(incarnation=2**60)))),
            [],
        ),
        "Join.incarnation is absurd: expected 0 … 2^53 - 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_malformed_is_sent_away_with_one_line_and_changes_nothing(
    setup: Setup, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = footprint()
    make, line = BAD[name]
    segment = Segment.create(100)
    visitor = setup.visitor()
    ring, descriptors = make(segment.descriptor)
    visitor.say(ring, descriptors)
    said = visitor.farewell()
    assert said.startswith(line)
    assert "\n" not in said
    assert setup.endpoint.arrivals == []
    assert setup.serves()
    assert KEY.token not in said + caplog.text
    visitor.close()
    del segment
    visits_end()
    assert footprint() == before


@pytest.mark.parametrize("greeted", [False, True])
def test_garbage_is_sent_away(setup: Setup, greeted: bool) -> None:
    before = footprint()
    visitor = setup.visitor(KEY if greeted else None)
    visitor.say_bytes(os.urandom(3) + b"\xff" * 500, [0, 1, 2])
    assert visitor.farewell() == "protobuf can not parse these 503 bytes as Ring"
    assert setup.endpoint.arrivals == []
    assert setup.serves()
    visitor.close()
    visits_end()
    assert footprint() == before


@pytest.mark.parametrize("seals", [0, 2 | 4 | 8, 2 | 4 | 16])
def test_memory_that_may_shrink_or_takes_no_writes_is_sent_away(setup: Setup, seals: int) -> None:
    descriptor = os.memfd_create("theirs", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 4096)
    if seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    visitor = setup.visitor()
    visitor.say(submit(push(), 0, [(1, 4096, False)], payload=region(1, 0, SIZE)), [descriptor])
    os.close(descriptor)
    expected = "a segment can not be mapped: " if seals else "a segment's size must be sealed, "
    assert visitor.farewell().startswith(expected)
    assert setup.endpoint.arrivals == []
    assert setup.serves()


def test_a_visitor_shows_no_more_segments_than_it_could_need(setup: Setup) -> None:
    visitor = setup.visitor()
    segment = Segment.create(1)
    shown = 0
    for _ in range(1024 // 8):
        visitor.say(submit(Inspect(), 0, [(shown + k, 1, False) for k in range(8)]), [segment.descriptor] * 8)
        visitor.reply()
        shown += 8
    visitor.say(submit(Inspect(), 0, [(shown, 1, False)]), [segment.descriptor])
    assert visitor.farewell() == "a worker shows at most 1024 segments"


def test_a_visitor_that_says_nothing_is_let_go_and_others_are_served_meanwhile(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psgd.transport.shm.server.GREETED_WITHIN_S", 0.05)
    visitor = setup.visitor(None)
    assert setup.serves()
    assert visitor.is_over()


def test_the_doorbells_name_can_not_be_guessed() -> None:
    first, second = (Setup() for _ in range(2))
    assert first.server.name != second.server.name
    assert len(first.server.name) == len("psgd-") + 32
    first.close()
    second.close()


# ------------------------------------------------------------------ bytes


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_a_payload_of_another_size_is_refused_and_the_visitor_stays(setup: Setup, size: int) -> None:
    visitor = setup.visitor()
    segment = Segment.create(100)
    visitor.say(submit(push(), 0, [(1, 100, False)], payload=region(1, 0, size)), [segment.descriptor])
    assert visitor.reply() == (0, Refused(f"the payload of Push has {size} bytes, expected {SIZE}"), 0)
    visitor.say(submit(Load(), 1))
    assert visitor.reply() == (1, Refused(f"the payload of Load has 0 bytes, expected {SIZE + 6}"), 0)
    assert setup.endpoint.arrivals == []
    visitor.say(submit(Load(), 2, payload=region(1, 0, SIZE + 6)))
    assert visitor.reply() == (2, Loaded(), 0)


def test_a_reply_that_does_not_fit_brings_no_bytes(setup: Setup) -> None:
    visitor = setup.visitor()
    segment = Segment.create(100)
    segment.memory.fill_(5)
    visitor.say(submit(pull(), 0, [(1, 100, False)], into=[region(1, 0, SIZE - 1)]), [segment.descriptor])
    assert visitor.reply() == (0, Refused("the payload of Pulled has 8 bytes, expected 7"), 0)
    assert bytes(segment.view) == b"\5" * 100


def test_a_segment_shown_once_is_let_go_with_the_answer(setup: Setup) -> None:
    visitor = setup.visitor()
    segment = Segment.create(SIZE)
    shown = footprint()
    for number in range(100):
        ring = submit(push(step=number), number, [(number, SIZE, True)], payload=region(number, 0, SIZE))
        visitor.say(ring, [segment.descriptor])
        assert visitor.reply() == (number, receipt(number), 0)
    assert footprint().segments <= shown.segments + 2  # the last one's may be on its way
    visitor.say(submit(push(), 100, payload=region(99, 0, SIZE)))
    assert visitor.farewell() == "segment 99 was never shown"


def test_a_payload_is_the_visitors_memory_and_stays_mapped_until_the_answer() -> None:
    kept: list[tuple[memoryview, Deliver]] = []
    arrived = threading.Event()

    class Keeping(ScriptedEndpoint):
        def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
            assert payload is not None
            kept.append((payload, deliver))
            arrived.set()

    before = footprint()
    setup = Setup(Keeping(WEIGHTS))
    visitor = setup.visitor()
    segment = Segment.create(SIZE)
    visitor.say(submit(push(), 0, [(1, SIZE, True)], payload=region(1, 0, SIZE)), [segment.descriptor])
    assert arrived.wait(PATIENCE_S)
    segment.view[:] = b"changed!"
    assert bytes(kept[0][0]) == b"changed!"
    visitor.close()
    visits_end()
    assert bytes(kept[0][0]) == b"changed!"  # whoever has gone, what is staged is there
    kept[0][1](receipt(), None)  # nobody hears it
    kept.clear()
    setup.close()
    del segment, visitor
    assert footprint() == before


# ------------------------------------------------------------------ the end


DYING = """
import os, signal, sys
from psgd.transport.shm import Segment
from tests.transport.scripted import push
from tests.transport.shm.visitor import Visitor, region, submit

visitor = Visitor(sys.argv[1])
segments = [Segment.create(2**20) for _ in range(3)]
said = [submit(push(), 0, [(k, 2**20, k == 2)], payload=region(k, 0, 8)) for k in range(3)]
for ring, segment in zip(said, segments):
    visitor.say(ring, [segment.descriptor])
print("said", flush=True)
signal.pause()
"""


def test_a_party_that_is_killed_leaves_nothing_in_the_server() -> None:
    setup = Setup(ScriptedEndpoint(WEIGHTS, answer=lambda _: None))
    before = footprint()
    party = subprocess.Popen(
        [sys.executable, "-c", DYING, setup.server.name], stdout=subprocess.PIPE, cwd=os.getcwd(), text=True
    )
    assert party.stdout is not None
    with party:
        assert party.stdout.readline() == "said\n"
        arrivals = [setup.endpoint.next_arrival() for _ in range(3)]
        assert footprint().mappings == before.mappings + 3
        assert footprint().threads == before.threads + 1
        party.kill()
    visits_end()
    for arrival in arrivals:
        arrival.deliver(receipt(), None)
    del arrivals, arrival
    setup.endpoint.arrivals.clear()
    assert footprint() == before
    setup.close()


def test_closing_lets_everybody_go_and_leaves_nothing() -> None:
    before = footprint()
    setup = Setup(ScriptedEndpoint(WEIGHTS, answer=lambda _: None))
    greeted, silent = setup.visitor(), setup.visitor(None)
    segment = Segment.create(SIZE)
    greeted.say(submit(push(), 0, [(1, SIZE, False)], payload=region(1, 0, SIZE)), [segment.descriptor])
    arrival = setup.endpoint.next_arrival()
    setup.server.close()
    assert footprint().threads == before.threads
    assert greeted.is_over()
    assert silent.is_over()
    with new_socket() as late, pytest.raises(ConnectionRefusedError):
        late.connect(path_of(setup.server.name))
    arrival.deliver(receipt(), None)  # too late for anybody
    setup.endpoint.arrivals.clear()
    greeted.close()
    silent.close()
    del arrival, segment
    assert footprint() == before


def test_a_server_may_be_closed_by_whoever_answers() -> None:
    closed = threading.Event()

    class Closing(ScriptedEndpoint):
        def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
            made.server.close()
            closed.set()
            deliver(Done(), None)

    made = Setup(Closing())
    others = made.visitor()
    visitor = made.visitor()
    visitor.say(submit(Inspect()))
    assert closed.wait(PATIENCE_S)
    assert visitor.is_over()
    assert others.is_over()
    visitor.close()
    others.close()
    visits_end()
    assert footprint().threads == 0


def test_a_visitor_that_takes_no_answers_is_let_go_and_blocks_nobody() -> None:
    setup = Setup(ScriptedEndpoint(answer=lambda _: None))
    visitor = setup.visitor()
    visitor.say(submit(Inspect()))
    arrival = setup.endpoint.next_arrival()

    def answer_until_it_is_let_go() -> None:
        while footprint().threads > 1:
            for _ in range(1000):
                arrival.deliver(Done(), None)

    thread = threading.Thread(target=answer_until_it_is_let_go)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    with pytest.raises(BrokenPipeError):
        visitor.say(submit(Inspect()))
    assert visitor.reply() == (0, Done(), 0)  # what was sent before is there
    setup.close()


def test_greeting_is_over_before_anything_else_is_served(setup: Setup) -> None:
    visitor = setup.visitor(None)
    segment = Segment.create(SIZE)
    visitor.say(submit(push(), 0, [(1, SIZE, False)], payload=region(1, 0, SIZE)), [segment.descriptor])
    assert visitor.farewell() == "a hello without the token of job job-1"
    assert setup.endpoint.arrivals == []
