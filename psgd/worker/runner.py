"""A slot's runner: performs what the slot machine decides, over the worker's attachment to the shards."""

import queue
from collections.abc import Sequence
from functools import partial

import torch

from psgd.config import Job
from psgd.core.ids import Incarnation, Shard, Slot, Version
from psgd.core.layout import Part
from psgd.core.messages import Pull, Pulled, Push, Receipt, Reply, SlotRequest, Status
from psgd.core.slot import Chosen, Computed, Finish, Phase, Replied, Send, SlotEffect, SlotEvent, SlotMachine, Started
from psgd.errors import DivergedError
from psgd.transport.attachment import Attachment
from psgd.transport.base import PushId, Upload
from psgd.transport.flat import view_bytes
from psgd.transport.state import both_spans
from psgd.worker.outgoing import Outgoing
from psgd.worker.record import Chronicle

Inbox = queue.SimpleQueue[tuple[Slot, Replied]]
"""Replies for the slots of one worker, from whatever thread a plane delivers them on."""


class Weights:
    """The flat space as pulls fill it, and which version of each shard's weights it holds.

    One for all slots of a worker: a slot that pulls the version that is there already moves no bytes.

    Args:
        parts: indexed by shard.
    """

    def __init__(self, attachment: Attachment, parts: Sequence[Part]) -> None:
        self.versions: list[Version | None] = [None] * len(parts)
        self._wire = attachment.wire
        self._flat = attachment.weights
        self._parts = parts
        self._read_in_place = attachment.read_in_place
        self._received = [attachment.received[span.start : span.stop] for span in self._wire.pulls]
        self._frozen = [both_spans(attachment.weights, part)[1] for part in parts]

    def into(self, shard: Shard, request: SlotRequest) -> tuple[memoryview, ...]:
        """Where the bytes of the reply go."""
        match request:
            case Pull(whole=True):
                return view_bytes(self._received[shard]), self._frozen[shard]
            case Pull() | Push(renew=True):
                return (view_bytes(self._received[shard]),)
            case _:
                return ()

    def landed(self, shard: Shard, request: SlotRequest, reply: Reply) -> int:
        """If the reply brings weights: they are there.

        Returns:
            How many bytes have moved for that; none of weights that are read where the shard has them.
        """
        match reply:
            case Pulled(version=version, unchanged=False) | Receipt(version=version, renewed=True):
                self.versions[shard] = version
                if not self._wire.pull_is_identity:
                    pushed = self._parts[shard].pushed
                    self._wire.formats[shard].pull.decode(self._received[shard], self._flat[pushed.start : pushed.stop])
                shown = 1 if shard in self._read_in_place else 0
                return sum(piece.nbytes for piece in self.into(shard, request)[shown:])
            case _:
                return 0


class SlotRunner:
    """One incarnation of one slot on this worker.

    Args:
        job: whose slot it is.
        attachment: to the shards.
        weights: in the attachment's memory.
        inbox: where replies go, until `take` gets them on the worker's own thread.
        device: where the model computes.
        chronicle: of the slot.
    """

    def __init__(
        self,
        job: Job,
        slot: Slot,
        incarnation: Incarnation,
        attachment: Attachment,
        weights: Weights,
        inbox: Inbox,
        device: torch.device,
        chronicle: Chronicle,
    ) -> None:
        self.chronicle = chronicle
        """Makes the slot's records: of an iteration, as soon as `take` has returned its end."""
        self.machine = SlotMachine(slot, incarnation, job.rules)
        memory, names_norm = attachment.sent[slot], job.rules.push_names_norm
        self.outgoing = Outgoing(job.layout, job.parts(), attachment.wire, memory, device, names_norm)
        """What the slot pushes; unchanged while a push is under way."""
        self._connections = attachment.connections
        self._on_nonfinite = job.on_nonfinite
        self._renews = False
        self._uploads: Sequence[Upload] = ()
        self._weights = weights
        self._inbox = inbox

    @property
    def renewing(self) -> bool:
        """Whether a push is under way whose receipts bring new weights: nobody may compute at the old ones."""
        return self._renews and self.machine.phase is Phase.PUSHING

    def begin_push(self) -> None:
        """Let gradients leave while they are computed."""
        machine = self.machine
        push = PushId(machine.slot, machine.incarnation, machine.clock)
        self._uploads = [
            connection.begin(push, self.outgoing.payload(Shard(k))) for k, connection in enumerate(self._connections)
        ]
        self.outgoing.begin(self._uploads)

    def start(self) -> None:
        """Introduce the slot to the shards."""
        self.take(Started())

    def choice(self) -> Chosen:
        """What to feed the machine when the slot is to run next, at the weights that are here or newer ones."""
        return Chosen(tuple(self._weights.versions))

    def take(self, event: SlotEvent) -> list[SlotEffect]:
        """Feed the machine, send what it sends.

        Returns:
            The other effects, for the loop: compute, finish, end, halt.

        Raises:
            DivergedError: if an iteration has ended with NaN or Inf, and the job is to fail of that.
        """
        if isinstance(event, Replied):
            self.chronicle.taken()
            self.chronicle.moved(self._weights.landed(event.shard, event.request, event.reply))
            if isinstance(event.reply, Receipt) and event.reply.status is Status.ACCEPTED:
                self.outgoing.accepted(event.shard)
        elif isinstance(event, Computed):
            event = self.outgoing.write(event)
        effects = self.machine.handle(event)
        self.chronicle.entered(self.machine.phase)
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect.shard, effect.request)
            if isinstance(effect, Finish) and self._on_nonfinite == "fail":
                _check_finite(effect)
        return [effect for effect in effects if not isinstance(effect, Send)]

    def _send(self, shard: Shard, request: SlotRequest) -> None:
        deliver, into = partial(self._replied, shard, request), self._weights.into(shard, request)
        if not isinstance(request, Push):
            self._connections[shard].submit(request, deliver, None, into)
            return
        self._renews = request.renew
        payload = self.outgoing.payload(shard)
        self.chronicle.moved(payload.nbytes)
        if self._uploads:
            self._uploads[shard].finish(request, deliver, into)
        else:
            self._connections[shard].submit(request, deliver, payload, into)

    def _replied(self, shard: Shard, request: SlotRequest, reply: Reply, _payload: memoryview | None) -> None:
        self.chronicle.delivered()
        self._inbox.put((self.machine.slot, Replied(shard, request, reply)))


def _check_finite(finish: Finish) -> None:
    for receipt in finish.receipts:
        if receipt.status is Status.NONFINITE:
            raise DivergedError(
                f"{receipt.reason}; lower the learning rate or clip gradients, or let such iterations pass with "
                "on_nonfinite skip"
            )
