"""Simulation without gradients: the protocol of shards and slots alone, for timing among thousands of workers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import assert_never

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
    KeepSnapshot,
    Key,
    MeanMeasured,
    MeasureMean,
    ReachBoundary,
    Stage,
    Tell,
    key_of,
)
from psgd.core.ids import Shard, Version
from psgd.core.layout import Span
from psgd.core.messages import Done, PeerMessage, Pulled, Push, Receipt, Reply, Request, SlotRequest
from psgd.core.modes import Rules
from psgd.core.protocol import ShardProtocol
from psgd.core.slot import Chosen, Phase, Replied, Send, SlotEffect, SlotEvent, SlotMachine, Started
from psgd.shard.shard import OnBoundary
from psgd.simulation.plane import received_bytes
from psgd.transport.base import Connection, Deliver, PeerLink, PushId, Sizes
from psgd.worker.record import Chronicle
from psgd.worker.runner import Inbox


class BareShard:
    """A shard that holds nothing: every update is made as soon as it is asked for.

    Args:
        size: bytes of its weights, and of a gradient for it.
        on_boundary: told by the lead when the run has come to an evaluation boundary.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        rules: Rules,
        shard: Shard,
        size: int,
        peers: PeerLink,
        on_boundary: OnBoundary,
        clock: Callable[[], float],
    ) -> None:
        self.sizes = Sizes(push=size, pull=size, whole=size, total=size)
        self._protocol = ShardProtocol(rules, shard)
        self._peers = peers
        self._on_boundary = on_boundary
        self._clock = clock
        self._waiting: dict[Key, list[tuple[Request, Deliver]]] = {}

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
        self._waiting.setdefault(key_of(request), []).append((request, deliver))
        self._handle(request)

    def prepare(self, push: PushId, payload: memoryview, ready: Span | None) -> None:
        """There is nothing to prepare."""

    def _handle(self, event: Event) -> None:
        for effect in self._protocol.handle(event, self._clock()):
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Answer(key, reply):
                for request, deliver in self._waiting.pop(key, ()):
                    deliver(self._protocol.worded(request, reply), None)
            case ApplyMean() | ApplyGradient() | ApplyGathered():
                self._handle(Applied(()))
            case Gather():
                self._handle(Gathered(()))
            case MeasureMean():
                self._handle(MeanMeasured((0.0,)))
            case Tell(shard, message):
                self._peers.tell(shard, message)
            case ReachBoundary(boundary, step):
                self._on_boundary(boundary, step)
            case Stage() | Discard() | HoldWeights() | KeepSnapshot() | DropSnapshots():
                pass
            case _:
                assert_never(effect)


class BareSlot:
    """One incarnation of a slot that computes nothing, see `psgd.worker.runner.SlotRunner`.

    Args:
        sizes: of each shard's payloads, which would travel.
        versions: of each shard's weights that the worker would have; one list for all its slots.
        inbox: where replies go, until `take` gets them.
    """

    def __init__(
        self,
        machine: SlotMachine,
        chronicle: Chronicle,
        connections: Sequence[Connection],
        sizes: Sequence[Sizes],
        versions: list[Version | None],
        inbox: Inbox,
    ) -> None:
        self.machine = machine
        self.chronicle = chronicle
        self._connections = connections
        self._sizes = sizes
        self._versions = versions
        self._inbox = inbox
        self._renews = False

    @property
    def renewing(self) -> bool:
        """Whether a push is under way whose receipts bring new weights."""
        return self._renews and self.machine.phase is Phase.PUSHING

    def start(self) -> None:
        """Introduce the slot to the shards."""
        self.take(Started())

    def choice(self) -> Chosen:
        """The versions that would be here."""
        return Chosen(tuple(self._versions))

    def take(self, event: SlotEvent) -> list[SlotEffect]:
        """Feed the machine, send what it sends; the other effects are the loop's."""
        if isinstance(event, Replied):
            self.chronicle.taken()
            self._land(event)
        effects = self.machine.handle(event)
        self.chronicle.entered(self.machine.phase)
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect.shard, effect.request)
        return [effect for effect in effects if not isinstance(effect, Send)]

    def _land(self, event: Replied) -> None:
        match event.reply:
            case Pulled(version=version) | Receipt(version=version, renewed=True):
                self._versions[event.shard] = version
        self.chronicle.moved(received_bytes(self._sizes[event.shard], event.request, event.reply))

    def _send(self, shard: Shard, request: SlotRequest) -> None:
        if isinstance(request, Push):
            self._renews = request.renew
            self.chronicle.moved(self._sizes[shard].push)
        self._connections[shard].submit(request, partial(self._replied, shard, request))

    def _replied(self, shard: Shard, request: SlotRequest, reply: Reply, _payload: memoryview | None) -> None:
        self.chronicle.delivered()
        self._inbox.put((self.machine.slot, Replied(shard, request, reply)))
