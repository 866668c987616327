"""The apply rule of sync mode: shards stage gradients, the lead commits a step, only the commit lets a shard apply."""

from dataclasses import dataclass, field
from math import isfinite

from psgd.core.clipping import ExactSum, clip_scale, norm_of
from psgd.core.effects import (
    Answer,
    ApplyMean,
    Discard,
    Effect,
    How,
    KeepSnapshot,
    MeasureMean,
    Stage,
    Tell,
    key_of,
    push_key,
)
from psgd.core.gate import RoundGate, boundary_at
from psgd.core.ids import LEAD, Shard, Slot, Step, Version
from psgd.core.ledger import Ledger
from psgd.core.messages import Commit, Confirm, Held, Measure, Measured, Pull, Push, Receipt, Refused, Status
from psgd.core.modes import Rules, Sync
from psgd.errors import InternalError

RESEND_S = 1.0
"""Seconds after which a message among shards that was not confirmed is sent again."""


@dataclass(slots=True)
class RoundLead:
    """Shard 0's part: who holds what of the open step, how large it is, and the commit until all have confirmed it."""

    rules: Rules
    mode: Sync
    gate: RoundGate
    holders: dict[Slot, dict[Shard, bool]] = field(default_factory=dict)
    whole: set[Slot] = field(default_factory=set)
    """Slots that all shards hold; counted as it comes: to look at every slot for each message would take too long."""
    measure: Measure | None = None
    squares: dict[Shard, ExactSum] = field(default_factory=dict)
    commit: Commit | None = None
    unconfirmed: set[Shard] = field(default_factory=set)
    sent_at: float = 0.0

    def hold(self, held: Held) -> Commit | Measure | None:
        """A shard holds a slot's gradient of the open step; what follows, if that was the last one missing."""
        if held.step != self.gate.steps or self.measure is not None:
            return None  # of a step that has closed, or whose slots are chosen: a message that was sent again, or late
        holders = self.holders.setdefault(held.slot, {})
        holders.setdefault(held.shard, held.finite)
        if len(holders) == self.rules.shards:
            self.whole.add(held.slot)
        if self.gate.cut_short:
            return Commit(held.step, (), update=False)
        if len(self.whole) < self.mode.quorum(self.rules.slots):
            return None
        accepted = tuple(sorted(self.whole))
        finite = all(all(self.holders[slot].values()) for slot in accepted)
        if finite and self.rules.clip_norm is not None:
            return Measure(held.step, accepted)
        return self._close(held.step, accepted, update=finite)

    def take(self, measured: Measured) -> Commit | None:
        """How large a shard's part of the mean is; the commit, if that was the last one missing."""
        if self.measure is None or self.rules.clip_norm is None or measured.step != self.measure.step:
            return None
        self.squares[measured.shard] = measured.squares
        if len(self.squares) < self.rules.shards:
            return None
        norm = norm_of([self.squares[shard] for shard in sorted(self.squares)])
        step, accepted = self.measure.step, self.measure.accepted
        if not isfinite(norm):  # each gradient was finite, their sum is not
            return self._close(step, accepted, update=False)
        return self._close(step, accepted, update=True, scale=clip_scale(norm, self.rules.clip_norm))

    def _close(self, step: Step, accepted: tuple[Slot, ...], update: bool, scale: float = 1.0) -> Commit:
        return Commit(step, accepted, update, scale, self.rules.update_factor(self.gate.lr_factor))

    def measuring(self, measure: Measure, now: float) -> list[Effect]:
        """Keep the question and put it to every other shard."""
        self.measure, self.squares, self.sent_at = measure, {}, now
        return [Tell(shard, measure) for shard in self._others()]

    def committed(self, commit: Commit, now: float) -> list[Effect]:
        """Keep the commit and tell every other shard."""
        self.holders.clear()
        self.whole.clear()
        self.measure = None
        self.commit, self.sent_at = commit, now
        self.unconfirmed = set(self._others())
        return [Tell(shard, commit) for shard in sorted(self.unconfirmed)]

    def confirmed(self, confirm: Confirm) -> None:
        """A shard has closed the step."""
        if self.commit is not None and confirm.step == self.commit.step:
            self.unconfirmed.discard(confirm.shard)

    def resend(self, now: float) -> list[Effect]:
        """The commit again to those who have not confirmed it in time, the question to those who have not answered."""
        if now - self.sent_at < RESEND_S:
            return []
        again: list[Effect] = []
        if self.commit is not None:
            again += [Tell(shard, self.commit) for shard in sorted(self.unconfirmed)]
        if self.measure is not None:
            again += [Tell(shard, self.measure) for shard in self._others() if shard not in self.squares]
        self.sent_at = now if again else self.sent_at
        return again

    def _others(self) -> list[Shard]:
        return [Shard(k) for k in range(self.rules.shards) if k != LEAD]


class Rounds:
    """One shard's rounds: one step is open at a time.

    Args:
        ledger: shared with the protocol, which consults it first.
        lead: shard 0's part; None on the others.
    """

    def __init__(self, rules: Rules, shard: Shard, ledger: Ledger, lead: RoundLead | None) -> None:
        self.version = Version(0)
        self.accepted = 0
        self.dropped = 0
        self.nonfinite = 0
        self._rules = rules
        self._shard = shard
        self._ledger = ledger
        self._lead = lead
        self._open = Step(0)
        self._held: dict[Slot, Held] = {}
        self._held_since: dict[Slot, float] = {}
        self._decided_at = 0.0
        self._measuring: Step | None = None
        self._measured: Measured | None = None
        self._closing: Commit | None = None
        self._told_at = 0.0

    def finished(self, slot: Slot) -> int:
        """Nothing to make up for: a step closes on all shards alike, so the lead's open step says where to go on."""
        return 0

    def weights_for(self, pull: Pull) -> Step | None:
        """The step that the weights are for, or None: it is not open here yet."""
        return None if pull.step > self._open else self._open

    def push(self, push: Push, now: float) -> list[Effect]:
        """A new gradient is whole."""
        if push.step > self._open:
            refused = Refused(f"step {push.step} of slot {push.slot} is not open: step {self._open} is")
            return [Answer(key_of(push), refused)]
        if push.step < self._open:
            return self._answer(push.slot, push.step, Status.LATE, _late(push.step))
        self._ledger.stage(push.slot, push.step)
        held = self._held[push.slot] = Held(self._shard, push.slot, push.step, push.finite)
        self._held_since[push.slot] = now
        staged = Stage(push.slot, push.step, push.absent)
        return [staged, *self.report(held, now)]

    def report(self, held: Held, now: float) -> list[Effect]:
        """Tell the lead who is held; on the lead itself, measure or close the step if that was the last one."""
        if self._lead is None:
            self._told_at = now
            return [Tell(LEAD, held)]
        match self._lead.hold(held):
            case Measure() as measure:
                return [*self._lead.measuring(measure, now), *self.measure(measure)]
            case decided:
                return self._commit(decided, now)

    def _commit(self, commit: Commit | None, now: float) -> list[Effect]:
        """On the lead: tell the others what is decided, and do it."""
        if commit is None or self._lead is None:
            return []
        return [*self._lead.committed(commit, now), *self.close(commit, now)]

    def measure(self, measure: Measure) -> list[Effect]:
        """The lead wants to know how large this shard's part of the mean is. A repeat gets the same answer."""
        if self._measured is not None and self._measured.step == measure.step:
            return [Tell(LEAD, self._measured)]
        if measure.step != self._open or self._closing is not None:
            return []
        self._check_held(measure.step, measure.accepted)
        self._measuring = measure.step
        return [MeasureMean(measure.step, measure.accepted)]

    def measured(self, squares: ExactSum, now: float) -> list[Effect]:
        """The mean is taken: tell the lead how large it is."""
        if self._measuring is None:
            raise InternalError(f"shard {self._shard} measured a mean that nobody asked for")
        measured = Measured(self._shard, self._measuring, squares)
        self._measuring = None
        if self._lead is not None:
            return self.take(measured, now)
        self._measured = measured
        return [Tell(LEAD, measured)]

    def take(self, measured: Measured, now: float) -> list[Effect]:
        """On the lead: close the step if that was the last part of the norm."""
        return [] if self._lead is None else self._commit(self._lead.take(measured), now)

    def close(self, commit: Commit, now: float) -> list[Effect]:
        """The lead has decided: update, or only close. A repeat is confirmed again."""
        if commit.step < self._open:
            return self._confirm(commit.step)
        if commit.step > self._open or self._closing is not None:
            return []  # the lead sends it again
        self._check_held(commit.step, commit.accepted)
        self._closing, self._decided_at = commit, now
        if commit.update:
            how = How(commit.step, commit.lr_factor, commit.clip_scale)
            return [ApplyMean(commit.step, commit.accepted, how)]
        return self.applied(())

    def _check_held(self, step: Step, accepted: tuple[Slot, ...]) -> None:
        missing = [slot for slot in accepted if slot not in self._held]
        if missing:
            raise InternalError(f"step {step} was decided with slots {missing} that shard {self._shard} lacks")

    def applied(self, lr: tuple[float, ...]) -> list[Effect]:
        """The update is made (or was none): the step is closed, and everybody who pushed gets a receipt."""
        commit = self._closing
        if commit is None:
            raise InternalError(f"shard {self._shard} applied an update that no commit asked for")
        step, held, since = commit.step, self._held, self._held_since
        self._closing, self._held, self._held_since, self._measured = None, {}, {}, None
        self._open = Step(step + 1)
        self.version = Version(self.version + commit.update)
        accepted = frozenset(commit.accepted)
        taken = len(accepted) if commit.update else 0
        self.accepted += taken
        self.dropped += self._rules.slots - taken
        self.nonfinite += len(accepted) - taken
        effects: list[Effect] = []
        if self._lead is not None:
            self._lead.gate.closed(self._open)
        verdict = _verdict(commit, held)
        for slot in sorted(held):
            if not (commit.update and slot in accepted):
                effects.append(Discard(slot))
            status, reason = (Status.LATE, _late(step)) if slot not in accepted else verdict
            scale = commit.clip_scale if status is Status.ACCEPTED else 1.0
            used, held_s = lr if slot in accepted else (), self._decided_at - since[slot]
            effects += self._answer(slot, step, status, reason, used, scale, held_s)
        boundary = boundary_at(self._rules, self._open)
        if boundary is not None:
            effects.append(KeepSnapshot(boundary))
        return effects + self._confirm(step)

    def cut_short(self, now: float) -> list[Effect]:
        """A slot has left for good: if others hold the open step, it closes with nobody, and they hear the end."""
        lead = self._lead
        if lead is None or not lead.gate.cut_short or not lead.holders or lead.measure is not None:
            return []
        return self._commit(Commit(self._open, (), update=False), now)

    def resend(self, now: float) -> list[Effect]:
        """Tell again what the other side has not shown to know."""
        if self._lead is not None:
            return self._lead.resend(now)
        if not self._held or now - self._told_at < RESEND_S:
            return []
        self._told_at = now
        return [Tell(LEAD, held) for _, held in sorted(self._held.items())]

    def _confirm(self, step: Step) -> list[Effect]:
        return [] if self._lead is not None else [Tell(LEAD, Confirm(self._shard, step))]

    def _answer(
        self,
        slot: Slot,
        step: Step,
        status: Status,
        reason: str,
        lr: tuple[float, ...] = (),
        clip_scale: float = 1.0,
        held_s: float = 0.0,
    ) -> list[Effect]:
        following = None if self._lead is None else self._lead.gate.decide(slot, Step(step + 1))
        receipt = Receipt(step, status, reason, self.version, 0, lr, following, False, clip_scale, held_s)
        self._ledger.answer(slot, receipt)
        return [Answer(push_key(slot, step), receipt)]


def _late(step: Step) -> str:
    return f"step {step} closed without it"


def _verdict(commit: Commit, held: dict[Slot, Held]) -> tuple[Status, str]:
    """What becomes of the gradients that the step closes with, and why."""
    if not commit.update:
        culprits = ", ".join(str(s) for s in commit.accepted if not held[s].finite)
        whose = f"from slot {culprits}" if culprits else "in the mean of finite gradients"
        return Status.NONFINITE, f"step {commit.step} closed without an update: NaN or Inf {whose}"
    return Status.ACCEPTED, f"one of {len(commit.accepted)} in step {commit.step}"
