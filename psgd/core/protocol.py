"""One shard's protocol: the fence, the ledger, the gate (on the lead) and the apply rule, composed.

`ShardProtocol.handle(event, now)` is all there is; whoever drives it performs the effects in their order.
"""

from dataclasses import replace
from typing import TypeVar, assert_never

from psgd.core.arrivals import Arrivals
from psgd.core.effects import (
    Answer,
    Applied,
    ApplyGathered,
    ApplyGradient,
    ApplyMean,
    DropSnapshots,
    Effect,
    Event,
    Gather,
    Gathered,
    KeepSnapshot,
    MeanMeasured,
    MeasureMean,
    ReachBoundary,
    Ticked,
    key_of,
)
from psgd.core.gate import ClockGate, RoundGate, boundary_step
from psgd.core.ids import LEAD, Boundary, Shard, Slot, Step, Version
from psgd.core.ledger import Ledger
from psgd.core.membership import Fence
from psgd.core.messages import (
    Advance,
    Announce,
    Ask,
    Commit,
    Confirm,
    ControlRequest,
    Done,
    Figures,
    Held,
    Inspect,
    Join,
    Joined,
    Leave,
    Load,
    Loaded,
    Measure,
    Measured,
    PeerMessage,
    Pull,
    Pulled,
    Push,
    Read,
    Receipt,
    Refused,
    Reply,
    Request,
    Settle,
    SlotRequest,
    Snapshot,
)
from psgd.core.modes import Rules, Sync
from psgd.core.rounds import RoundLead, Rounds
from psgd.errors import InternalError

Waits = TypeVar("Waits", Ask, Pull)
Report = Applied | Gathered | MeanMeasured


class ShardProtocol:
    """What a shard does about each event.

    Args:
        rules: the same for every party of the job.
        shard: which one this is; `LEAD` also grants iterations and commits steps.
    """

    def __init__(self, rules: Rules, shard: Shard) -> None:
        self._rules = rules
        self._shard = shard
        self._fence = Fence(rules.slots)
        self._ledger = Ledger()
        self._gate: RoundGate | ClockGate | None = None
        self._lead: RoundLead | None = None
        self._rule: Rounds | Arrivals
        if isinstance(rules.mode, Sync):
            if shard == LEAD:
                self._gate = RoundGate(rules)
                self._lead = RoundLead(rules, rules.mode, self._gate)
            self._rule = Rounds(rules, shard, self._ledger, self._lead)
        else:
            if shard == LEAD:
                self._gate = ClockGate(rules, rules.mode)
            self._rule = Arrivals(rules, rules.mode, shard, self._ledger)
        self._asking: dict[Slot, Ask] = {}
        self._asked_anew: set[Slot] = set()
        self._outlook: tuple[object, ...] = ()
        self._pulling: dict[Slot, Pull] = {}
        self._reading: dict[Boundary, bool] = {}
        self._kept: dict[Boundary, Version] = {}
        self._boundary = Boundary(0)
        self._expected: type[Report] | None = None

    @property
    def version(self) -> Version:
        """Updates that the shard has applied."""
        return self._rule.version

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take an event, return what is to be done about it, in this order.

        Args:
            now: seconds on a monotonic clock.

        Raises:
            InternalError: if what was asked for is not reported before anything else happens.
        """
        if self._expected is not None and not isinstance(event, self._expected):
            name = self._expected.__name__
            raise InternalError(f"shard {self._shard} is in the middle of an update: {name} comes before {event}")
        effects = self._handled(event, now)
        self._expected = next((_REPORTS[type(effect)] for effect in effects if type(effect) in _REPORTS), None)
        return effects

    def worded(self, request: Request, reply: Reply) -> Reply:
        """The reply as this request gets it: a receipt says whether weights come along, if the push wanted them."""
        if not (isinstance(request, Push) and isinstance(reply, Receipt) and request.renew):
            return reply
        renewed = reply.version == self.version != request.pulled
        return replace(reply, renewed=True) if renewed else reply

    def _handled(self, event: Event, now: float) -> list[Effect]:
        match event:
            case Join() | Ask() | Pull() | Push() | Advance() | Leave():
                return self._from_slot(event, now)
            case Held() | Measure() | Measured() | Commit() | Confirm():
                return self._from_peer(event, now)
            case Applied(lr):
                return self._settled(self._rule.applied(lr))
            case Gathered(lr):
                return self._settled(self._rule.gathered(lr)) if isinstance(self._rule, Arrivals) else []
            case MeanMeasured(squares):
                return self._settled(self._rule.measured(squares, now)) if isinstance(self._rule, Rounds) else []
            case Ticked():
                return self._rule.resend(now) if isinstance(self._rule, Rounds) else []
            case Announce() | Settle() | Read() | Inspect() | Load():
                return self._control(event)
            case _:
                assert_never(event)

    # ------------------------------------------------------------------ slots

    def _from_slot(self, request: SlotRequest, now: float) -> list[Effect]:
        key = key_of(request)
        if isinstance(request, Push | Advance) and self._ledger.knows(request.slot, request.step):
            return self._repeated(request)
        refusal = self._fence.refusal(request.slot, request.incarnation)
        if refusal is not None:
            return [Answer(key, Refused(refusal))]
        self._fence.raise_to(request.slot, request.incarnation)
        match request:
            case Join(slot):
                return [Answer(key, Joined(self._rule.finished(slot)))]
            case Ask():
                return self._ask(request)
            case Pull():
                return self._park(self._pulling, request)
            case Push():
                return self._settled(self._push(request, now))
            case Advance():
                return self._advance(request)
            case Leave():
                return self._leave(request, now)
            case _:
                assert_never(request)

    def _repeated(self, request: Push | Advance) -> list[Effect]:
        """The ledger is consulted first: a repeat gets the first answer, whatever became of the membership."""
        receipt = self._ledger.receipt(request.slot, request.step)
        if receipt is not None:
            return [Answer(key_of(request), receipt)]
        entry = self._ledger.entry(request.slot)
        if entry is not None and entry.step > request.step:
            refused = Refused(f"slot {request.slot} has long gone on from step {request.step} to {entry.step}")
            return [Answer(key_of(request), refused)]
        return []  # staged: the answer to the first is the answer to all

    def _push(self, push: Push, now: float) -> list[Effect]:
        return self._rule.push(push, now) if isinstance(self._rule, Rounds) else self._rule.push(push)

    def _advance(self, advance: Advance) -> list[Effect]:
        if isinstance(self._rule, Rounds):
            return [Answer(key_of(advance), Refused("in rounds the commit moves every clock"))]
        return self._rule.advance(advance)

    def _ask(self, ask: Ask) -> list[Effect]:
        if self._gate is None:
            return [Answer(key_of(ask), Refused(f"shard {self._shard} is not the lead, shard {LEAD} grants"))]
        if isinstance(self._gate, ClockGate):
            self._gate.finish(ask.slot, ask.step)
        self._asked_anew.add(ask.slot)
        return self._park(self._asking, ask)

    def _leave(self, leave: Leave, now: float) -> list[Effect]:
        effects: list[Effect] = [Answer(key_of(leave), Done())]
        if isinstance(self._gate, ClockGate):
            self._gate.leave(leave.slot, leave.finished)
        elif isinstance(self._gate, RoundGate) and isinstance(self._rule, Rounds):
            self._gate.leave(leave.finished)
            effects += self._rule.cut_short(now)
        return self._settled(effects)

    def _park(self, parked: dict[Slot, Waits], request: Waits) -> list[Effect]:
        """Let the request wait for its answer; a slot waits for one thing, the newest that it has asked for."""
        waiting = parked.get(request.slot)
        newest = max(waiting or request, request, key=lambda asked: (asked.incarnation, asked.step))
        parked[request.slot] = newest
        effects: list[Effect] = [
            Answer(key_of(older), Refused(f"slot {request.slot} has asked for something newer"))
            for older in (waiting, request)
            if older is not None and key_of(older) != key_of(newest)
        ]
        return self._settled(effects)

    # ------------------------------------------------------------------ shards

    def _from_peer(self, message: PeerMessage, now: float) -> list[Effect]:
        if not isinstance(self._rule, Rounds) or not _is_among(message, self._rules):
            return []
        match message:
            case Held():
                return [] if self._lead is None else self._settled(self._rule.report(message, now))
            case Measure():
                return self._rule.measure(message)
            case Measured():
                return self._settled(self._rule.take(message, now))
            case Commit():
                return self._settled(self._rule.close(message, now))
            case Confirm():
                if self._lead is not None:
                    self._lead.confirmed(message)
                return []
            case _:
                assert_never(message)

    # ------------------------------------------------------------------ the coordinator, the evaluator, the driver

    def _control(self, request: ControlRequest) -> list[Effect]:
        match request:
            case Announce(generation, incarnations):
                slots = self._rules.slots
                if len(incarnations) != slots:
                    reason = f"a membership names one incarnation a slot: {slots}, got {len(incarnations)}"
                    return [Answer(key_of(request), Refused(reason))]
                self._fence.announce(generation, incarnations)
                return [Answer(key_of(request), Done())]
            case Settle():
                if self._gate is None:
                    return [Answer(key_of(request), Refused(f"evaluations are settled with shard {LEAD}"))]
                self._gate.settle(request)
                return self._settled([Answer(key_of(request), Done())])
            case Read(boundary, keep):
                self._reading[boundary] = keep
                return self._settled([])
            case Inspect():
                return [Answer(key_of(request), self._figures())]
            case Load():
                return [Answer(key_of(request), Loaded())]
            case _:
                assert_never(request)

    def _figures(self) -> Figures:
        rule, gate = self._rule, self._gate
        return Figures(
            rule.version,
            0 if gate is None else gate.steps,
            rule.accepted,
            rule.dropped,
            0 if gate is None else gate.max_clock_gap,
            () if gate is None else gate.clocks,
            rule.nonfinite,
        )

    # ------------------------------------------------------------------ what has become possible

    def _settled(self, effects: list[Effect]) -> list[Effect]:
        """The effects, and behind them the answers that have become possible."""
        for effect in effects:
            if isinstance(effect, KeepSnapshot):
                self._kept[effect.boundary] = self.version
                # The gate opened the way to this boundary when the evaluation of the last but one was settled.
                effects = effects + self._let_go(Boundary(effect.boundary - 1))
        return [*effects, *self._reached(), *self._readable(), *self._pullable(), *self._startable()]

    def _let_go(self, before: Boundary) -> list[Effect]:
        """Drop the snapshots that nobody will ask for any more."""
        gone = [boundary for boundary in self._kept if boundary < before]
        for boundary in gone:
            del self._kept[boundary]
        return [DropSnapshots(before)] if gone else []

    def _reached(self) -> list[Effect]:
        """Boundaries that the run has come to since the last time."""
        if self._gate is None:
            return []
        done = self._gate.finished_steps
        effects: list[Effect] = []
        while boundary_step(self._rules, self._boundary) < boundary_step(self._rules, self._boundary + 1) <= done:
            self._boundary = Boundary(self._boundary + 1)
            effects.append(ReachBoundary(self._boundary, Step(boundary_step(self._rules, self._boundary))))
        return effects

    def _readable(self) -> list[Effect]:
        """Snapshots that somebody waits for. Boundary 0 is the state as it is; on arrival every one is, unless kept."""
        effects: list[Effect] = []
        for boundary, keep in sorted(self._reading.items()):
            ahead = boundary > max(self._kept, default=0)
            on_arrival = isinstance(self._rule, Arrivals)
            if ahead and not on_arrival:
                continue
            del self._reading[boundary]
            key = key_of(Read(boundary))
            if boundary == 0 or (ahead and not keep):
                effects.append(Answer(key, Snapshot(boundary, self.version)))
                continue
            if ahead:
                self._kept[boundary] = self.version
                effects.append(KeepSnapshot(boundary))
            if boundary in self._kept:
                effects.append(Answer(key, Snapshot(boundary, self._kept[boundary])))
                # Whoever reads it again does so before the following boundary is settled.
                effects += self._let_go(Boundary(boundary - 1) if keep else boundary)
            else:
                effects.append(Answer(key, Refused(f"the snapshot of boundary {boundary} is gone")))
        return effects

    def _pullable(self) -> list[Effect]:
        """Weights whose step is open."""
        effects: list[Effect] = []
        for slot, pull in sorted(self._pulling.items()):
            step = self._rule.weights_for(pull)
            if step is not None:
                del self._pulling[slot]
                if isinstance(self._rule, Arrivals):
                    self._rule.gave(pull)
                unchanged = pull.have == self.version and not pull.whole
                effects.append(Answer(key_of(pull), Pulled(self.version, step, unchanged)))
        return effects

    def _startable(self) -> list[Effect]:
        """Slots that the gate lets start, or that have come to the end."""
        gate = self._gate
        if gate is None:
            return []
        outlook, effects = gate.outlook, list[Effect]()
        # Many may wait for long: they are looked at again only when something has changed for them.
        for slot in sorted(self._asking if outlook != self._outlook else self._asked_anew):
            answer = gate.decide(slot, self._asking[slot].step)
            if answer is not None:
                effects.append(Answer(key_of(self._asking.pop(slot)), answer))
        self._outlook = outlook
        self._asked_anew.clear()
        return effects


_REPORTS: dict[type, type[Report]] = {
    ApplyMean: Applied,
    ApplyGradient: Applied,
    ApplyGathered: Applied,
    Gather: Gathered,
    MeasureMean: MeanMeasured,
}
"""What an effect is reported with before anything else may happen."""


def _is_among(message: PeerMessage, rules: Rules) -> bool:
    """Whether the job has the shard and the slots that a message names; whoever names others is none of its shards."""
    match message:
        case Held(shard, slot):
            return shard < rules.shards and slot < rules.slots
        case Measure(accepted=accepted) | Commit(accepted=accepted):
            return all(slot < rules.slots for slot in accepted)
        case Measured(shard) | Confirm(shard):
            return shard < rules.shards
        case _:
            assert_never(message)
