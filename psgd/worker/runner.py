"""A slot's runner: performs what the slot machine decides, over connections to the shards and a worker's replica."""

import queue
from collections.abc import Sequence
from functools import partial

from psgd.core.ids import Incarnation, Shard, Slot, Version
from psgd.core.layout import Part
from psgd.core.messages import Pull, Pulled, Push, Reply, SlotRequest
from psgd.core.slot import Chosen, Phase, Replied, Send, SlotEffect, SlotEvent, SlotMachine, Started
from psgd.transport.base import Connection
from psgd.transport.flat import allocate, view_bytes
from psgd.worker.replica import Replica

Inbox = queue.SimpleQueue[tuple[Slot, Replied]]
"""Replies for the slots of one worker, from whatever thread a plane delivers them on."""


class Weights:
    """The replica's memory as pulls fill it, and which version of each shard's weights it holds.

    One for all slots of a worker: a slot that pulls the version that is there already moves no bytes.
    """

    def __init__(self, replica: Replica, parts: Sequence[Part]) -> None:
        self.versions: list[Version | None] = [None] * len(parts)
        self._memory = replica.memory
        self._parts = parts
        self._whole: dict[Shard, memoryview] = {}

    def into(self, shard: Shard, pull: Pull) -> memoryview:
        """Where the bytes of the reply go."""
        part = self._parts[shard]
        if pull.whole:
            return self._whole.setdefault(shard, view_bytes(allocate(part.bytes)))
        return view_bytes(self._memory[part.pushed.start : part.pushed.stop])

    def landed(self, shard: Shard, pull: Pull, pulled: Pulled) -> None:
        """The bytes are there."""
        self.versions[shard] = pulled.version
        if pull.whole:
            both, part = self._whole.pop(shard), self._parts[shard]
            memory = view_bytes(self._memory)
            memory[part.pushed.start : part.pushed.stop] = both[: part.pushed.bytes]
            memory[part.frozen.start : part.frozen.stop] = both[part.pushed.bytes :]


class SlotRunner:
    """One incarnation of one slot on this worker.

    Args:
        connections: indexed by shard.
        inbox: where replies go, until `take` gets them on the worker's own thread.
    """

    def __init__(
        self,
        slot: Slot,
        incarnation: Incarnation,
        connections: Sequence[Connection],
        parts: Sequence[Part],
        weights: Weights,
        inbox: Inbox,
    ) -> None:
        self.machine = SlotMachine(slot, incarnation, len(connections))
        self.gradient = allocate(sum(part.pushed.bytes for part in parts))
        """(pushed_bytes,) uint8: what the slot pushes; unchanged while a push is under way."""
        self._connections = connections
        self._parts = parts
        self._weights = weights
        self._inbox = inbox

    @property
    def turn(self) -> tuple[int, int]:
        """Slots of a worker take turns in this order: whoever has started fewer iterations, then by number."""
        return (self.machine.clock + (self.machine.phase is Phase.PUSHING), self.machine.slot)

    def start(self) -> None:
        """Introduce the slot to the shards."""
        self.take(Started())

    def choose(self) -> None:
        """Run the slot next: pull its weights."""
        self.take(Chosen(tuple(self._weights.versions)))

    def take(self, event: SlotEvent) -> list[SlotEffect]:
        """Feed the machine, send what it sends.

        Returns:
            The other effects, for the loop: compute, finish, end, halt.
        """
        if isinstance(event, Replied) and isinstance(event.request, Pull) and isinstance(event.reply, Pulled):
            self._landed(event.shard, event.request, event.reply)
        effects = self.machine.handle(event)
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect.shard, effect.request)
        return [effect for effect in effects if not isinstance(effect, Send)]

    def _landed(self, shard: Shard, pull: Pull, pulled: Pulled) -> None:
        if not pulled.unchanged:
            self._weights.landed(shard, pull, pulled)

    def _send(self, shard: Shard, request: SlotRequest) -> None:
        payload = into = None
        if isinstance(request, Push):
            span = self._parts[shard].pushed
            payload = view_bytes(self.gradient[span.start : span.stop])
        elif isinstance(request, Pull):
            into = self._weights.into(shard, request)
        self._connections[shard].submit(request, partial(self._replied, shard, request), payload, into)

    def _replied(self, shard: Shard, request: SlotRequest, reply: Reply, _payload: memoryview | None) -> None:
        self._inbox.put((self.machine.slot, Replied(shard, request, reply)))
