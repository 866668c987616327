"""Messages <-> protobuf; what a peer may send in a small message, and what it may not.

The protobuf messages have the names and fields of the dataclasses in `psgd.core.messages`, so one codec
serves all; `protos/psgd/v1/shard.proto` is the contract.
"""

from collections.abc import Callable
from dataclasses import fields
from math import inf
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar, cast, get_args

from google.protobuf.descriptor import FieldDescriptor
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
    return shard_pb2.Request(caller=operation.caller, sequence=operation.sequence, **_case(shard_pb2.Request, request))


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
    return shard_pb2.Reply(**_case(shard_pb2.Reply, reply))


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
    return shard_pb2.PeerMessage(**_case(shard_pb2.PeerMessage, message))


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
        if getattr(message, name) >= LIMIT:
            raise _absurd(f"PushId.{name}", getattr(message, name))
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


# ------------------------------------------------------------------ how each message travels


class _Form:
    """How messages of one type travel, worked out once: every push and every receipt goes through it.

    Args:
        kind: the dataclass; the protobuf message has its name and its fields.
    """

    def __init__(self, kind: type) -> None:
        self._kind = kind
        names = [field.name for field in fields(kind)]
        self._fillers = [_filler(kind.__name__, name) for name in names]
        self._readers = [_reader(kind.__name__, name) for name in names]

    def values_of(self, message: object) -> dict[str, Any]:
        """What protobuf's message is made of.

        Raises:
            InternalError: if a number can not be sent.
        """
        return dict(filled for filler in self._fillers if (filled := filler(message)) is not None)

    def read(self, message: Message) -> object:
        """The message from protobuf.

        Raises:
            PeerError: if a number is absurd.
        """
        return self._kind(*[reader(message) for reader in self._readers])


_Filler = Callable[[object], tuple[str, Any] | None]
_Reader = Callable[[Message], Any]


def _filler(kind: str, name: str) -> _Filler:
    """What takes a field's value from a dataclass, and says under which name protobuf wants it; None: leave it out."""
    value_of, field = attrgetter(name), _field(kind, name)

    def plain(message: object) -> tuple[str, Any] | None:
        value = value_of(message)
        return None if value is None else (name, value)

    def number(message: object) -> tuple[str, Any] | None:
        value = value_of(message)
        if value is None:
            return None
        for each in value if isinstance(value, tuple) else (value,):
            if not 0 <= each < LIMIT:
                raise InternalError(f"{kind}.{name} can not be sent: expected 0 … 2^53 - 1, got {each}")
        return name, value

    def status(message: object) -> tuple[str, Any]:
        return name, _NUMBERS[value_of(message)]

    def case(message: object) -> tuple[str, Any] | None:
        value = value_of(message)
        return None if value is None else (type(value).__name__.lower(), _FORMS[type(value)].values_of(value))

    if field is None:
        return case
    if field.enum_type is not None:
        return status
    return number if field.cpp_type in _INTEGERS else plain


def _reader(kind: str, name: str) -> _Reader:
    """What reads a field's value from protobuf."""
    value_of, field, where = attrgetter(name), _field(kind, name), f"{kind}.{name}"

    def number(message: Message) -> Any:
        value = value_of(message)
        if value >= LIMIT:
            raise _absurd(where, value)
        return value

    def numbers(message: Message) -> Any:
        values = tuple(value_of(message))
        if values and max(values) >= LIMIT:
            raise _absurd(where, max(values))
        return values

    def status(message: Message) -> Any:
        number = value_of(message)
        if number not in _STATUSES:
            raise PeerError(f"{where} is no status that this version knows: {number}")
        return _STATUSES[number]

    def case(message: Message) -> Any:
        chosen = message.WhichOneof(name)
        return None if chosen is None else _FORMS[_REPLIES[chosen]].read(getattr(message, chosen))

    def magnitude(message: Message) -> Any:
        value = value_of(message)
        if not 0 <= value < inf:
            raise PeerError(f"{where} is absurd: expected a finite number >= 0, got {value}")
        return value

    if field is None:
        return case
    if field.enum_type is not None:
        return status
    if field.is_repeated:
        return numbers if field.cpp_type in _INTEGERS else lambda message: tuple(value_of(message))
    real = field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE  # a norm or a factor
    plain: _Reader = number if field.cpp_type in _INTEGERS else magnitude if real else value_of
    return (lambda message: plain(message) if message.HasField(name) else None) if field.has_presence else plain


def _field(kind: str, name: str) -> FieldDescriptor | None:
    """What protobuf knows of the field; None: there it is a choice of messages, as only `Receipt.following` is."""
    descriptor = shard_pb2.DESCRIPTOR.message_types_by_name[kind]
    return None if name in descriptor.oneofs_by_name else descriptor.fields_by_name[name]


def _absurd(where: str, value: int) -> PeerError:
    return PeerError(f"{where} is absurd: expected 0 … 2^53 - 1, got {value}")


_INTEGERS = (FieldDescriptor.CPPTYPE_UINT64, FieldDescriptor.CPPTYPE_UINT32)
_FORMS = {kind: _Form(kind) for kind in (*_REQUESTS.values(), *_REPLIES.values(), *_PEER_MESSAGES.values())}


def _case(envelope: type[Message], message: object) -> dict[str, Any]:
    """The envelope's choice, which has the lower-case name of the message's type, and what it is made of.

    Raises:
        InternalError: if messages of this type do not travel in it, or a number can not be sent.
    """
    name = type(message).__name__
    if name.lower() not in envelope.DESCRIPTOR.fields_by_name:
        raise InternalError(f"{name} does not travel in a {envelope.DESCRIPTOR.name}")
    return {name.lower(): _FORMS[type(message)].values_of(message)}


def _read_case(envelope: Message, oneof: str, types: dict[str, type]) -> object:
    case = envelope.WhichOneof(oneof)
    if case is None:
        raise PeerError(f"a {envelope.DESCRIPTOR.name} without a {oneof} that this version knows")
    return _FORMS[types[case]].read(getattr(envelope, case))
