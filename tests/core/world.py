"""A whole job in one place: the real protocols and slot machines, over a network that may do anything but lie.

Whoever drives a `World` chooses what happens next: which message arrives, twice or never, who computes, who dies. The
world performs the effects, and its judge watches every one.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

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
    Ticked,
    key_of,
)
from psgd.core.ids import LEAD, Boundary, Generation, Incarnation, Shard, Slot, Version
from psgd.core.messages import (
    Advance,
    Announce,
    Commit,
    ControlRequest,
    Done,
    Figures,
    Granted,
    Inspect,
    Leave,
    PeerMessage,
    Pull,
    Pulled,
    Push,
    Read,
    Receipt,
    Refused,
    Reply,
    Settle,
    SlotRequest,
    Snapshot,
)
from psgd.core.modes import Rules, Sync
from psgd.core.protocol import ShardProtocol
from psgd.core.rounds import RESEND_S
from psgd.core.slot import (
    Chosen,
    Compute,
    Computed,
    End,
    Finish,
    Halt,
    Phase,
    Replied,
    Send,
    SlotEffect,
    SlotMachine,
    Started,
)
from tests.core.judge import LR, Judge

MOST_RETRIES = 20
"""Rounds of retries after which a job that has not ended is stuck: while it drains, nothing is lost."""


class Client(NamedTuple):
    """One incarnation of a slot's worker."""

    slot: Slot
    incarnation: Incarnation


@dataclass(frozen=True)
class ToShard:
    """A slot's request, on its way."""

    shard: Shard
    client: Client
    request: SlotRequest


@dataclass(frozen=True)
class ToClient:
    """A shard's reply, on its way."""

    client: Client
    shard: Shard
    request: SlotRequest
    reply: Reply


@dataclass(frozen=True)
class ToPeer:
    """A message among shards, on its way."""

    shard: Shard
    message: PeerMessage


Waiting = dict[Key, list[tuple[Client, SlotRequest]]]


class World:
    """A job.

    Args:
        nonfinite: the (slot, step) whose gradients hold NaN.
        lengths: how many iterations each slot's own loop wants, indexed by slot; None: the budget ends the job.
        overflowing: steps whose mean is not finite, though all gradients are; found where the norm is taken.
    """

    def __init__(
        self,
        rules: Rules,
        nonfinite: frozenset[tuple[int, int]] = frozenset(),
        lengths: tuple[int, ...] | None = None,
        overflowing: frozenset[int] = frozenset(),
    ) -> None:
        self.rules = rules
        self.judge = Judge(rules)
        self.bag: list[ToShard | ToClient | ToPeer] = []
        self.current = [Incarnation(0)] * rules.slots
        self.deaths = 0
        self.protocols = [ShardProtocol(rules, Shard(k)) for k in range(rules.shards)]
        self._nonfinite = nonfinite
        self._lengths = lengths
        self._overflowing = overflowing
        self._now = 0.0
        self._fences = [[0] * rules.slots for _ in range(rules.shards)]
        self._waiting: list[Waiting] = [{} for _ in range(rules.shards)]
        self._machines: dict[Client, SlotMachine] = {}
        self._outstanding: dict[Client, dict[Shard, SlotRequest]] = {}
        self._have: dict[Client, list[Version | None]] = {}
        self._ended: set[Client] = set()
        self._memberships = [self._membership()]
        for slot in self.judge.slots:
            self._start(slot)

    def __repr__(self) -> str:
        return f"World({self.rules}, {self._nonfinite}, {self._lengths}, {self._overflowing})"

    # ------------------------------------------------------------------ what may happen

    def deliver(self, index: int, *, again: bool = False) -> None:
        """A message arrives; ``again``: the network keeps a copy."""
        envelope = self.bag[index] if again else self.bag.pop(index)
        match envelope:
            case ToShard(shard, client, request):
                self._submit(shard, client, request)
            case ToClient():
                self._reply(envelope)
            case ToPeer(shard, message):
                self._handle(shard, message)

    def drop(self, index: int) -> None:
        """A message gets lost."""
        del self.bag[index]

    def retry(self, client: Client) -> None:
        """The plane sends what has had no reply again."""
        self.bag += [ToShard(shard, client, request) for shard, request in self._outstanding[client].items()]

    def tick(self) -> None:
        """Time passes on every shard."""
        self._now += RESEND_S
        for shard in range(self.rules.shards):
            self._handle(Shard(shard), Ticked())

    def work(self, client: Client) -> None:
        """A worker does the next thing that is neither sending nor waiting."""
        machine = self._machines[client]
        if machine.phase is Phase.COMPUTING:
            finite = (machine.slot, machine.clock) not in self._nonfinite
            norm = 1.0 + machine.slot if finite and self.rules.push_names_norm else None
            computed = Computed(finite, absent=(machine.clock % 2,), renew=True, norm=norm)
            self._perform_slot(client, machine.handle(computed))
        elif self._lengths is not None and machine.clock >= self._lengths[machine.slot]:
            self._leave(client)
        else:
            self._perform_slot(client, machine.handle(Chosen(tuple(self._have[client]))))

    def kill(self, slot: Slot) -> None:
        """A worker dies; what it has sent may still arrive."""
        self._forget(Client(slot, self.current[slot]))
        self.deaths += 1

    def restart(self, slot: Slot) -> None:
        """The next incarnation starts; the one before, should it live, is a zombie from here on."""
        self.deaths += Client(slot, self.current[slot]) in self._machines
        self.current[slot] = Incarnation(self.current[slot] + 1)
        self._memberships.append(self._membership())
        self._start(slot)

    def announce(self, shard: Shard, age: int = 0) -> None:
        """The coordinator's membership arrives at a shard, the newest or an older one."""
        membership = self._memberships[max(0, len(self._memberships) - 1 - age)]
        assert self._control(shard, membership)[0] == Done()
        self._fences[shard] = [max(pair) for pair in zip(self._fences[shard], membership.incarnations, strict=True)]

    def settle(self, *, stop: bool) -> None:
        """The oldest evaluation that is under way is settled; a second verdict for it changes nothing."""
        boundary, factor = self.judge.settles(stop=stop)
        for verdict, lr_factor in ((stop, factor), (not stop, 0.0)):
            assert self._control(LEAD, Settle(boundary, verdict, lr_factor))[0] == Done()

    def read(self, shard: Shard, boundary: Boundary, *, keep: bool) -> None:
        """The evaluator asks for a snapshot; the judge sees the answer when it comes."""
        self._control(shard, Read(boundary, keep))

    def figures(self, shard: Shard) -> Figures:
        """What a shard has counted."""
        (reply,) = self._control(shard, Inspect())
        assert isinstance(reply, Figures)
        return reply

    # ------------------------------------------------------------------ who can do something

    def busy(self) -> list[Client]:
        """Workers that have something to do."""
        return sorted(c for c, m in self._machines.items() if m.phase in (Phase.READY, Phase.COMPUTING))

    def waiting(self) -> list[Client]:
        """Workers that wait for a reply."""
        return sorted(client for client, requests in self._outstanding.items() if requests)

    def running(self) -> list[Slot]:
        """Slots whose newest incarnation lives."""
        return [slot for slot in self.judge.slots if Client(slot, self.current[slot]) in self._machines]

    def dead(self) -> list[Slot]:
        """Slots whose newest incarnation died before its end."""
        newest = {slot: Client(slot, self.current[slot]) for slot in self.judge.slots}
        return [s for s, client in newest.items() if client not in self._machines.keys() | self._ended]

    def flow(self, pick: int = 0) -> bool:
        """One thing happens, and nothing bad: the oldest or another message arrives; False if nothing can happen."""
        if self.bag:
            self.deliver(pick % len(self.bag))
        elif busy := self.busy():
            self.work(busy[pick % len(busy)])
        elif self.judge.settled < self.judge.reached:
            self.settle(stop=False)
        else:
            return False
        return True

    def drain(self) -> None:
        """From here on nothing is lost: the job comes to its end."""
        for _ in range(MOST_RETRIES):
            for slot in self.dead():
                self.restart(slot)
            for client in self.waiting():
                self.retry(client)
            self.tick()
            while self.flow():
                pass
            if not self.waiting() and not self.dead():
                break
        stuck = {client: machine.phase for client, machine in self._machines.items()}
        assert not stuck, "never came to their end"
        self.tick()
        assert not self.bag, "all shards have closed the last step, and yet somebody is told again"

    # ------------------------------------------------------------------ shards

    def _submit(self, shard: Shard, client: Client, request: SlotRequest) -> None:
        protocol, seen = self.protocols[shard], self.judge.shards[shard]
        fenced = client.incarnation < self._fences[shard][client.slot]
        repeated = isinstance(request, Push | Advance) and seen.knows(request.slot, request.step)
        before = portrait(protocol) if fenced or repeated else None
        if isinstance(request, Leave) and shard == LEAD and not fenced:
            self.judge.leaves(request.slot, request.finished)
        self._waiting[shard].setdefault(key_of(request), []).append((client, request))
        effects = self._handle(shard, request)
        if before is not None:
            assert portrait(protocol) == before, "a fenced or repeated request changed something"
            replies = [effect.reply for effect in effects if isinstance(effect, Answer)]
            assert len(replies) == len(effects)
            first = seen.repeats(request.slot, request.step) if isinstance(request, Push | Advance) else None
            if first is not None:
                assert replies == [first]
            else:
                assert all(isinstance(reply, Refused) for reply in replies)
                assert replies or (repeated and seen.staged), "nothing to wait for, and no answer"
            return
        self._fences[shard][client.slot] = client.incarnation

    def _control(self, shard: Shard, request: ControlRequest) -> list[Reply]:
        return [effect.reply for effect in self._handle(shard, request) if isinstance(effect, Answer)]

    def _handle(self, shard: Shard, event: Event) -> list[Effect]:
        effects = self.protocols[shard].handle(event, self._now)
        for effect in effects:
            self._perform(shard, effect, event)
        assert len(self.judge.shards[shard].snapshots) <= 2, "snapshots pile up"
        return effects

    def _perform(self, shard: Shard, effect: Effect, event: Event) -> None:
        judge = self.judge
        match effect:
            case Stage(slot, step, absent):
                assert isinstance(event, Push)
                assert (slot, step, absent) == (event.slot, event.step, event.absent)
                judge.stages(shard, event)
            case Discard(slot):
                del judge.shards[shard].staged[slot]
            case MeasureMean(step, slots):
                squares = (math.inf,) if step in self._overflowing else (float(shard + 1),)
                judge.measures(shard, step, slots, squares)
                self._handle(shard, MeanMeasured(squares))
            case ApplyMean(step, slots, how):
                judge.applies(shard, step, slots, how)
                self._handle(shard, Applied(LR))
            case ApplyGradient(slot, step, how):
                judge.applies(shard, step, (slot,), how)
                self._handle(shard, Applied(LR))
            case Gather(slot, step, how, weight):
                judge.gathers(shard, slot, step, how, weight)
                self._handle(shard, Gathered(LR))
            case ApplyGathered(count, weight, how):
                judge.applies_gathered(shard, count, weight, how)
                self._handle(shard, Applied(LR))
            case HoldWeights(now, versions):
                judge.holds(shard, now, versions)
            case Answer(key, reply):
                self._answer(shard, key, reply)
            case Tell(peer, message):
                assert peer != shard
                if isinstance(message, Commit):
                    judge.commits_to(message)
                self.bag.append(ToPeer(peer, message))
            case KeepSnapshot(boundary):
                judge.keeps(shard, boundary)
            case DropSnapshots(before):
                judge.drops(shard, before)
            case ReachBoundary(boundary, step):
                judge.reaches(shard, boundary, step)

    def _answer(self, shard: Shard, key: Key, reply: Reply) -> None:
        kind, slot, number, _ = key
        match reply:
            case Receipt():
                self.judge.answers(shard, Slot(slot), reply)
            case Granted():
                self.judge.granted(Slot(slot), reply)
            case Pulled():
                assert reply.step >= number, "weights of a step that is not open yet"
                self.judge.pulled(shard, reply)
            case Snapshot():
                self.judge.gives(shard, reply)
            case Refused() if kind == "Read":
                assert number <= self.judge.settled, "the snapshot of an evaluation that is under way is gone"
            case _:
                pass
        for client, request in self._waiting[shard].pop(key, ()):
            worded = self.protocols[shard].worded(request, reply)
            if isinstance(worded, Receipt) and worded.renewed:
                assert worded.version == self.protocols[shard].version, "the weights are newer than the receipt says"
            self.bag.append(ToClient(client, shard, request, worded))

    # ------------------------------------------------------------------ workers

    def _membership(self) -> Announce:
        return Announce(Generation(sum(self.current)), tuple(self.current))

    def _start(self, slot: Slot) -> None:
        client = Client(slot, self.current[slot])
        self._machines[client] = machine = SlotMachine(*client, self.rules)
        self._outstanding[client] = {}
        self._have[client] = [None] * self.rules.shards
        self._perform_slot(client, machine.handle(Started()))

    def _leave(self, client: Client) -> None:
        leave = Leave(*client, finished=self._machines.pop(client).clock)
        self._ended.add(client)
        self._perform_slot(client, [Send(Shard(k), leave) for k in range(self.rules.shards)])

    def _end(self, client: Client) -> None:
        self._forget(client)
        self._ended.add(client)

    def _forget(self, client: Client) -> None:
        self._machines.pop(client)
        self._outstanding.pop(client)
        self._have.pop(client)

    def _reply(self, envelope: ToClient) -> None:
        client, shard, request, reply = envelope.client, envelope.shard, envelope.request, envelope.reply
        awaited = self._outstanding.get(client, {}).get(shard) == request
        if awaited:
            del self._outstanding[client][shard]
        machine = self._machines.get(client)
        if machine is None:
            return
        if isinstance(request, Pull) and isinstance(reply, Pulled) and awaited:
            assert reply.unchanged == (request.have == reply.version)
            self._have[client][shard] = reply.version
        if isinstance(reply, Receipt) and reply.renewed and awaited:
            self._have[client][shard] = reply.version
        effects = machine.handle(Replied(shard, request, reply))
        assert awaited or not effects, "took an answer that nobody waits for"
        self._perform_slot(client, effects)

    def _perform_slot(self, client: Client, effects: list[SlotEffect]) -> None:
        for effect in effects:
            match effect:
                case Send(shard, request):
                    self._outstanding[client][shard] = request
                    self.bag.append(ToShard(shard, client, request))
                case Compute(step, tick):
                    self.judge.computes(client.slot, step)
                    assert tick == step or not isinstance(self.rules.mode, Sync)
                case Finish(step, receipts):
                    assert [receipt.step for receipt in receipts] == [step] * self.rules.shards
                case End():
                    self._end(client)
                case Halt(reason):
                    assert client.incarnation < self.current[client.slot], f"not a zombie: {reason}"
                    self._end(client)


def portrait(thing: object) -> object:
    """All that an object of the core remembers, as nested tuples that can be compared."""
    if isinstance(thing, dict):
        return tuple((portrait(key), portrait(value)) for key, value in thing.items())
    if isinstance(thing, list | tuple | set | frozenset):
        return tuple(portrait(item) for item in thing)
    names = [*getattr(thing, "__dict__", ()), *getattr(type(thing), "__slots__", ())]
    if names and type(thing).__module__.startswith("psgd."):
        return tuple((name, portrait(getattr(thing, name))) for name in names)
    return thing


def size(remembered: object) -> int:
    """How many things a portrait shows."""
    return sum(map(size, remembered)) if isinstance(remembered, tuple) else 1
