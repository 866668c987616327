"""The shard: performs what the protocol decides, over its weights. Not thread-safe; its queue gives it one order."""

from collections.abc import Callable
from typing import assert_never

import torch

from psgd.core.effects import (
    Answer,
    Applied,
    ApplyGathered,
    ApplyGradient,
    ApplyMean,
    Discard,
    DropSnapshots,
    Effect,
    Event,
    Gather,
    Gathered,
    HoldWeights,
    How,
    KeepSnapshot,
    Key,
    MeanMeasured,
    MeasureMean,
    ReachBoundary,
    Stage,
    Tell,
    Ticked,
    key_of,
)
from psgd.core.ids import Boundary, Shard, Slot, Step, Version
from psgd.core.layout import Span
from psgd.core.messages import (
    Announce,
    Done,
    Inspect,
    Load,
    PeerMessage,
    Pull,
    Pulled,
    Push,
    Receipt,
    Refused,
    Reply,
    Request,
    Snapshot,
)
from psgd.core.modes import Rules
from psgd.core.protocol import ShardProtocol
from psgd.errors import InternalError, PeerError
from psgd.shard.lane import Gradient
from psgd.shard.payloads import Payloads
from psgd.shard.preparation import Preparation
from psgd.shard.state import ShardState
from psgd.transport.base import Deliver, PeerLink, PushId, Sizes
from psgd.transport.flat import allocate, as_memory, view_bytes
from psgd.transport.payload import expected_bytes, wrong_size
from psgd.transport.wire_format import WireFormat

OnBoundary = Callable[[Boundary, Step], None]


class ParameterShard:
    """One parameter-server shard.

    Args:
        wire: how its payloads are written.
        peers: the way to the other shards.
        on_boundary: told by the lead when the run has come to an evaluation boundary.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        rules: Rules,
        shard: Shard,
        state: ShardState,
        wire: WireFormat,
        peers: PeerLink,
        on_boundary: OnBoundary,
        clock: Callable[[], float],
    ) -> None:
        self._protocol = ShardProtocol(rules, shard)
        self._state = state
        self._payloads = Payloads(wire, state.memory, state.pushed_bytes, rules.slots)
        # Only a step that waits for all slots is sure to average just those.
        self._prepares = rules.mode.weights_stand and wire.push.identity
        self._preparation = Preparation(rules.slots)
        self._peers = peers
        self._on_boundary = on_boundary
        self._clock = clock
        self._loaded = False
        self._waiting: dict[Key, list[tuple[Request, Deliver]]] = {}
        self._arriving: torch.Tensor | None = None
        self._staged: dict[Slot, Gradient] = {}
        self._snapshots: dict[Boundary, torch.Tensor] = {}

    @property
    def sizes(self) -> Sizes:
        """Of its payloads."""
        return self._payloads.sizes

    @property
    def version(self) -> Version:
        """Updates that it has applied."""
        return self._protocol.version

    def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
        """Take one request; its reply follows at once, or with a later one."""
        if isinstance(request, PeerMessage):
            self._handle(request)
            deliver(Done(), None)
            return
        memory = allocate(0) if payload is None else as_memory(payload)
        try:
            refusal = self._refusal(request, memory)
            gradient = self._payloads.read_push(memory) if isinstance(request, Push) and refusal is None else None
        except PeerError as error:
            refusal = Refused(str(error))
        if refusal is not None:
            deliver(refusal, None)
            return
        self._waiting.setdefault(key_of(request), []).append((request, deliver))
        if isinstance(request, Load) and not self._loaded:
            self._state.load(memory)
            self._loaded = True
        if isinstance(request, Push):
            self._check_preparation(request, memory)
        self._arriving = gradient
        self._handle(request)
        self._arriving = None

    def prepare(self, push: PushId, payload: memoryview, ready: Span | None) -> None:
        """Some bytes of a push to come are final, see `psgd.transport.base.Endpoint`."""
        if not self._prepares:
            return
        memory = as_memory(payload)
        if ready is None or self._preparation.contradicts(push, memory):
            self._drop_preparation()
        if ready is not None:
            for span in self._preparation.add(push, memory, ready):
                self._state.prepare(self._preparation.gradients, span)

    def _check_preparation(self, push: Push, memory: torch.Tensor) -> None:
        """What was prepared counts only for the very pushes that it was announced with."""
        if self._preparation.contradicts(PushId(push.slot, push.incarnation, push.step), memory):
            self._drop_preparation()

    def _drop_preparation(self) -> None:
        self._preparation.drop()
        self._state.forget()

    def tick(self) -> None:
        """Some time has passed."""
        self._handle(Ticked())

    def _refusal(self, request: Request, memory: torch.Tensor) -> Refused | None:
        """Why the shard can not take the request as it stands, or None."""
        size, expected = memory.numel(), expected_bytes(self, type(request))
        if size != expected:
            return Refused(wrong_size(type(request), size, expected))
        if isinstance(request, Load) and self._loaded:
            repeated = self._protocol.version == 0 and torch.equal(memory, self._state.memory)
            return None if repeated else Refused("the shard has its first weights already")
        if not self._loaded and not isinstance(request, Load | Announce | Inspect):
            return Refused("the shard has no weights yet: the driver loads them first")
        return None

    def _handle(self, event: Event) -> None:
        for effect in self._protocol.handle(event, self._clock()):
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Stage(slot, _, absent):
                if self._arriving is None:
                    raise InternalError(f"the push of slot {slot} was staged without its payload")
                self._staged[slot] = Gradient(self._arriving, frozenset(absent))
            case Discard(slot):
                del self._staged[slot]
                self._drop_preparation()
            case MeasureMean(_, slots):
                squares = self._state.measure([self._staged[slot].memory for slot in slots])
                self._handle(MeanMeasured(squares))
            case ApplyMean(_, slots, how):
                self._apply(slots, how)
            case ApplyGradient(slot, _, how):
                self._apply((slot,), how)
            case Gather(slot, _, how, weight):
                self._handle(Gathered(self._state.gather(self._staged.pop(slot), how, weight)))
            case ApplyGathered(count, weight, how):
                self._handle(Applied(self._state.apply_gathered(count, weight, how)))
            case HoldWeights(now, versions):
                self._state.hold(now, versions)
            case Answer(key, reply):
                for request, deliver in self._waiting.pop(key, ()):
                    worded = self._protocol.worded(request, reply)
                    deliver(worded, self._payload(request, worded))
            case Tell(shard, message):
                self._peers.tell(shard, message)
            case KeepSnapshot(boundary):
                self._snapshots[boundary] = self._state.memory.clone()
            case DropSnapshots(before):
                self._snapshots = {b: memory for b, memory in self._snapshots.items() if b >= before}
            case ReachBoundary(boundary, step):
                self._on_boundary(boundary, step)
            case _:
                assert_never(effect)

    def _apply(self, slots: tuple[Slot, ...], how: How) -> None:
        lr = self._state.apply([self._staged.pop(slot) for slot in slots], how)
        self._preparation.drop()
        self._handle(Applied(lr))

    def _payload(self, request: Request, reply: Reply) -> memoryview | None:
        """The bytes that go with a reply; the weights themselves, so they are read before the next update."""
        match reply:
            case Receipt(renewed=True):
                return self._payloads.weights(reply.version, whole=False)
            case Pulled(unchanged=False):
                return self._payloads.weights(reply.version, whole=isinstance(request, Pull) and request.whole)
            case Snapshot(boundary):
                return view_bytes(self._snapshots.get(boundary, self._state.memory))
            case _:
                return None
