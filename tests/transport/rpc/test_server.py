import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from psgd.core.ids import Incarnation, Shard, Slot, Step
from psgd.core.messages import Confirm, Load, Push, Receipt, Refused
from psgd.errors import ResourceError
from psgd.transport import wire
from psgd.transport.base import PushId
from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.generated.psgd.v1.shard_pb2_grpc import ShardStub
from psgd.transport.key import JobKey
from psgd.transport.rpc import RpcConnection, RpcPeerLink, RpcServer
from psgd.transport.rpc.auth import metadata_of
from psgd.transport.rpc.channel import SERVICE
from psgd.transport.rpc.frames import CHUNK
from psgd.transport.wire import OperationId
from tests.transport.scripted import PATIENCE_S, ScriptedEndpoint, answers, ask, pull, push, receipt

KEY = JobKey("job-1", "a secret")
SHOWN = metadata_of(KEY)
SLOTS = 2
OPERATION = OperationId(caller=12, sequence=34)
GRADIENT = b"gradient"
TensorFrame = shard_pb2.TensorFrame
Health = health_pb2.HealthCheckResponse

Serve = Callable[..., RpcServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers = []

    def start(endpoint: ScriptedEndpoint, **options: Any) -> RpcServer:
        servers.append(RpcServer(endpoint, key=KEY, host="127.0.0.1", slots=SLOTS, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def channel() -> Iterator[Callable[[RpcServer], grpc.Channel]]:
    channels = []

    def open_(server: RpcServer) -> grpc.Channel:
        channels.append(grpc.insecure_channel(server.address))
        return channels[-1]

    yield open_
    for each in channels:
        each.close()


Open = Callable[[RpcServer], grpc.Channel]


def request(message: Any, operation: OperationId = OPERATION) -> shard_pb2.Request:
    return wire.request_message(operation, message)


def upload(message: Any = None, pieces: Iterable[bytes] = (GRADIENT,), size: int | None = None) -> list[TensorFrame]:
    """What a client in another language sends, made by protobuf alone."""
    pieces = list(pieces)
    announced = sum(map(len, pieces)) if size is None else size
    data = [TensorFrame(data=piece) for piece in pieces]
    final = TensorFrame(request=request(push() if message is None else message))
    return [TensorFrame(begin=shard_pb2.Begin(size=announced)), *data, final]


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code(), raised.value.details() or ""


# ------------------------------------------------------------------ the wire contract


def test_client_generated_from_the_contract_pushes_and_pulls(serve: Serve, channel: Open) -> None:
    weights = bytes(range(256)) * 8192  # two chunks
    endpoint = ScriptedEndpoint(weights)
    stub = ShardStub(channel(serve(endpoint)))
    half = len(weights) // 2
    gradient = [weights[half:], weights[:half]]
    [answer] = stub.Push(iter(upload(push(), gradient)), metadata=SHOWN)
    assert wire.reply_of(answer.reply) == receipt()
    head, begin, *data = stub.Pull(request(pull()), metadata=SHOWN)
    assert wire.reply_of(head.reply) == answers(pull())
    assert begin.begin.size == len(weights)
    assert [len(frame.data) for frame in data] == [CHUNK, CHUNK]
    assert b"".join(frame.data for frame in data) == weights
    assert endpoint.arrivals[0].payload == b"".join(gradient)


# ------------------------------------------------------------------ who may call


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ((), grpc.StatusCode.UNAUTHENTICATED),
        ((("psgd-job", "job-1"),), grpc.StatusCode.UNAUTHENTICATED),
        ((("psgd-job", "job-1"), ("psgd-token", "a secreT")), grpc.StatusCode.UNAUTHENTICATED),
        ((("psgd-job", "job-1"), ("psgd-token", "")), grpc.StatusCode.UNAUTHENTICATED),
        ((("psgd-job", "job-2"), ("psgd-token", "a secret")), grpc.StatusCode.FAILED_PRECONDITION),
        ((("psgd-token", "a secret"),), grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
@pytest.mark.parametrize("method", ["Call", "Push", "Load", "Pull", "Read", "Tell", "Unheard"])
def test_only_who_holds_the_jobs_token_is_heard(
    serve: Serve, channel: Open, method: str, metadata: tuple[tuple[str, str], ...], code: grpc.StatusCode
) -> None:
    endpoint = ScriptedEndpoint(GRADIENT)
    call = channel(serve(endpoint)).stream_stream(f"/{SERVICE}/{method}", None, None)
    frames = (frame.SerializeToString() for frame in upload())
    assert refused(lambda: list(call(frames, metadata=metadata)))[0] is code
    assert endpoint.arrivals == []


def test_refusal_names_what_is_missing_but_not_the_secret(serve: Serve) -> None:
    server = serve(ScriptedEndpoint(GRADIENT))
    for key, line in (
        (JobKey("job-1", "a guess"), "UNAUTHENTICATED: a call without the token of job job-1"),
        (JobKey("job-2", "a secret"), "FAILED_PRECONDITION: a call of job 'job-2' at a shard of job 'job-1'"),
    ):
        connection = RpcConnection(server.address, shard=3, key=key)
        reply, _ = ask(connection, push(), GRADIENT)
        connection.close()
        assert isinstance(reply, Refused)
        assert reply.reason.startswith(f"shard 3 at {server.address}: {line}")
        assert "secret" not in reply.reason


def test_health_says_serving_once_the_weights_are_loaded(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(GRADIENT, answer=lambda request: None)
    server = serve(endpoint)
    stub = health_pb2_grpc.HealthStub(channel(server))

    def health() -> list[int]:
        return [stub.Check(health_pb2.HealthCheckRequest(service=name)).status for name in ("", SERVICE)]

    assert health() == [Health.NOT_SERVING, Health.NOT_SERVING]
    load = ShardStub(channel(server)).Load.future(iter(upload(Load())), metadata=SHOWN)
    arrival = endpoint.next_arrival()
    assert health() == [Health.NOT_SERVING, Health.NOT_SERVING]
    arrival.deliver(answers(Load()), None)
    load.result()
    assert health() == [Health.SERVING, Health.SERVING]


def test_watching_the_health_needs_the_token(serve: Serve, channel: Open) -> None:
    stub = health_pb2_grpc.HealthStub(channel(serve(ScriptedEndpoint())))
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert refused(lambda: next(watch))[0] is grpc.StatusCode.UNAUTHENTICATED


def test_reflection_describes_the_service_to_who_holds_the_token(serve: Serve, channel: Open) -> None:
    opened = channel(serve(ScriptedEndpoint()))
    with pytest.raises(grpc.RpcError):
        ProtoReflectionDescriptorDatabase(opened).get_services()
    shown = grpc.intercept_channel(opened, Showing())
    services = ProtoReflectionDescriptorDatabase(shown).get_services()
    assert SERVICE in services
    described = ProtoReflectionDescriptorDatabase(shown).FindFileContainingSymbol(SERVICE)
    assert [method.name for method in described.service[0].method] == ["Call", "Push", "Load", "Pull", "Read", "Tell"]


class Showing(grpc.StreamStreamClientInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Shows the token in every call."""

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        client_call_details = client_call_details._replace(metadata=SHOWN)
        return continuation(client_call_details, request_iterator)


# ------------------------------------------------------------------ what is refused


def frames_of(*frames: TensorFrame) -> list[bytes]:
    return [frame.SerializeToString() for frame in frames]


MALFORMED_UPLOADS = {
    "nothing": ([], "a Push has to begin with the size"),
    "garbage": ([b"\xff\xff"], "protobuf can not parse these 2 bytes as TensorFrame"),
    "no case": ([b""], "a TensorFrame without anything"),
    "no size": (frames_of(*upload()[1:]), "a Push has to begin with the size"),
    "another size": (frames_of(*upload(size=2**50)), f"Push has {2**50} bytes, expected 8"),
    "fewer bytes": (frames_of(*upload(pieces=[b"grad"], size=8)), "Push has 4 bytes, expected 8"),
    "more bytes": (frames_of(*upload(pieces=[GRADIENT, b"x"], size=8)), "Push has 9 bytes or more, expected 8"),
    "size twice": (frames_of(upload()[0], upload()[0]), "expected data or a request"),
    "no end": (frames_of(*upload()[:-1]), "a Push that ends without its final message"),
    "torn data": ([frames_of(*upload())[0], b"\x7a\x09gradient"], "protobuf can not parse"),
    "another request": (frames_of(*upload(Load())), "expected a Push behind its bytes, got a Load"),
    "no request": (frames_of(*upload()[:-1], TensorFrame(request=shard_pb2.Request())), "without a request"),
    "foreign slot": (frames_of(*upload(push(slot=2))), "slot 2 is none of this job, which has 2: 0 … 1"),
}


@pytest.mark.parametrize(("frames", "line"), MALFORMED_UPLOADS.values(), ids=MALFORMED_UPLOADS)
def test_malformed_push_is_refused_and_changes_nothing(
    serve: Serve, channel: Open, frames: list[bytes], line: str
) -> None:
    endpoint = ScriptedEndpoint(GRADIENT)
    opened = channel(serve(endpoint))
    stream = opened.stream_stream(f"/{SERVICE}/Push", None, None)
    code, details = refused(lambda: list(stream(iter(frames), metadata=SHOWN)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert line in details
    assert endpoint.arrivals == []
    [answer] = ShardStub(opened).Push(iter(upload()), metadata=SHOWN)
    assert wire.reply_of(answer.reply) == receipt()


@pytest.mark.parametrize(
    ("method", "encoded", "line"),
    [
        ("Call", b"\xff", "can not parse these 1 bytes as Request"),
        ("Call", b"", "a Request without a request"),
        ("Call", request(pull()).SerializeToString(), "Pull has a method of its own"),
        ("Call", request(push(slot=7)).SerializeToString(), "slot 7 is none of this job"),
        ("Pull", request(push()).SerializeToString(), "expected a Pull, got a Push"),
        ("Read", request(pull()).SerializeToString(), "expected a Read, got a Pull"),
        ("Tell", b"\xff", "can not parse these 1 bytes as Tidings"),
        ("Tell", shard_pb2.Tidings(messages=[shard_pb2.PeerMessage()]).SerializeToString(), "without a message"),
    ],
)
def test_malformed_call_is_refused_and_changes_nothing(
    serve: Serve, channel: Open, method: str, encoded: bytes, line: str
) -> None:
    endpoint = ScriptedEndpoint(GRADIENT)
    call = channel(serve(endpoint)).unary_stream(f"/{SERVICE}/{method}", None, None)
    code, details = refused(lambda: list(call(encoded, metadata=SHOWN)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert line in details
    assert endpoint.arrivals == []


def test_tidings_are_taken_whole_or_not_at_all(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint()
    confirm = shard_pb2.PeerMessage(confirm=shard_pb2.Confirm(shard=1))
    tidings = shard_pb2.Tidings(messages=[confirm, shard_pb2.PeerMessage()])
    stub = ShardStub(channel(serve(endpoint)))
    assert refused(lambda: stub.Tell(tidings, metadata=SHOWN))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert endpoint.arrivals == []


def test_frame_beyond_the_limit_is_refused(serve: Serve, channel: Open) -> None:
    gradient = bytes(2 * CHUNK)
    endpoint = ScriptedEndpoint(gradient)
    stub = ShardStub(channel(serve(endpoint)))
    code, _ = refused(lambda: list(stub.Push(iter(upload(pieces=[gradient])), metadata=SHOWN)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert endpoint.arrivals == []


def test_oversized_metadata_are_refused(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(GRADIENT)
    stub = ShardStub(channel(serve(endpoint)))
    metadata = (*SHOWN, ("psgd-more", "x" * 16384))
    assert refused(lambda: list(stub.Push(iter(upload()), metadata=metadata)))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert endpoint.arrivals == []


# ------------------------------------------------------------------ pushes that begin before they are computed

ANNOUNCED = shard_pb2.PushId(slot=1, incarnation=5, step=7)


def early(
    pieces: Iterable[tuple[int, bytes]], push_id: shard_pb2.PushId | None = ANNOUNCED, size: int = 8
) -> list[TensorFrame]:
    """What a client sends that lets bytes leave as they become final."""
    frames = [TensorFrame(begin=shard_pb2.Begin(size=size, push=push_id))]
    for offset, data in pieces:
        frames += [TensorFrame(at=shard_pb2.At(offset=offset, size=len(data))), TensorFrame(data=data)]
    return [*frames, TensorFrame(request=request(push(slot=1, step=7)))]


def test_bytes_in_any_order_are_the_pushs_and_the_shard_hears_of_them_as_they_come(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(GRADIENT)
    stub = ShardStub(channel(serve(endpoint)))
    frames = early([(4, b"ie"), (6, b"nt"), (0, b"grad")])
    [answer] = stub.Push(iter(frames), metadata=SHOWN)
    assert wire.reply_of(answer.reply) == receipt(step=7)
    assert [arrival.payload for arrival in endpoint.arrivals] == [GRADIENT]
    expected = PushId(Slot(1), Incarnation(5), Step(7))
    assert endpoint.prepared == [(expected, (4, 6), b"ie"), (expected, (6, 8), b"nt"), (expected, (0, 4), b"grad")]


def test_chunks_of_one_piece_are_heard_of_together(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(GRADIENT)
    stub = ShardStub(channel(serve(endpoint)))
    begin, at, _, *rest = early([(0, b"grad"), (4, b"ient")])
    frames = [begin, at, TensorFrame(data=b"gra"), TensorFrame(data=b"d"), *rest]
    list(stub.Push(iter(frames), metadata=SHOWN))
    assert [(span, content) for _, span, content in endpoint.prepared] == [((0, 4), b"grad"), ((4, 8), b"ient")]


def test_the_shard_hears_of_a_piece_as_soon_as_it_is_whole(serve: Serve, channel: Open) -> None:
    endpoint, more = ScriptedEndpoint(GRADIENT), threading.Event()
    begin, at, _, *rest = early([(0, b"grad"), (4, b"ient")])

    def frames() -> Iterator[TensorFrame]:
        yield from (begin, at, TensorFrame(data=b"grad"))
        assert more.wait(PATIENCE_S)
        yield from rest

    answers = ShardStub(channel(serve(endpoint))).Push(frames(), metadata=SHOWN)
    assert endpoint.hears(1)
    more.set()
    list(answers)


def test_of_a_push_that_is_not_announced_the_shard_hears_in_the_end(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(GRADIENT)
    stub = ShardStub(channel(serve(endpoint)))
    [answer] = stub.Push(iter(early([(4, b"ient"), (0, b"grad")], push_id=None)), metadata=SHOWN)
    assert wire.reply_of(answer.reply) == receipt(step=7)
    assert endpoint.prepared == []


@pytest.mark.parametrize(
    ("frames", "line"),
    [
        (early([(0, b"grad"), (5, b"ent")]), "Push has 7 bytes, expected 8"),
        (early([(0, b"gradi"), (4, b"ient")]), "bytes 4 to 5 of a Push came twice"),
        (early([(6, b"ient")]), "Push has 10 bytes or more, expected 8"),
        (early([(2**62, b"x")]), f"Push has {2**62 + 1} bytes or more, expected 8"),
        (early([(0, GRADIENT)], shard_pb2.PushId(slot=2)), "slot 2 is none of this job, which has 2: 0 … 1"),
        (early([(0, GRADIENT)], size=2**50), f"Push has {2**50} bytes, expected 8"),
        (early([(0, GRADIENT)])[:-1], "a Push that ends without its final message"),
    ],
    ids=["gap", "overlap", "beyond", "far beyond", "foreign slot", "another size", "no end"],
)
def test_malformed_pieces_are_refused_and_no_push_comes_of_them(
    serve: Serve, channel: Open, frames: list[TensorFrame], line: str
) -> None:
    endpoint = ScriptedEndpoint(GRADIENT)
    stub = ShardStub(channel(serve(endpoint)))
    code, details = refused(lambda: list(stub.Push(iter(frames), metadata=SHOWN)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert line in details
    assert endpoint.arrivals == []
    [answer] = stub.Push(iter(early([(0, GRADIENT)])), metadata=SHOWN)
    assert wire.reply_of(answer.reply) == receipt(step=7)


def test_a_foreign_slot_is_refused_before_the_shard_hears_of_its_bytes(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(GRADIENT)
    stub = ShardStub(channel(serve(endpoint)))
    frames = early([(0, b"grad"), (4, b"ient")], shard_pb2.PushId(slot=9))
    refused(lambda: list(stub.Push(iter(frames), metadata=SHOWN)))
    assert endpoint.prepared == []


# ------------------------------------------------------------------ uploads that break off


def hanging(sent: threading.Event, end: threading.Event) -> Iterator[TensorFrame]:
    """An upload that stops in the middle."""
    begin, data, _ = upload()
    yield begin
    yield TensorFrame(data=data.data[:4])
    sent.set()
    end.wait(PATIENCE_S)


def test_uploads_that_break_off_leave_nothing(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(GRADIENT)
    server = serve(endpoint)
    stub = ShardStub(channel(server))
    for _ in range(SLOTS + 2):  # more than there may be at a time
        sent, end = threading.Event(), threading.Event()
        call = stub.Push(hanging(sent, end), metadata=SHOWN)
        assert sent.wait(PATIENCE_S)
        call.cancel()  # type: ignore[no-untyped-call]  # so in the stubs
        end.set()
    connection = RpcConnection(server.address, shard=0, key=KEY)
    reply, _ = ask(connection, push(), GRADIENT)
    connection.close()
    assert reply == receipt()
    assert [(each.request, each.payload) for each in endpoint.arrivals] == [(push(), GRADIENT)]


def test_no_more_than_a_jobs_uploads_are_taken_at_a_time(serve: Serve, channel: Open) -> None:
    stub = ShardStub(channel(serve(ScriptedEndpoint(GRADIENT))))
    end = threading.Event()
    over: queue.SimpleQueue[Any] = queue.SimpleQueue()
    under_way = {stub.Push(hanging(threading.Event(), end), metadata=SHOWN) for _ in range(SLOTS + 2)}
    for call in under_way:
        if not call.add_callback(partial(over.put, call)):  # it is over already
            over.put(call)
    one_too_many = over.get(timeout=PATIENCE_S)
    assert one_too_many.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert one_too_many.details() == "3 uploads are under way, as many as a job of 2 slots needs"
    assert all(call.is_active() for call in under_way - {one_too_many})
    end.set()


# ------------------------------------------------------------------ decisions that take their time


def test_undecided_push_is_answered_pending_and_then_asked_after_without_its_bytes(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(GRADIENT, answer=lambda request: None)
    stub = ShardStub(channel(serve(endpoint, park_s=0.01)))
    assert next(iter(stub.Push(iter(upload()), metadata=SHOWN))).reply.HasField("pending")
    assert stub.Call(request(push()), metadata=SHOWN).HasField("pending")
    again = stub.Push(iter(upload()), metadata=SHOWN)  # in full: attaches as well
    assert next(iter(again)).reply.HasField("pending")
    endpoint.next_arrival().deliver(receipt(version=8), None)
    for _ in range(2):
        reply = wire.reply_of(stub.Call(request(push()), metadata=SHOWN))
        assert isinstance(reply, Receipt)
        assert reply.version == 8
    assert [(each.request, each.payload) for each in endpoint.arrivals] == [(push(), GRADIENT)]


def test_undecided_pull_is_answered_pending_and_then_read_once(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(b"weights", answer=lambda request: None)
    stub = ShardStub(channel(serve(endpoint, park_s=0.01)))
    [frame] = stub.Pull(request(pull()), metadata=SHOWN)
    assert frame.reply.HasField("pending")
    endpoint.next_arrival().deliver(answers(pull()), memoryview(b"WEIGHTS"))
    head, begin, data = stub.Pull(request(pull()), metadata=SHOWN)
    assert (wire.reply_of(head.reply), begin.begin.size, data.data) == (answers(pull()), 7, b"WEIGHTS")
    assert len(endpoint.arrivals) == 1


def test_weights_that_were_sent_are_not_kept(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(b"weights")
    stub = ShardStub(channel(serve(endpoint)))
    for _ in range(2):
        list(stub.Pull(request(pull()), metadata=SHOWN))
    assert len(endpoint.arrivals) == 2


RENEWED = replace(receipt(version=8), renewed=True)


def test_weights_come_with_the_receipt_of_a_push_that_renews_them(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(GRADIENT, answer=lambda request: None)
    stub = ShardStub(channel(serve(endpoint)))
    call = stub.Push(iter(upload(replace(push(), renew=True))), metadata=SHOWN)
    endpoint.next_arrival().deliver(RENEWED, memoryview(b"weights!"))
    head, begin, data = call
    assert (wire.reply_of(head.reply), begin.begin.size, data.data) == (RENEWED, 8, b"weights!")
    repeat = wire.reply_of(stub.Call(request(push()), metadata=SHOWN))
    assert repeat == replace(RENEWED, renewed=False)  # they are not kept, and the reply says so


@pytest.mark.parametrize(("stand", "expected"), [(True, b"CHANGED!"), (False, b"weights!")])
def test_weights_that_stand_are_sent_from_where_they_are(
    serve: Serve, channel: Open, stand: bool, expected: bytes
) -> None:
    weights = bytearray(b"weights!")
    endpoint = ScriptedEndpoint(GRADIENT, answer=lambda request: None)
    stub = ShardStub(channel(serve(endpoint, weights_stand=stand, park_s=0.01)))
    [frame] = stub.Pull(request(pull()), metadata=SHOWN)
    assert frame.reply.HasField("pending")
    endpoint.next_arrival().deliver(answers(pull()), memoryview(weights))
    weights[:] = b"CHANGED!"
    _, _, data = stub.Pull(request(pull()), metadata=SHOWN)
    assert data.data == expected


@pytest.mark.parametrize("message", [push(), Load()])
def test_upload_that_the_shard_does_not_know_is_asked_for(serve: Serve, channel: Open, message: Push | Load) -> None:
    endpoint = ScriptedEndpoint(GRADIENT)
    stub = ShardStub(channel(serve(endpoint)))
    code, details = refused(lambda: stub.Call(request(message), metadata=SHOWN))
    assert code is grpc.StatusCode.NOT_FOUND
    assert details == f"the shard does not have this {type(message).__name__}: send it with its bytes"
    assert endpoint.arrivals == []


def test_answer_comes_before_the_callers_deadline(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(GRADIENT, answer=lambda request: None)
    stub = ShardStub(channel(serve(endpoint, park_s=60.0)))
    [answer] = stub.Push(iter(upload()), metadata=SHOWN, timeout=1.0)
    assert answer.reply.HasField("pending")


# ------------------------------------------------------------------ the end


def test_closing_wakes_parked_calls_and_leaves_nothing(serve: Serve, channel: Open) -> None:
    endpoint = ScriptedEndpoint(GRADIENT, answer=lambda request: None)
    server = serve(endpoint, park_s=60.0)
    call = ShardStub(channel(server)).Push(iter(upload()), metadata=SHOWN)
    endpoint.next_arrival()
    began = time.monotonic()
    server.close()
    assert time.monotonic() - began < 10
    assert refused(lambda: list(call))[0] is grpc.StatusCode.UNAVAILABLE
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("psgd-rpc-server")]
    host, port = server.address.rsplit(":", 1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_closing_both_ends_leaves_no_socket(serve: Serve) -> None:
    server = serve(ScriptedEndpoint(GRADIENT))
    connection = RpcConnection(server.address, shard=0, key=KEY)
    link = RpcPeerLink({0: server.address}, key=KEY)
    ask(connection, push(), GRADIENT)
    link.tell(0, Confirm(Shard(1), Step(0)))
    port = int(server.address.rsplit(":", 1)[1])
    assert ports_in_use() >= {port}
    for end in (connection, link, server):
        end.close()
    deadline = time.monotonic() + PATIENCE_S
    while port in ports_in_use() and time.monotonic() < deadline:
        time.sleep(0.01)  # gRPC closes its sockets in threads of its own, and tells nobody when
    assert port not in ports_in_use()


def ports_in_use() -> set[int]:
    """The TCP ports, ours and the other ends', of this process's sockets."""
    connections = psutil.Process().net_connections("tcp")
    return {end.port for each in connections for end in (each.laddr, each.raddr) if end}


def test_host_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"can not listen on 192\.0\.2\.1: .*pass an address of this host"):
        RpcServer(ScriptedEndpoint(), key=KEY, host="192.0.2.1", slots=1)


def test_ipv6_addresses_are_written_in_brackets() -> None:
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    try:
        server = RpcServer(ScriptedEndpoint(), key=KEY, host="::1", slots=1)
    except ResourceError:
        pytest.skip("needs an IPv6 loopback")
    server.close()
    assert server.address.startswith("[::1]:")
