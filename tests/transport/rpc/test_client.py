import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc
import pytest

from psgd.core.ids import Boundary, Shard, Slot, Step
from psgd.core.layout import Span
from psgd.core.messages import Ask, Confirm, Inspect, Pending, Read, Refused, Reply
from psgd.errors import InternalError
from psgd.transport import wire
from psgd.transport.base import PushId
from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.key import JobKey
from psgd.transport.rpc import Retry, RpcConnection, RpcServer
from psgd.transport.rpc.frames import CHUNK, begin_frame, data_frames, reply_frame
from psgd.transport.rpc.stub import Stub
from tests.transport.rpc.network import Forwarder, Said, ScriptedServer
from tests.transport.scripted import (
    FIRST,
    PATIENCE_S,
    Delivered,
    ScriptedEndpoint,
    answers,
    ask,
    pull,
    push,
    receipt,
)

KEY = JobKey("job-1", "a secret")
IMPATIENT = Retry(attempt_s=5.0, patience_s=0.3, first_pause_s=0.01, longest_pause_s=0.05)
PATIENT = Retry(attempt_s=10.0, patience_s=30.0, first_pause_s=0.01, longest_pause_s=0.05)
ASK = Ask(Slot(0), FIRST, Step(4))

Closing = Callable[..., object]


@pytest.fixture
def closing() -> Iterator[Closing]:
    """Closes what it is given, the last one first."""
    made = []

    def note(closable: object) -> object:
        made.append(closable)
        return closable

    yield note
    for closable in reversed(made):
        closable.close()  # type: ignore[attr-defined]


@pytest.fixture
def say(closing: Closing) -> Callable[..., tuple[ScriptedServer, RpcConnection]]:
    """A server with prepared answers, and a connection to it."""

    def make(*said: Said, retry: Retry = PATIENT) -> tuple[ScriptedServer, RpcConnection]:
        server = ScriptedServer(said)
        connection = RpcConnection(server.address, shard=1, key=KEY, retry=retry)
        closing(server), closing(connection)
        return server, connection

    return make


Say = Callable[..., tuple[ScriptedServer, RpcConnection]]


def encoded(reply: Reply) -> bytes:
    return wire.reply_message(reply).SerializeToString()


def framed(reply: Reply, payload: bytes = b"", announced: int | None = None) -> tuple[bytes, ...]:
    head = reply_frame(wire.reply_message(reply))
    if not payload:
        return (head,)
    return (head, begin_frame(len(payload) if announced is None else announced), *data_frames(memoryview(payload)))


# ------------------------------------------------------------------ attempts


def test_pending_is_asked_again_without_the_bytes(say: Say) -> None:
    server, connection = say(framed(Pending()), encoded(Pending()), encoded(receipt()))
    assert ask(connection, push(), b"gradient") == (receipt(), None)
    assert server.called == ["Push", "Call", "Call"]
    assert [len(frames) for frames in server.received] == [3, 1, 1]


def test_every_attempt_is_the_same_operation(say: Say) -> None:
    server, connection = say(grpc.StatusCode.UNAVAILABLE, encoded(Pending()), encoded(answers(ASK)))
    ask(connection, ASK)
    [first], *others = server.received
    assert others == [[first], [first]]
    assert shard_pb2.Request.FromString(first).ask == shard_pb2.Ask(slot=0, incarnation=1, step=4)


def test_requests_are_different_operations(say: Say) -> None:
    server, connection = say(encoded(answers(ASK)), encoded(answers(ASK)))
    ask(connection, ASK)
    ask(connection, ASK)
    operations = {wire.request_of(shard_pb2.Request.FromString(request))[0] for [request] in server.received}
    assert len(operations) == 2


def test_push_whose_bytes_got_lost_is_streamed_again(say: Say) -> None:
    server, connection = say(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, framed(receipt()))
    assert ask(connection, push(), b"gradient") == (receipt(), None)
    assert server.called == ["Push", "Call", "Push"]
    assert server.received[0] == server.received[2]


def test_pull_is_asked_for_anew(say: Say) -> None:
    pulled = answers(pull())
    server, connection = say(grpc.StatusCode.UNAVAILABLE, framed(Pending()), framed(pulled, b"weights"))
    into = bytearray(7)
    assert ask(connection, pull(), into=into) == (pulled, None)
    assert into == b"weights"
    assert server.called == ["Pull", "Pull", "Pull"]


def test_bytes_without_memory_for_them_come_with_the_reply(say: Say) -> None:
    weights = bytes(range(256)) * 5000
    assert len(weights) > CHUNK
    _, connection = say(framed(answers(Read(Boundary(1))), weights))
    assert ask(connection, Read(Boundary(1))) == (answers(Read(Boundary(1))), weights)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
    ],
)
def test_refusal_is_not_tried_again(say: Say, code: grpc.StatusCode) -> None:
    server, connection = say(code)
    refused = Refused(f"shard 1 at {server.address}: {code.name}: as scripted")
    assert ask(connection, push(), b"gradient") == (refused, None)
    assert server.called == ["Push"]


@pytest.mark.parametrize(
    "said",
    [
        (),
        (b"\xff\xff",),
        (begin_frame(3),),
        (*framed(answers(pull())), b"\x7a\x01x"),
        (*framed(answers(pull()), b"weights"), begin_frame(3)),
        framed(answers(pull()), b"weights", announced=6),
    ],
)
def test_malformed_answer_is_refused(say: Say, said: tuple[bytes, ...]) -> None:
    server, connection = say(said)
    reply, _ = ask(connection, pull())
    assert isinstance(reply, Refused)
    assert reply.reason.startswith(f"shard 1 at {server.address}: malformed answer: ")


def test_number_that_can_not_be_sent_is_the_callers_error(say: Say) -> None:
    server, connection = say()
    with pytest.raises(InternalError, match=r"Ask\.step can not be sent"):
        connection.submit(Ask(Slot(0), FIRST, Step(-1)), Delivered())
    with pytest.raises(InternalError, match="Confirm does not travel in a Request"):
        connection.submit(Confirm(Shard(0), Step(0)), Delivered())
    assert server.called == []


# ------------------------------------------------------------------ patience


def test_shard_that_is_gone_is_given_up_after_the_patience(closing: Closing) -> None:
    gone = Forwarder(None)
    closing(gone)
    connection = RpcConnection(gone.address, shard=1, key=KEY, retry=IMPATIENT)
    closing(connection)
    began = time.monotonic()
    reply, _ = ask(connection, push(), b"gradient")
    assert time.monotonic() - began > IMPATIENT.patience_s
    assert isinstance(reply, Refused)
    assert reply.reason.startswith(f"shard 1 at {gone.address} has not answered for 0.3 s: UNAVAILABLE: ")


def test_shard_that_hangs_is_given_up_after_the_patience(closing: Closing) -> None:
    hangs = socket.create_server(("127.0.0.1", 0))  # connects, and never says a word
    closing(hangs)
    address = f"127.0.0.1:{hangs.getsockname()[1]}"
    retry = Retry(attempt_s=0.1, patience_s=0.3, first_pause_s=0.01)
    connection = RpcConnection(address, shard=1, key=KEY, retry=retry)
    closing(connection)
    reply, _ = ask(connection, ASK)
    assert isinstance(reply, Refused)
    assert reply.reason.startswith(f"shard 1 at {address} has not answered for 0.3 s: DEADLINE_EXCEEDED: ")


def test_shard_that_says_pending_has_answered(say: Say) -> None:
    retry = Retry(patience_s=0.6, first_pause_s=0.06)
    broken_in_between = [grpc.StatusCode.UNAVAILABLE, encoded(Pending())] * 12  # 0.72 s in all
    server, connection = say(*broken_in_between, encoded(answers(ASK)), retry=retry)
    assert ask(connection, ASK)[0] == answers(ASK)
    assert len(server.called) == 25


# ------------------------------------------------------------------ a network that breaks


def undecided() -> ScriptedEndpoint:
    return ScriptedEndpoint(b"abcd", answer=lambda request: None)


@pytest.fixture
def broken(closing: Closing) -> Callable[[ScriptedEndpoint], tuple[Forwarder, RpcConnection]]:
    def make(endpoint: ScriptedEndpoint) -> tuple[Forwarder, RpcConnection]:
        server = RpcServer(endpoint, key=KEY, host="127.0.0.1", slots=2)
        forwarder = Forwarder(server.address)
        connection = RpcConnection(forwarder.address, shard=1, key=KEY, retry=PATIENT)
        closing(server), closing(forwarder), closing(connection)
        return forwarder, connection

    return make


Broken = Callable[[ScriptedEndpoint], tuple[Forwarder, RpcConnection]]


def test_lost_reply_is_found_again_and_nothing_is_applied_twice(broken: Broken) -> None:
    endpoint = undecided()
    forwarder, connection = broken(endpoint)
    delivered = Delivered()
    connection.submit(push(), delivered, memoryview(b"ABCD"))
    arrival = endpoint.next_arrival()
    target, forwarder.target = forwarder.target, None
    forwarder.cut()
    arrival.deliver(receipt(), None)  # into a call that is no more
    forwarder.target = target
    assert delivered.wait() == (receipt(), None)
    assert [(each.request, each.payload) for each in endpoint.arrivals] == [(push(), b"ABCD")]


def test_shard_that_was_replaced_gets_the_bytes_again(broken: Broken, closing: Closing) -> None:
    lost, replacement = undecided(), ScriptedEndpoint(b"abcd")
    forwarder, connection = broken(lost)
    server = RpcServer(replacement, key=KEY, host="127.0.0.1", slots=2)
    closing(server)
    delivered = Delivered()
    connection.submit(push(), delivered, memoryview(b"ABCD"))
    lost.next_arrival()
    forwarder.target = server.address
    forwarder.cut()
    assert delivered.wait() == (receipt(), None)
    assert [(each.request, each.payload) for each in replacement.arrivals] == [(push(), b"ABCD")]


def test_shard_may_start_after_its_callers(broken: Broken) -> None:
    endpoint = ScriptedEndpoint(b"abcd")
    forwarder, connection = broken(endpoint)
    target, forwarder.target = forwarder.target, None
    delivered = Delivered()
    connection.submit(pull(), delivered)
    forwarder.target = target
    assert delivered.wait() == (answers(pull()), b"abcd")


# ------------------------------------------------------------------ pushes that begin before they are computed

BEGUN = PushId(Slot(0), FIRST, Step(0))


@pytest.mark.parametrize("finished_first", [False, True])
def test_a_stream_that_breaks_off_in_the_middle_ends_in_one_receipt(broken: Broken, finished_first: bool) -> None:
    endpoint = undecided()
    forwarder, connection = broken(endpoint)
    delivered, payload = Delivered(), bytearray(b"ABC.")
    upload = connection.begin(BEGUN, memoryview(payload))
    upload.ready(Span(0, 2))
    assert endpoint.hears(1)
    payload[:] = b"ABCD"
    if finished_first:
        upload.finish(push(), delivered)
        arrival = endpoint.next_arrival()
        forwarder.cut()
    else:
        forwarder.cut()
        upload.finish(push(), delivered)
        arrival = endpoint.next_arrival()
    arrival.deliver(receipt(), None)
    assert delivered.wait() == (receipt(), None)
    assert [(each.request, each.payload) for each in endpoint.arrivals] == [(push(), b"ABCD")]


def test_a_stream_that_breaks_off_may_be_finished_while_the_shard_is_away(broken: Broken) -> None:
    endpoint = ScriptedEndpoint(b"abcd")
    forwarder, connection = broken(endpoint)
    upload = connection.begin(BEGUN, memoryview(b"ABCD"))
    upload.ready(Span(0, 2))
    target, forwarder.target = forwarder.target, None
    forwarder.cut()
    delivered = Delivered()
    upload.finish(push(), delivered)
    forwarder.target = target
    assert delivered.wait() == (receipt(), None)
    assert [(each.request, each.payload) for each in endpoint.arrivals] == [(push(), b"ABCD")]


def test_an_early_push_that_is_pending_is_asked_after_without_its_bytes(say: Say) -> None:
    server, connection = say(framed(Pending()), encoded(Pending()), encoded(receipt()))
    upload, delivered = connection.begin(BEGUN, memoryview(b"gradient")), Delivered()
    upload.ready(Span(4, 8))
    upload.finish(push(), delivered)
    assert delivered.wait() == (receipt(), None)
    assert server.called == ["Push", "Call", "Call"]
    assert [len(frames) for frames in server.received] == [6, 1, 1]  # begin, twice at and data, the request


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INVALID_ARGUMENT])
def test_an_early_push_that_failed_is_sent_again_where_the_shard_does_not_know_it(
    say: Say, code: grpc.StatusCode
) -> None:
    server, connection = say(code, grpc.StatusCode.NOT_FOUND, framed(receipt()))
    upload, delivered = connection.begin(BEGUN, memoryview(b"gradient")), Delivered()
    upload.ready(Span(4, 8))
    upload.finish(push(), delivered)
    assert delivered.wait() == (receipt(), None)
    assert server.called == ["Push", "Call", "Push"]
    [finals] = {frames[-1] for frames in (server.received[0], server.received[2])}
    assert server.received[1] == [shard_pb2.TensorFrame.FromString(finals).request.SerializeToString()]


def test_an_early_push_that_the_shard_refuses_is_refused(say: Say) -> None:
    server, connection = say(*[grpc.StatusCode.PERMISSION_DENIED] * 2)
    upload, delivered = connection.begin(BEGUN, memoryview(b"gradient")), Delivered()
    upload.ready(Span(4, 8))
    upload.finish(push(), delivered)
    refused = Refused(f"shard 1 at {server.address}: PERMISSION_DENIED: as scripted")
    assert delivered.wait() == (refused, None)


@pytest.mark.parametrize(
    "said",
    [(), (b"\xff\xff",), (begin_frame(3),), (*framed(receipt(), b"weights"), begin_frame(3))],
)
def test_a_malformed_answer_to_an_early_push_is_asked_for_again(say: Say, said: tuple[bytes, ...]) -> None:
    server, connection = say(said, encoded(receipt()))
    upload, delivered = connection.begin(BEGUN, memoryview(b"gradient")), Delivered()
    upload.ready(Span(4, 8))
    upload.finish(push(), delivered)
    assert delivered.wait() == (receipt(), None)
    assert server.called == ["Push", "Call"]


def threads_end(before: set[threading.Thread]) -> None:
    """Wait until there are no others than before; gRPC's own end when they like."""
    deadline = time.monotonic() + PATIENCE_S
    while {thread for thread in threading.enumerate() if thread.is_alive()} - before:
        assert time.monotonic() < deadline, threading.enumerate()
        time.sleep(0.01)


def test_closing_lets_go_of_pushes_that_have_begun(closing: Closing) -> None:
    endpoint = ScriptedEndpoint(b"abcd")
    server = RpcServer(endpoint, key=KEY, host="127.0.0.1", slots=2)
    closing(server)
    before = set(threading.enumerate())
    connection = RpcConnection(server.address, shard=1, key=KEY, retry=PATIENT)
    under_way, never_begun, left_alone = (connection.begin(BEGUN, memoryview(b"ABCD")) for _ in range(3))
    for upload in (under_way, left_alone):
        upload.ready(Span(0, 2))
    assert endpoint.hears(2)  # both streams are open
    connection.close()
    for upload in (under_way, never_begun):
        delivered = Delivered()
        upload.finish(push(), delivered)
        reply, _ = delivered.wait()
        assert isinstance(reply, Refused)
        assert reply.reason == f"shard 1 at {server.address}: the connection was closed"
    too_late, delivered = connection.begin(BEGUN, memoryview(b"ABCD")), Delivered()
    too_late.ready(Span(0, 2))
    too_late.finish(push(), delivered)
    assert isinstance(delivered.wait()[0], Refused)
    threads_end(before | {thread for thread in threading.enumerate() if thread.name.startswith("psgd-rpc-server")})


def test_a_push_that_fails_early_in_an_unforeseen_way_is_sent_nevertheless(
    closing: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = ScriptedEndpoint(b"abcd")
    server = RpcServer(endpoint, key=KEY, host="127.0.0.1", slots=2)
    closing(server)
    connection = RpcConnection(server.address, shard=1, key=KEY, retry=PATIENT)
    closing(connection)
    broke, exchange = threading.Event(), Stub.exchange

    def breaks(*_arguments: Any, **_named: Any) -> NoReturn:
        broke.set()
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Stub, "exchange", breaks)
    upload, delivered = connection.begin(BEGUN, memoryview(b"ABCD")), Delivered()
    upload.ready(Span(0, 2))
    assert broke.wait(PATIENCE_S)
    monkeypatch.setattr(Stub, "exchange", exchange)
    upload.finish(push(), delivered)
    assert delivered.wait()[0] == receipt()


def test_a_push_that_was_withdrawn_leaves_no_thread_behind(closing: Closing) -> None:
    endpoint = ScriptedEndpoint(b"abcd")
    server = RpcServer(endpoint, key=KEY, host="127.0.0.1", slots=2)
    connection = RpcConnection(server.address, shard=1, key=KEY, retry=PATIENT)
    closing(server), closing(connection)
    ask(connection, push(), b"ABCD")  # whatever threads a call leaves
    before = set(threading.enumerate())
    for step in range(1, 4):
        upload, delivered = connection.begin(PushId(Slot(0), FIRST, Step(step)), memoryview(b"ABCD")), Delivered()
        upload.ready(Span(0, 2))
        upload.withdraw()
        upload.finish(push(step=step), delivered)
        assert delivered.wait()[0] == receipt(step)
    own = {thread for thread in threading.enumerate() if thread.name.startswith("psgd-rpc")}
    threads_end(before | own)  # nobody waits for another piece


# ------------------------------------------------------------------ the end


def test_closing_leaves_no_thread(say: Say) -> None:
    _, connection = say(encoded(answers(Inspect())))
    ask(connection, Inspect())
    connection.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("psgd-rpc-1")]


def test_failure_of_whoever_takes_a_reply_is_logged_and_stays_there(say: Say, caplog: pytest.LogCaptureFixture) -> None:
    _, connection = say(encoded(answers(ASK)), encoded(answers(ASK)))
    failed = threading.Event()

    def fail(reply: Reply, payload: memoryview | None) -> None:
        failed.set()
        raise ValueError("the caller's bug")

    connection.submit(ASK, fail)
    assert failed.wait(10)
    assert ask(connection, ASK)[0] == answers(ASK)
    connection.close()
    assert "the caller's bug" in caplog.text
