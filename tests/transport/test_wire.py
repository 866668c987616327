import contextlib
from dataclasses import fields
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psgd.core.ids import Incarnation, Shard, Slot, Step, Version
from psgd.core.messages import (
    Ask,
    Ended,
    Granted,
    Held,
    Join,
    Joined,
    PeerMessage,
    Pull,
    Push,
    Receipt,
    Reply,
    Request,
    Status,
)
from psgd.errors import InternalError, PeerError
from psgd.transport import wire
from psgd.transport.generated.psgd.v1 import shard_pb2
from psgd.transport.wire import CallerRequest, OperationId

COUNTS = st.integers(0, wire.LIMIT - 1)
CALLER = OperationId(caller=2**64 - 1, sequence=3)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """All values that a field of a message may have, by its annotation."""
    if hint in (type(None), bool, str):
        return st.from_type(hint)
    if hint is float:  # a norm or a factor
        return st.floats(min_value=0, allow_nan=False, allow_infinity=False)
    if hint is Status:
        return st.sampled_from(Status)
    if get_origin(hint) in (Union, UnionType):
        return st.one_of([values(part) for part in get_args(hint)])
    if get_origin(hint) is tuple:
        each = get_args(hint)[0]
        return st.lists(st.floats(allow_nan=False) if each is float else values(each), max_size=4).map(tuple)
    if hint in (Granted, Ended):
        return messages(hint)
    assert hint is int or hint.__supertype__ is int, f"no values for {hint}"
    return COUNTS


def messages(kind: type) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    return st.builds(kind, **{field.name: values(hints[field.name]) for field in fields(kind)})


def of_union(union: Any) -> list[Any]:
    return [pytest.param(messages(kind), id=kind.__name__) for kind in get_args(union)]


def test_every_request_travels_either_from_a_caller_or_among_shards() -> None:
    assert set(get_args(CallerRequest)) | set(get_args(PeerMessage)) == set(get_args(Request))


@pytest.mark.parametrize("strategy", of_union(CallerRequest))
def test_every_request_comes_out_as_it_went_in(strategy: st.SearchStrategy[CallerRequest]) -> None:
    @given(strategy, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
    def check(request: CallerRequest, caller: int, sequence: int) -> None:
        operation = OperationId(caller, sequence)
        encoded = wire.request_message(operation, request).SerializeToString()
        assert wire.request_of(wire.parse(shard_pb2.Request, encoded)) == (operation, request)

    check()


@pytest.mark.parametrize("strategy", of_union(Reply))
def test_every_reply_comes_out_as_it_went_in(strategy: st.SearchStrategy[Reply]) -> None:
    @given(strategy)
    def check(reply: Reply) -> None:
        encoded = wire.reply_message(reply).SerializeToString()
        assert wire.reply_of(wire.parse(shard_pb2.Reply, encoded)) == reply

    check()


@pytest.mark.parametrize("strategy", of_union(PeerMessage))
def test_every_message_among_shards_comes_out_as_it_went_in(
    strategy: st.SearchStrategy[PeerMessage],
) -> None:
    @given(strategy)
    def check(message: PeerMessage) -> None:
        encoded = wire.peer_message(message).SerializeToString()
        assert wire.peer_message_of(wire.parse(shard_pb2.PeerMessage, encoded)) == message

    check()


@given(st.binary(max_size=40))
def test_no_bytes_make_anything_but_a_message_or_a_peer_error(encoded: bytes) -> None:
    with contextlib.suppress(PeerError):
        wire.request_of(wire.parse(shard_pb2.Request, encoded))
    with contextlib.suppress(PeerError):
        wire.reply_of(wire.parse(shard_pb2.Reply, encoded))
    with contextlib.suppress(PeerError):
        wire.peer_message_of(wire.parse(shard_pb2.PeerMessage, encoded))


def test_bytes_that_are_no_protobuf_are_refused() -> None:
    with pytest.raises(PeerError, match="can not parse these 3 bytes as Request"):
        wire.parse(shard_pb2.Request, b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (wire.request_of, shard_pb2.Request(caller=1)),
        (wire.reply_of, shard_pb2.Reply()),
        (wire.peer_message_of, shard_pb2.PeerMessage()),
        # Field 99 of a newer version: unknown here, so there is no request in it.
        (wire.request_of, shard_pb2.Request.FromString(b"\x9a\x06\x00")),
    ],
)
def test_envelope_without_a_known_message_is_refused(read: Any, message: Any) -> None:
    with pytest.raises(PeerError, match=r"without a (request|reply|message) that this version knows"):
        read(message)


@pytest.mark.parametrize("number", [0, 5, -1])
def test_unknown_status_is_refused(number: int) -> None:
    encoded = shard_pb2.Reply(receipt=shard_pb2.Receipt(status=number)).SerializeToString()  # type: ignore[arg-type]
    with pytest.raises(PeerError, match=rf"Receipt\.status is no status that this version knows: {number}"):
        wire.reply_of(wire.parse(shard_pb2.Reply, encoded))


@pytest.mark.parametrize("number", [wire.LIMIT, 2**64 - 1])
@pytest.mark.parametrize(
    ("request_", "where"),
    [
        (lambda n: shard_pb2.Request(join=shard_pb2.Join(slot=n)), r"Join\.slot"),
        (lambda n: shard_pb2.Request(pull=shard_pb2.Pull(have=n)), r"Pull\.have"),
        (lambda n: shard_pb2.Request(push=shard_pb2.Push(absent=[1, n])), r"Push\.absent"),
    ],
)
def test_absurd_number_is_refused(request_: Any, where: str, number: int) -> None:
    with pytest.raises(PeerError, match=rf"{where} is absurd: expected 0 … 2\^53 - 1, got {number}"):
        wire.request_of(request_(number))


@pytest.mark.parametrize("number", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["norm", "lr_factor"])
def test_a_size_that_is_none_is_refused(name: str, number: float) -> None:
    push = shard_pb2.Push(norm=1.0, lr_factor=1.0)
    setattr(push, name, number)
    with pytest.raises(PeerError, match=rf"Push\.{name} is absurd: expected a finite number >= 0, got {number}"):
        wire.request_of(shard_pb2.Request(push=push))


def test_a_time_that_is_none_is_refused() -> None:
    receipt = shard_pb2.Receipt(status=shard_pb2.STATUS_ACCEPTED, clip_scale=1.0, held_s=-0.5)
    with pytest.raises(PeerError, match=r"Receipt\.held_s is absurd: expected a finite number >= 0, got -0.5"):
        wire.reply_of(shard_pb2.Reply(receipt=receipt))


@pytest.mark.parametrize(
    ("request_", "where"),
    [
        (Join(Slot(-1), Incarnation(0)), r"Join\.slot"),
        (Ask(Slot(0), Incarnation(0), Step(wire.LIMIT)), r"Ask\.step"),
        (Pull(Slot(0), Incarnation(0), Step(0), have=Version(-1)), r"Pull\.have"),
        (Push(Slot(0), Incarnation(0), Step(0), 0, Version(0), True, absent=(-3,)), r"Push\.absent"),
    ],
)
def test_number_out_of_range_is_not_sent(request_: Request, where: str) -> None:
    with pytest.raises(InternalError, match=rf"{where} can not be sent: expected 0 … 2\^53 - 1"):
        wire.request_message(CALLER, request_)


def test_message_among_shards_is_not_sent_as_a_callers_request() -> None:
    with pytest.raises(InternalError, match="Held does not travel in a Request"):
        wire.request_message(CALLER, Held(Shard(0), Slot(0), Step(0), finite=True))


def test_nothing_and_zero_are_told_apart() -> None:
    for have in (None, Version(0)):
        pull = Pull(Slot(0), Incarnation(0), Step(0), have)
        assert wire.request_of(wire.request_message(CALLER, pull))[1] == pull
    for following in (None, Granted(Step(0), 0), Ended()):
        receipt = Receipt(Step(0), Status.LATE, "", Version(0), 0, (), following)
        assert wire.reply_of(wire.reply_message(receipt)) == receipt
    assert wire.reply_of(wire.reply_message(Joined(0))) == Joined(0)
