import pytest
from hypothesis import given
from hypothesis import strategies as st

from psgd.core.messages import Push
from psgd.errors import PeerError
from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.rpc.frames import CHUNK, Filling, begin_frame, data_frames, frame_of, reply_frame, request_frame

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
