"""Frames of a stream with tensor bytes: protobuf's wire format, but no tensor byte is ever parsed as a message.

A frame with data is ``TensorFrame(data=…)`` as protobuf would encode it: one byte of tag, the length as a varint, and
the bytes themselves. Written and read by hand, they are copied once.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from psgd.core.layout import Span
from psgd.errors import PeerError
from psgd.transport import wire
from psgd.transport.base import PushId
from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.payload import as_bytes, copy, total_bytes, wrong_size

CHUNK = 2**20
"""Bytes of data in a frame."""

_LENGTH_DELIMITED = 2
_DATA_TAG = shard_pb2.TensorFrame.DATA_FIELD_NUMBER << 3 | _LENGTH_DELIMITED  # 15: the last tag of one byte
_VARINT_BYTES = 5  # lengths below 2^35

Frame = memoryview | shard_pb2.Begin | shard_pb2.At | shard_pb2.Request | shard_pb2.Reply


def begin_frame(size: int, push: PushId | None = None) -> bytes:
    """Announce ``size`` bytes of data."""
    identity = None if push is None else wire.push_id_message(push)
    return shard_pb2.TensorFrame(begin=shard_pb2.Begin(size=size, push=identity)).SerializeToString()


def at_frame(piece: Span) -> bytes:
    """The next data is this piece."""
    return shard_pb2.TensorFrame(at=shard_pb2.At(offset=piece.start, size=piece.bytes)).SerializeToString()


def request_frame(request: shard_pb2.Request) -> bytes:
    """A request within a stream."""
    return shard_pb2.TensorFrame(request=request).SerializeToString()


def reply_frame(reply: shard_pb2.Reply) -> bytes:
    """A reply within a stream."""
    return shard_pb2.TensorFrame(reply=reply).SerializeToString()


def data_frames(payload: memoryview) -> Iterator[bytes]:
    """The payload in chunks, each copied once, into its frame."""
    for start in range(0, payload.nbytes, CHUNK):
        chunk = payload[start : start + CHUNK]
        yield b"".join((_data_prefix(chunk.nbytes), chunk))


def frame_of(encoded: bytes) -> Frame:
    """What a frame holds; data is a view of ``encoded``.

    Raises:
        PeerError: if it is no frame, or holds nothing that this version knows.
    """
    data = _data_of(encoded)
    if data is not None:
        return data
    frame = wire.parse(shard_pb2.TensorFrame, encoded)
    match frame.WhichOneof("frame"):
        case "begin":
            return frame.begin
        case "at":
            return frame.at
        case "request":
            return frame.request
        case "reply":
            return frame.reply
        case "data":  # a length that is not in its shortest form, or a field repeated
            return memoryview(frame.data)
        case _:
            raise PeerError("a TensorFrame without anything that this version knows")


class Patchwork:
    """Memory that is covered piece by piece, in any order, each byte once.

    Args:
        kind: the message whose payload it is.
        target: as many bytes as are expected.
    """

    def __init__(self, kind: type, target: memoryview) -> None:
        self._kind = kind
        self._target = target
        self._spans: list[Span] = [Span(0, 0)]

    def move(self, offset: int) -> None:
        """What follows belongs here."""
        self._spans.append(Span(offset, offset))

    def add(self, chunk: memoryview) -> Span:
        """Put the chunk where it belongs.

        Returns:
            The bytes that are covered since the last move.

        Raises:
            PeerError: if there is no room for it.
        """
        before = self._spans[-1]
        end = before.stop + chunk.nbytes
        if end > self._target.nbytes:
            raise PeerError(
                f"the payload of {self._kind.__name__} has {end} bytes or more, expected {self._target.nbytes}"
            )
        copy(self._target[before.stop : end], chunk)
        self._spans[-1] = Span(before.start, end)
        return self._spans[-1]

    def finish(self) -> None:
        """There are no more chunks.

        Raises:
            PeerError: if bytes are missing, or came twice.
        """
        reached = 0
        for span in sorted((span for span in self._spans if span.bytes), key=lambda span: span.start):
            if span.start < reached:
                raise PeerError(f"bytes {span.start} to {reached} of a {self._kind.__name__} came twice")
            if span.start > reached:
                break
            reached = span.stop
        if reached != self._target.nbytes:
            raise PeerError(wrong_size(self._kind, sum(span.bytes for span in self._spans), self._target.nbytes))


class Filling:
    """Memory that fills up chunk by chunk, to the last byte and not beyond.

    Args:
        kind: the message whose payload it is.
        targets: pieces to be filled one after another, as many bytes as are expected.
    """

    def __init__(self, kind: type, targets: Sequence[memoryview]) -> None:
        self._kind = kind
        self._expected = total_bytes(targets)
        self._room = deque(as_bytes(target) for target in targets)
        self._filled = 0

    def add(self, chunk: memoryview) -> None:
        """Put the chunk behind the ones before.

        Raises:
            PeerError: if there is no room for it.
        """
        self._filled += chunk.nbytes
        if self._filled > self._expected:
            raise PeerError(
                f"the payload of {self._kind.__name__} has {self._filled} bytes or more, expected {self._expected}"
            )
        while chunk.nbytes:
            target = self._room.popleft()
            fits = min(chunk.nbytes, target.nbytes)
            copy(target[:fits], chunk[:fits])
            chunk = chunk[fits:]
            if fits < target.nbytes:
                self._room.appendleft(target[fits:])

    def finish(self) -> None:
        """There are no more chunks.

        Raises:
            PeerError: if bytes are missing.
        """
        if self._filled != self._expected:
            raise PeerError(wrong_size(self._kind, self._filled, self._expected))


def _data_prefix(length: int) -> bytes:
    prefix = bytearray((_DATA_TAG,))
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix)


def _data_of(encoded: bytes) -> memoryview | None:
    """The data of a frame that is nothing but data; None for all others, which protobuf may judge."""
    if not encoded or encoded[0] != _DATA_TAG:
        return None
    length = 0
    for position, byte in enumerate(encoded[1 : 1 + _VARINT_BYTES]):
        length |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            data = memoryview(encoded)[position + 2 :]
            return data if data.nbytes == length else None
    return None
