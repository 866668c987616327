import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psgd.core.ids import Slot, Step
from psgd.core.layout import Span
from psgd.core.messages import Push
from psgd.errors import PeerError
from psgd.transport import wire
from psgd.transport.base import Deliver, PushId
from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.rpc.call import Call
from psgd.transport.rpc.frames import Patchwork, frame_of
from psgd.transport.rpc.upload import RpcUpload
from psgd.transport.wire import OperationId
from tests.transport.scripted import FIRST, Delivered, push

PUSH_ID = PushId(Slot(1), FIRST, Step(7))
PUSH = push(slot=1, step=7)
SIZE = 24
CONTENT = bytes(range(SIZE))


class Setup:
    """An upload whose stream a test reads, or leaves alone."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.payload = bytearray(content)
        self.streams: list[RpcUpload] = []
        self.submitted: list[Call] = []
        self.upload = RpcUpload(
            PUSH_ID, memoryview(self.payload), self.streams.append, self.make_call, self.submitted.append
        )

    def make_call(self, push: Push, deliver: Deliver, payload: memoryview, into: Sequence[memoryview]) -> Call:
        return Call(push, wire.request_message(OperationId(1, 2), push), deliver, payload, into)

    def finish(self) -> None:
        self.upload.finish(PUSH, Delivered())

    def received(self) -> tuple[bytes, list[int]]:
        """What a shard makes of the stream, and where its pieces begin."""
        begin, *frames = map(frame_of, self.upload.frames())
        assert begin == shard_pb2.Begin(size=len(self.payload), push=shard_pb2.PushId(slot=1, incarnation=1, step=7))
        target, starts = bytearray(len(self.payload)), []
        patchwork = Patchwork(Push, memoryview(target))
        assert frames.pop() == wire.request_message(OperationId(1, 2), PUSH)
        for frame in frames:
            if isinstance(frame, memoryview):
                patchwork.add(frame)
            else:
                assert isinstance(frame, shard_pb2.At)
                patchwork.move(frame.offset)
                starts.append(frame.offset)
        patchwork.finish()
        return bytes(target), starts


@pytest.mark.parametrize(
    ("spans", "starts"),
    [
        ([], [0]),
        ([(0, 24)], [0]),
        ([(8, 16)], [8, 0, 16]),
        ([(16, 24), (0, 8)], [16, 0, 8]),
        ([(16, 24), (8, 16), (0, 8)], [16, 8, 0]),
        ([(4, 5), (20, 21)], [4, 20, 0, 5, 21]),
    ],
)
def test_what_is_ready_comes_first_and_the_gaps_behind_it(spans: list[tuple[int, int]], starts: list[int]) -> None:
    setup = Setup()
    setup.upload.ready(Span(0, 0))  # opens the stream
    for start, stop in spans:
        setup.upload.ready(Span(start, stop))
    setup.finish()
    assert setup.received() == (CONTENT, starts)


@given(st.lists(st.integers(0, SIZE), max_size=8, unique=True), st.randoms(use_true_random=False), st.integers(0, 9))
def test_any_pieces_in_any_order_make_up_the_whole(cuts: list[int], order: random.Random, count: int) -> None:
    bounds = sorted({0, SIZE, *cuts})
    pieces = [Span(*pair) for pair in pairwise(bounds)]
    order.shuffle(pieces)
    setup = Setup()
    setup.upload.ready(Span(0, 0))
    for piece in pieces[:count]:
        setup.upload.ready(piece)
    setup.finish()
    assert setup.received()[0] == CONTENT


def test_the_stream_begins_with_the_first_piece_and_only_once() -> None:
    setup = Setup()
    assert setup.streams == []
    setup.upload.ready(Span(0, 8))
    setup.upload.ready(Span(8, 16))
    assert setup.streams == [setup.upload]


def test_a_piece_leaves_before_the_rest_of_them_is_there() -> None:
    setup = Setup(bytes(SIZE))
    setup.payload[8:16] = CONTENT[8:16]
    setup.upload.ready(Span(8, 16))
    frames = map(frame_of, setup.upload.frames())
    next(frames)
    assert next(frames) == shard_pb2.At(offset=8, size=8)
    assert next(frames) == memoryview(CONTENT[8:16])
    setup.payload[:] = CONTENT
    setup.finish()
    rest = [bytes(frame) for frame in frames if isinstance(frame, memoryview)]
    assert rest == [CONTENT[:8], CONTENT[16:]]


def test_a_push_of_which_nothing_has_left_is_a_call_like_any_other() -> None:
    setup = Setup()
    setup.finish()
    assert setup.streams == []
    [call] = setup.submitted
    assert (call.request, bytes(call.payload)) == (PUSH, CONTENT)
    assert setup.upload.call is None  # it will not leave on the stream as well


def test_a_push_whose_stream_is_under_way_leaves_on_it_alone() -> None:
    setup = Setup()
    setup.upload.ready(Span(0, 8))
    setup.finish()
    assert setup.submitted == []
    assert setup.upload.call is not None
    assert setup.upload.end() is setup.upload.call


def test_withdrawn_bytes_break_the_stream_off_and_all_leave_with_the_end() -> None:
    setup = Setup(bytes(SIZE))
    setup.upload.ready(Span(0, 8))
    setup.payload[:] = CONTENT
    setup.upload.withdraw()
    setup.upload.ready(Span(8, 16))  # too late: the stream has ended
    setup.finish()
    assert [type(frame_of(frame)) for frame in setup.upload.frames()] == [shard_pb2.Begin, shard_pb2.At, memoryview]
    [call] = setup.submitted
    assert bytes(call.payload) == CONTENT
    assert setup.upload.end() is None


def test_to_withdraw_what_never_left_leaves_the_stream_open() -> None:
    setup = Setup()
    setup.upload.withdraw()
    setup.upload.ready(Span(8, 16))
    setup.finish()
    assert setup.received() == (CONTENT, [8, 0, 16])
    assert setup.submitted == []


def test_a_stream_that_broke_off_before_the_end_leaves_the_push_to_its_finish() -> None:
    setup = Setup()
    setup.upload.ready(Span(0, 8))
    assert setup.upload.end() is None  # the connection found that the call has failed
    setup.finish()
    assert len(setup.submitted) == 1


def test_whoever_reads_the_stream_is_let_go_when_it_ends() -> None:
    setup = Setup()
    setup.upload.ready(Span(0, 0))
    frames = setup.upload.frames()
    next(frames)
    setup.upload.end()
    assert list(frames) == []


def test_a_piece_that_is_said_to_be_final_twice_is_for_the_shard_to_refuse() -> None:
    setup = Setup()
    for _ in range(2):
        setup.upload.ready(Span(8, 16))
    setup.finish()
    with pytest.raises(PeerError, match="bytes 8 to 16 of a Push came twice"):
        setup.received()
