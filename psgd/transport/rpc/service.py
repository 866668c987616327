"""The shard's service: a handler's thread reads the request, submits it, waits a while, and answers."""

from collections.abc import Callable, Iterator
from itertools import chain
from threading import BoundedSemaphore
from typing import TypeVar

import grpc

from psgd.core.messages import Load, Pending, Pull, Push, Read, Reply
from psgd.errors import PeerError
from psgd.transport import wire
from psgd.transport.base import Endpoint, PushId, nobody_waits
from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.payload import expected_bytes, wrong_size
from psgd.transport.rpc.channel import SERVICE
from psgd.transport.rpc.frames import Patchwork, begin_frame, data_frames, frame_of, reply_frame
from psgd.transport.rpc.operations import Operation, Operations, Outcome, bare
from psgd.transport.staging import Staging
from psgd.transport.wire import CallerRequest, OperationId

Received = TypeVar("Received")
Answered = TypeVar("Answered")


class ShardService:
    """The methods of ``psgd.v1.Shard``, on encoded messages.

    Args:
        endpoint: the shard.
        operations: what it has been asked so far.
        staging: where uploads are gathered.
        slots: of the job; at most one more stream than that uploads at the same time.
        park_s: how long a handler waits for the endpoint's decision before it answers `Pending`.
    """

    def __init__(self, endpoint: Endpoint, operations: Operations, staging: Staging, slots: int, park_s: float) -> None:
        self._endpoint = endpoint
        self._operations = operations
        self._staging = staging
        self._slots = slots
        self._park_s = park_s
        self._uploads = BoundedSemaphore(slots + 1)  # so staging takes slots × slice, whoever comes

    def handler(self) -> "grpc.GenericRpcHandler[bytes, bytes]":
        """What a gRPC server needs to serve these methods."""
        unary, streamed = grpc.unary_unary_rpc_method_handler, grpc.stream_unary_rpc_method_handler
        download = grpc.unary_stream_rpc_method_handler
        methods = {
            "Call": unary(_refusing_malformed(self._call)),
            "Push": grpc.stream_stream_rpc_method_handler(_refusing_malformed(self._push)),
            "Load": streamed(_refusing_malformed(self._load)),
            "Pull": download(_refusing_malformed(self._pull)),
            "Read": download(_refusing_malformed(self._read)),
            "Tell": unary(_refusing_malformed(self._tell)),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _call(self, encoded: bytes, context: grpc.ServicerContext) -> bytes:
        identity, request = self._checked(wire.parse(shard_pb2.Request, encoded))
        match request:
            case Pull() | Read():
                raise PeerError(f"{type(request).__name__} has a method of its own, for its reply's bytes")
            case Push() | Load():
                operation = self._operations.known(identity, request)
                if operation is None:
                    line = f"the shard does not have this {type(request).__name__}: send it with its bytes"
                    context.abort(grpc.StatusCode.NOT_FOUND, line)
            case _:
                operation = self._operations.begin(identity, request)
        return self._answer(operation, context)

    def _push(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        operation = self._upload(Push, frames, context)
        outcome = self._outcome(operation, context)
        operation.shed()
        return iter((_PENDING,)) if outcome is None else _stream(outcome)

    def _load(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return self._answer(self._upload(Load, frames, context), context)

    def _pull(self, encoded: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        return self._download(Pull, encoded, context)

    def _read(self, encoded: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        return self._download(Read, encoded, context)

    def _tell(self, encoded: bytes, _context: grpc.ServicerContext) -> bytes:
        envelopes = wire.parse(shard_pb2.Tidings, encoded).messages
        for message in [wire.peer_message_of(envelope) for envelope in envelopes]:
            self._endpoint.submit(message, nobody_waits)
        return shard_pb2.Done().SerializeToString()

    # ------------------------------------------------------------------ bytes

    def _upload(
        self, kind: type[Push] | type[Load], frames: Iterator[bytes], context: grpc.ServicerContext
    ) -> Operation:
        if not self._uploads.acquire(blocking=False):
            line = f"{self._slots + 1} uploads are under way, as many as a job of {self._slots} slots needs"
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, line)
        try:
            message, payload = self._receive(kind, frames)
        finally:
            self._uploads.release()
        identity, request = self._checked(message)
        if not isinstance(request, kind):
            raise PeerError(f"expected a {kind.__name__} behind its bytes, got a {type(request).__name__}")
        return self._operations.begin(identity, request, payload)

    def _receive(self, kind: type[Push] | type[Load], frames: Iterator[bytes]) -> tuple[shard_pb2.Request, memoryview]:
        """Take the bytes and the final message behind them; nothing is allocated before their size is right."""
        expected = expected_bytes(self._endpoint, kind)
        contents = map(frame_of, frames)
        begin = next(contents, None)
        if not isinstance(begin, shard_pb2.Begin):
            raise PeerError(f"a {kind.__name__} has to begin with the size of its bytes")
        if begin.size != expected:
            raise PeerError(wrong_size(kind, begin.size, expected))
        payload = self._staging.take(expected)
        patchwork = Patchwork(kind, payload)
        push, size = self._announced(begin), 0
        for frame in contents:
            match frame:
                case memoryview():
                    done = patchwork.add(frame)
                    if push is not None and done.bytes == size:
                        self._endpoint.prepare(push, payload, done)
                case shard_pb2.At():
                    patchwork.move(frame.offset)
                    size = frame.size
                case shard_pb2.Request():
                    patchwork.finish()
                    return frame, payload
                case _:
                    raise PeerError(f"expected data or a request within a {kind.__name__}, got neither")
        raise PeerError(f"a {kind.__name__} that ends without its final message")

    def _announced(self, begin: shard_pb2.Begin) -> PushId | None:
        """Which push it is, where it has begun before it was computed."""
        if not begin.HasField("push"):
            return None
        push = wire.push_id_of(begin.push)
        wire.check_slot(push.slot, self._slots)
        return push

    def _download(
        self, kind: type[Pull] | type[Read], encoded: bytes, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        identity, request = self._checked(wire.parse(shard_pb2.Request, encoded))
        if not isinstance(request, kind):
            raise PeerError(f"expected a {kind.__name__}, got a {type(request).__name__}")
        operation = self._operations.begin(identity, request)
        outcome = self._outcome(operation, context)
        if outcome is None:
            return iter((_PENDING,))
        self._operations.forget(operation, request)
        return _stream(outcome)

    # ------------------------------------------------------------------ decisions

    def _checked(self, message: shard_pb2.Request) -> tuple[OperationId, CallerRequest]:
        identity, request = wire.request_of(message)
        wire.check_slot(getattr(request, "slot", 0), self._slots)
        return identity, request

    def _answer(self, operation: Operation, context: grpc.ServicerContext) -> bytes:
        outcome = self._outcome(operation, context)
        reply: Reply = Pending() if outcome is None else bare(outcome.reply)
        return wire.reply_message(reply).SerializeToString()

    def _outcome(self, operation: Operation, context: grpc.ServicerContext) -> Outcome | None:
        # Half of what the caller still waits, so that the answer reaches it in time.
        remaining = context.time_remaining()  # None: the call began before anybody knew how long it would take
        return operation.wait(self._park_s if remaining is None else min(self._park_s, remaining / 2))


_PENDING = reply_frame(wire.reply_message(Pending()))


def _stream(outcome: Outcome) -> Iterator[bytes]:
    """A reply and its bytes, if it has any."""
    head = reply_frame(wire.reply_message(outcome.reply))
    if not outcome.payload.nbytes:
        return iter((head,))
    return chain((head, begin_frame(outcome.payload.nbytes)), data_frames(outcome.payload))


def _refusing_malformed(
    behave: Callable[[Received, grpc.ServicerContext], Answered],
) -> Callable[[Received, grpc.ServicerContext], Answered]:
    """Answer a malformed message with INVALID_ARGUMENT and the reason."""

    def handle(received: Received, context: grpc.ServicerContext) -> Answered:
        try:
            return behave(received, context)
        except PeerError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    return handle
