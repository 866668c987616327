"""The shard's service as a caller sees it; gRPC's own errors end here."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

import grpc

from psgd.errors import PsgdError
from psgd.transport import wire
from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.key import JobKey
from psgd.transport.rpc.auth import metadata_of
from psgd.transport.rpc.channel import CHANNEL_OPTIONS, SERVICE
from psgd.transport.rpc.frames import Frame, frame_of


class CallError(PsgdError):
    """A call has failed.

    Args:
        code: gRPC's status.
        details: what the server, or gRPC itself, says.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code


class Stub:
    """The methods of ``psgd.v1.Shard`` over a channel of its own, which connects when first used.

    Every method blocks, and raises `CallError`, or `PeerError` where the answer is malformed. A deadline of None
    means that only a lost connection, noticed by keepalive, ends the call.

    Args:
        address: the shard's server, ``host:port``.
        key: the job's.
    """

    def __init__(self, address: str, key: JobKey) -> None:
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._metadata = metadata_of(key)

    def call(self, request: shard_pb2.Request, deadline_s: float) -> shard_pb2.Reply:
        """Ask, without bytes either way."""
        method = self._channel.unary_unary(_path("Call"), None, None)
        with _translated_errors():
            answer = method(request.SerializeToString(), timeout=deadline_s, metadata=self._metadata)
        return wire.parse(shard_pb2.Reply, answer)

    def upload(self, method: str, frames: Iterator[bytes], deadline_s: float) -> shard_pb2.Reply:
        """Send a stream of frames."""
        upload = self._channel.stream_unary(_path(method), None, None)
        with _translated_errors():
            answer = upload(frames, timeout=deadline_s, metadata=self._metadata)
        return wire.parse(shard_pb2.Reply, answer)

    def download(
        self, method: str, request: shard_pb2.Request, deadline_s: float | None
    ) -> Generator[Frame, None, None]:
        """Ask for a stream of frames; closing the generator breaks it off."""
        download = self._channel.unary_stream(_path(method), None, None)
        with _translated_errors():
            yield from _frames(download(request.SerializeToString(), timeout=deadline_s, metadata=self._metadata))

    def exchange(self, method: str, frames: Iterator[bytes], deadline_s: float | None) -> Generator[Frame, None, None]:
        """Send a stream of frames, and get one; closing the generator breaks it off."""
        exchange = self._channel.stream_stream(_path(method), None, None)
        with _translated_errors():
            yield from _frames(exchange(frames, timeout=deadline_s, metadata=self._metadata))

    def tell(self, messages: Iterable[shard_pb2.PeerMessage], deadline_s: float) -> None:
        """Send messages from shard to shard."""
        method = self._channel.unary_unary(_path("Tell"), None, None)
        encoded = shard_pb2.Tidings(messages=messages).SerializeToString()
        with _translated_errors():
            method(encoded, timeout=deadline_s, metadata=self._metadata)

    def close(self) -> None:
        """Break off every call."""
        self._channel.close()


def _frames(answer: "grpc.CallIterator[bytes]") -> Generator[Frame, None, None]:
    try:
        for encoded in answer:
            yield frame_of(encoded)
    finally:
        answer.cancel()  # type: ignore[no-untyped-call]  # so in the stubs


def _path(method: str) -> str:
    return f"/{SERVICE}/{method}"


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise CallError(error.code(), error.details() or "no details") from error
    except ValueError as error:  # that is how gRPC says that close() has come first
        raise CallError(grpc.StatusCode.CANCELLED, str(error)) from error
