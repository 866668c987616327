import pytest
from hypothesis import given
from hypothesis import strategies as st

from psgd.core.ids import Incarnation, Slot, Step
from psgd.core.layout import Span
from psgd.core.messages import Push
from psgd.errors import PeerError
from psgd.transport.base import PushId
from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.rpc.frames import (
    CHUNK,
    Filling,
    Patchwork,
    at_frame,
    begin_frame,
    data_frames,
    frame_of,
    reply_frame,
    request_frame,
)

TensorFrame = shard_pb2.TensorFrame
EDGES_OF_VARINTS = [1, 127, 128, 2**14 - 1, 2**14, CHUNK - 1, CHUNK]


@pytest.mark.parametrize("size", EDGES_OF_VARINTS)
def test_handmade_frame_is_what_protobuf_makes(size: int) -> None:
    data = b"\x5a" * size
    [frame] = data_frames(memoryview(data))
    assert frame == TensorFrame(data=data).SerializeToString()
    assert TensorFrame.FromString(frame).data == data


@pytest.mark.parametrize("size", [0, *EDGES_OF_VARINTS])
def test_protobufs_frame_is_read_by_hand(size: int) -> None:
    data = b"\x5a" * size
    assert frame_of(TensorFrame(data=data).SerializeToString()) == memoryview(data)


@pytest.mark.parametrize(("size", "sizes"), [(0, []), (CHUNK, [CHUNK]), (2 * CHUNK + 7, [CHUNK, CHUNK, 7])])
def test_payload_is_cut_into_chunks(size: int, sizes: list[int]) -> None:
    assert [len(TensorFrame.FromString(frame).data) for frame in data_frames(memoryview(bytes(size)))] == sizes


def test_data_is_a_view_of_the_frame_and_no_copy() -> None:
    frame = TensorFrame(data=b"abc").SerializeToString()
    data = frame_of(frame)
    assert isinstance(data, memoryview)
    assert data.obj is frame


def test_messages_within_a_stream_are_protobufs_own() -> None:
    request = shard_pb2.Request(caller=1, push=shard_pb2.Push(slot=2))
    reply = shard_pb2.Reply(done=shard_pb2.Done())
    assert frame_of(begin_frame(7)) == shard_pb2.Begin(size=7)
    announced = shard_pb2.Begin(size=7, push=shard_pb2.PushId(slot=1, incarnation=2, step=3))
    assert frame_of(begin_frame(7, PushId(Slot(1), Incarnation(2), Step(3)))) == announced
    assert frame_of(at_frame(Span(2**40, 2**40 + 3))) == shard_pb2.At(offset=2**40, size=3)
    assert frame_of(request_frame(request)) == request
    assert frame_of(reply_frame(reply)) == reply


@pytest.mark.parametrize(
    "encoding",
    [
        b"\x7a\x83\x00abc",  # the length in two bytes, where one does
        b"\x7a\x01x\x7a\x03abc",  # the field twice: the last one counts
        b"\x0a\x00\x7a\x03abc",  # first a case that is then overruled
    ],
)
def test_other_encodings_that_protobuf_allows_are_understood(encoding: bytes) -> None:
    assert TensorFrame.FromString(encoding).data == b"abc"
    assert frame_of(encoding) == memoryview(b"abc")


@pytest.mark.parametrize(
    "frame", [b"", b"\x7a", b"\x7a\x05abc", b"\x7a\x02abc", b"\x7a" + b"\xff" * 10, b"\xff\xff", b"\x9a\x06\x00"]
)
def test_malformed_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(PeerError):
        frame_of(frame)


@given(st.binary(max_size=30))
def test_no_bytes_make_anything_but_a_frame_or_a_peer_error(encoded: bytes) -> None:
    try:
        frame = frame_of(b"\x7a" + encoded)
    except PeerError:
        return
    parsed = TensorFrame.FromString(b"\x7a" + encoded)
    assert frame == getattr(parsed, parsed.WhichOneof("frame") or "data")


def test_memory_fills_up_chunk_by_chunk() -> None:
    target = bytearray(5)
    filling = Filling(Push, (memoryview(target),))
    filling.add(memoryview(b"abc"))
    with pytest.raises(PeerError, match="Push has 3 bytes, expected 5"):
        filling.finish()
    filling.add(memoryview(b""))
    filling.add(memoryview(b"de"))
    filling.finish()
    assert target == b"abcde"


def test_more_than_there_is_room_for_is_refused() -> None:
    target = bytearray(5)
    filling = Filling(Push, (memoryview(target),))
    filling.add(memoryview(b"abc"))
    with pytest.raises(PeerError, match="Push has 6 bytes or more, expected 5"):
        filling.add(memoryview(b"def"))
    assert target == b"abc\0\0"


# ------------------------------------------------------------------ pieces in any order


def patched(pieces: list[tuple[int, bytes]], size: int = 8) -> bytes:
    """What a Push of these pieces, each at its offset, is."""
    target = bytearray(size)
    patchwork = Patchwork(Push, memoryview(target))
    for offset, content in pieces:
        patchwork.move(offset)
        patchwork.add(memoryview(content))
    patchwork.finish()
    return bytes(target)


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, b"abcdefgh")],
        [(0, b"abc"), (3, b"defgh")],
        [(5, b"fgh"), (3, b"de"), (0, b"abc")],
        [(3, b"de"), (0, b"abc"), (5, b"fgh")],
        [(8, b""), (4, b""), (0, b"abcdefgh"), (4, b"")],
    ],
)
def test_pieces_cover_memory_in_any_order(pieces: list[tuple[int, bytes]]) -> None:
    assert patched(pieces) == b"abcdefgh"


def test_without_a_move_chunks_follow_one_another() -> None:
    target = bytearray(5)
    patchwork = Patchwork(Push, memoryview(target))
    assert patchwork.add(memoryview(b"ab")) == Span(0, 2)
    assert patchwork.add(memoryview(b"cde")) == Span(0, 5)
    patchwork.finish()
    assert target == b"abcde"


def test_what_is_covered_since_the_last_move_is_told() -> None:
    patchwork = Patchwork(Push, memoryview(bytearray(8)))
    patchwork.move(4)
    assert patchwork.add(memoryview(b"ab")) == Span(4, 6)
    assert patchwork.add(memoryview(b"cd")) == Span(4, 8)
    patchwork.move(1)
    assert patchwork.add(memoryview(b"e")) == Span(1, 2)


def test_memory_of_no_bytes_is_covered() -> None:
    assert patched([], size=0) == patched([(0, b"")], size=0) == b""


@pytest.mark.parametrize(
    ("pieces", "line"),
    [
        ([], "Push has 0 bytes, expected 8"),
        ([(0, b"abcdefg")], "Push has 7 bytes, expected 8"),
        ([(1, b"bcdefgh")], "Push has 7 bytes, expected 8"),
        ([(0, b"abc"), (5, b"fgh")], "Push has 6 bytes, expected 8"),
        ([(5, b"fgh"), (1, b"b")], "Push has 4 bytes, expected 8"),
        ([(0, b"abcdefgh"), (0, b"a")], "bytes 0 to 8 of a Push came twice"),
        ([(4, b"efgh"), (0, b"abcde")], "bytes 4 to 5 of a Push came twice"),
        ([(2, b"c"), (0, b"abcdefgh")], "bytes 2 to 8 of a Push came twice"),
        ([(0, b"abcd"), (0, b"abcd")], "bytes 0 to 4 of a Push came twice"),
        ([(8, b"i")], "Push has 9 bytes or more, expected 8"),
        ([(5, b"fghi")], "Push has 9 bytes or more, expected 8"),
        ([(2**50, b"")], f"Push has {2**50} bytes or more, expected 8"),
        ([(2**50, b"a")], f"Push has {2**50 + 1} bytes or more, expected 8"),
    ],
)
def test_gaps_overlaps_and_what_lies_beyond_are_refused(pieces: list[tuple[int, bytes]], line: str) -> None:
    with pytest.raises(PeerError, match=line):
        patched(pieces)


def test_a_piece_that_does_not_fit_writes_nothing() -> None:
    target = bytearray(8)
    patchwork = Patchwork(Push, memoryview(target))
    patchwork.move(6)
    with pytest.raises(PeerError):
        patchwork.add(memoryview(b"abc"))
    assert target == bytes(8)


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=9)), max_size=6))
def test_memory_counts_as_covered_only_if_every_byte_came_once(pieces: list[tuple[int, bytes]]) -> None:
    covered = sorted(at for offset, content in pieces for at in range(offset, offset + len(content)))
    try:
        patched(pieces)
    except PeerError:
        assert covered != list(range(8))
    else:
        assert covered == list(range(8))
