"""Messages <-> protobuf; what a peer may send in a small message, and what it may not.

The protobuf messages have the names and fields of the dataclasses in `psgd.core.messages`, so one codec
serves all; `protos/psgd/v1/shard.proto` is the contract.
"""

from dataclasses import fields
from typing import Any, NamedTuple, TypeVar, cast, get_args

from google.protobuf.message import DecodeError, Message

from psgd.core import messages as core
from psgd.core.ids import Incarnation, Slot, Step
from psgd.core.messages import PeerMessage, Reply, Request, Status
from psgd.errors import InternalError, PeerError
from psgd.transport.base import PushId
from psgd.transport.generated.psgd.v1 import shard_pb2

LIMIT = 2**53
"""Every count on the wire is below it: no run comes near, and every language's numbers hold it exactly."""

CallerRequest = core.SlotRequest | core.ControlRequest
"""What a caller may ask of a shard; shards among themselves send `PeerMessage`."""

_NUMBERS = {status: shard_pb2.Status.Value(f"STATUS_{status.name}") for status in Status}
_STATUSES: dict[int, Status] = {number: status for status, number in _NUMBERS.items()}
_REQUESTS = {type_.__name__.lower(): type_ for type_ in get_args(CallerRequest)}
_REPLIES = {type_.__name__.lower(): type_ for type_ in get_args(Reply)}
_PEER_MESSAGES = {type_.__name__.lower(): type_ for type_ in get_args(PeerMessage)}

Parsed = TypeVar("Parsed", bound=Message)


class OperationId(NamedTuple):
    """What makes a request sent again the same request.

    Args:
        caller: drawn at random by each connection, 64 bits.
        sequence: the connection's own count.
    """

    caller: int
    sequence: int


def request_message(operation: OperationId, request: Request) -> shard_pb2.Request:
    """A request in protobuf.

    Raises:
        InternalError: if a number of it can not be sent, or it is a message among shards.
    """
    message = shard_pb2.Request(caller=operation.caller, sequence=operation.sequence)
    _fill_case(message, request)
    return message


def request_of(message: shard_pb2.Request) -> tuple[OperationId, CallerRequest]:
    """A request from protobuf.

    Raises:
        PeerError: if it is none of those that psgd knows, or holds an absurd number.
    """
    request = _read_case(message, "request", _REQUESTS)
    return OperationId(message.caller, message.sequence), cast(CallerRequest, request)


def reply_message(reply: Reply) -> shard_pb2.Reply:
    """A reply in protobuf.

    Raises:
        InternalError: if a number of it can not be sent.
    """
    message = shard_pb2.Reply()
    _fill_case(message, reply)
    return message


def reply_of(message: shard_pb2.Reply) -> Reply:
    """A reply from protobuf.

    Raises:
        PeerError: if it is none of those that psgd knows, or holds an absurd number.
    """
    return cast(Reply, _read_case(message, "reply", _REPLIES))


def peer_message(message: PeerMessage) -> shard_pb2.PeerMessage:
    """A message to another shard in protobuf.

    Raises:
        InternalError: if a number of it can not be sent.
    """
    envelope = shard_pb2.PeerMessage()
    _fill_case(envelope, message)
    return envelope


def peer_message_of(envelope: shard_pb2.PeerMessage) -> PeerMessage:
    """A message of another shard from protobuf.

    Raises:
        PeerError: if it is none of those that psgd knows, or holds an absurd number.
    """
    return cast(PeerMessage, _read_case(envelope, "message", _PEER_MESSAGES))


def push_id_of(message: shard_pb2.PushId) -> PushId:
    """Which push it is, from protobuf.

    Raises:
        PeerError: if it holds an absurd number.
    """
    for name in ("slot", "incarnation", "step"):
        _sane(f"PushId.{name}", getattr(message, name))
    return PushId(Slot(message.slot), Incarnation(message.incarnation), Step(message.step))


def push_id_message(push: PushId) -> shard_pb2.PushId:
    """Which push it is, in protobuf."""
    return shard_pb2.PushId(slot=push.slot, incarnation=push.incarnation, step=push.step)


def check_slot(slot: int, slots: int) -> None:
    """Refuse a slot that the job does not have.

    Raises:
        PeerError: if it is none of ``slots``.
    """
    if slot >= slots:
        raise PeerError(f"slot {slot} is none of this job, which has {slots}: 0 … {slots - 1}")


def parse(kind: type[Parsed], encoded: bytes) -> Parsed:
    """Parse protobuf's encoding.

    Raises:
        PeerError: if it is none.
    """
    try:
        return kind.FromString(encoded)
    except DecodeError as error:
        line = f"protobuf can not parse these {len(encoded)} bytes as {kind.DESCRIPTOR.name}"
        raise PeerError(line) from error


# ------------------------------------------------------------------ dataclass -> protobuf


def _fill_case(envelope: Message, message: object) -> None:
    """Set the envelope's oneof to the message; the case has the lower-case name of its type."""
    name = type(message).__name__
    if name.lower() not in envelope.DESCRIPTOR.fields_by_name:
        raise InternalError(f"{name} does not travel in a {envelope.DESCRIPTOR.name}")
    case = getattr(envelope, name.lower())
    case.SetInParent()  # chosen even where it has no field, or only defaults
    for field in fields(cast(Any, message)):
        value = getattr(message, field.name)
        if value is not None:
            _fill_field(case, field.name, value)


def _fill_field(message: Message, name: str, value: object) -> None:
    try:
        if isinstance(value, Status):
            setattr(message, name, _NUMBERS[value])
        elif isinstance(value, tuple):
            for element in value:
                _within_limit(message, name, element)
            getattr(message, name).extend(value)
        elif isinstance(value, core.Granted | core.Ended):
            _fill_case(message, value)
        else:
            _within_limit(message, name, value)
            setattr(message, name, value)
    except (TypeError, ValueError) as error:
        raise InternalError(f"{message.DESCRIPTOR.name}.{name} can not be sent: {error}") from error


def _within_limit(message: Message, name: str, value: object) -> None:
    if isinstance(value, int) and not 0 <= value < LIMIT:
        raise ValueError(f"expected 0 … 2^53 - 1, got {value}")


# ------------------------------------------------------------------ protobuf -> dataclass


def _read_case(envelope: Message, oneof: str, types: dict[str, type]) -> object:
    case = envelope.WhichOneof(oneof)
    if case is None:
        raise PeerError(f"a {envelope.DESCRIPTOR.name} without a {oneof} that this version knows")
    return _read(getattr(envelope, case), types[case])


def _read(message: Message, kind: type) -> object:
    return kind(**{field.name: _read_field(message, field.name) for field in fields(kind)})


def _read_field(message: Message, name: str) -> object:
    descriptor = message.DESCRIPTOR
    if name in descriptor.oneofs_by_name:  # no case is None: only Receipt.following
        return None if message.WhichOneof(name) is None else _read_case(message, name, _REPLIES)
    field, value, where = descriptor.fields_by_name[name], getattr(message, name), f"{descriptor.name}.{name}"
    if field.is_repeated:
        return tuple(_sane(where, element) for element in value)
    if field.has_presence and not message.HasField(name):
        return None
    return _status(where, value) if field.enum_type is not None else _sane(where, value)


def _sane(where: str, value: object) -> object:
    if isinstance(value, int) and value >= LIMIT:
        raise PeerError(f"{where} is absurd: expected 0 … 2^53 - 1, got {value}")
    return value


def _status(where: str, number: int) -> Status:
    status = _STATUSES.get(number)
    if status is None:
        raise PeerError(f"{where} is no status that this version knows: {number}")
    return status
