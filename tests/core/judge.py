"""What has happened in a job, counted from the outside: the gate and the ledger are never asked."""

import math
from dataclasses import dataclass, field

from psgd.core.corrections import LagRate
from psgd.core.effects import How
from psgd.core.ids import LEAD, Boundary, Shard, Slot, Step, Version
from psgd.core.messages import Commit, Granted, Pulled, Push, Receipt, Snapshot, Status
from psgd.core.modes import Async, Rules, Sync

FAR = 10**9
LR = (0.5,)


@dataclass
class Seen:
    """What one shard has been seen to do."""

    staged: dict[Slot, Push] = field(default_factory=dict)
    version: int = 0
    applied: list[tuple[Step, tuple[Slot, ...]]] = field(default_factory=list)
    gathered: list[tuple[Push, float]] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)
    copies: set[Version] = field(default_factory=set)
    receipts: dict[tuple[Slot, Step], Receipt] = field(default_factory=dict)
    snapshots: dict[Boundary, int] = field(default_factory=dict)
    measured: dict[Step, tuple[tuple[Slot, ...], tuple[float, ...]]] = field(default_factory=dict)

    def finished(self, slot: Slot) -> int:
        """Iterations of a slot that the shard has answered, without a gap from the first."""
        count = 0
        while (slot, Step(count)) in self.receipts:
            count += 1
        return count

    @property
    def closed(self) -> int:
        """Steps that the shard has closed: each is answered to one slot at least."""
        return max((step + 1 for _, step in self.receipts), default=0)

    def knows(self, slot: Slot, step: Step) -> bool:
        """Whether this push, or a later one of the slot, has been staged or answered."""
        return step <= self._newest(slot)

    def repeats(self, slot: Slot, step: Step) -> Receipt | None:
        """What a repeat of the slot's newest push is told: its first answer, and None while it has none."""
        return self.receipts.get((slot, step)) if step == self._newest(slot) else None

    def _newest(self, slot: Slot) -> int:
        staged = {slot: push.step for slot, push in self.staged.items()}
        return max([*(s for other, s in self.receipts if other == slot), staged.get(slot, -1)])


class Judge:
    """The rules of a job, as somebody who only watches would put them."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.slots = [Slot(slot) for slot in range(rules.slots)]
        self.shards = [Seen() for _ in range(rules.shards)]
        self.grants: dict[tuple[Slot, Step], int] = {}
        self.widest = 0
        self.commits: dict[Step, Commit] = {}
        self.boundaries: dict[Boundary, int] = {}
        self.reached = 0
        self.settled = 0
        self.end = FAR if rules.steps is None else rules.steps
        self.left: dict[Slot, int] = {}
        self.factors: dict[int, float] = {0: 1.0}

    # ------------------------------------------------------------------ the gate

    def granted(self, slot: Slot, granted: Granted) -> None:
        """The lead lets a slot start an iteration."""
        if (slot, granted.step) in self.grants:
            return
        assert slot not in self.left
        drawn = self.grants[slot, granted.step] = len(self.grants)
        limit = min(self.end, self.boundary_step(self.settled + 2))
        if isinstance(self.rules.mode, Sync):
            assert granted.tick == granted.step < limit
            assert granted.lr_factor == self.lr_factor(granted.step)
            return
        assert granted.lr_factor == self.lr_factor(granted.tick)
        assert granted.tick == drawn // self.rules.slots
        assert drawn < limit * self.rules.slots
        gap = granted.step - min(self.finished(other) for other in self.slots if other not in self.left)
        self.widest = max(self.widest, gap)
        assert self.rules.mode.staleness is None or gap <= self.rules.mode.staleness

    def computes(self, slot: Slot, step: Step) -> None:
        """A slot starts to compute."""
        assert (slot, step) in self.grants or slot in self.left
        if isinstance(self.rules.mode, Sync):
            assert min(seen.closed for seen in self.shards) >= step, "the step is not open everywhere"

    def finished(self, slot: Slot) -> int:
        """Iterations of the slot that every shard has answered."""
        return min(seen.finished(slot) for seen in self.shards)

    def settles(self, *, stop: bool) -> tuple[Boundary, float]:
        """The oldest evaluation that is under way is settled; the learning rate is halved from the following one on."""
        self.settled += 1
        following = self.boundary_step(self.settled + 1)
        if stop:
            self.end = min(self.end, following)
        factor = 0.5**self.settled
        self.factors.setdefault(following, factor)
        return Boundary(self.settled), factor

    def lr_factor(self, step: int) -> float:
        """What evaluations have made of the learning rate at a step."""
        return self.factors[max(start for start in self.factors if start <= step)]

    def leaves(self, slot: Slot, finished: int) -> None:
        """A slot's own loop has ended."""
        if self.left.setdefault(slot, finished) == finished:
            self.grants = {key: n for key, n in self.grants.items() if key[0] != slot or key[1] < finished}

    def reaches(self, shard: Shard, boundary: Boundary, step: Step) -> None:
        """The lead says that the job has come to a boundary."""
        assert (shard, boundary, step) == (LEAD, self.reached + 1, self.boundary_step(boundary))
        if isinstance(self.rules.mode, Sync):
            assert self.shards[LEAD].closed == step
        else:
            assert sum(map(self.finished, self.slots)) >= step * self.rules.slots
        self.reached = boundary

    def boundary_step(self, boundary: int) -> int:
        """Where an evaluation boundary lies."""
        return min(boundary * (self.rules.evaluate_every or FAR), self.rules.steps or FAR)

    # ------------------------------------------------------------------ the shards

    def stages(self, shard: Shard, push: Push) -> None:
        """A shard keeps a gradient."""
        assert push.slot not in self.shards[shard].staged, "forgot the one before"
        self.shards[shard].staged[push.slot] = push

    def measures(self, shard: Shard, step: Step, slots: tuple[Slot, ...], squares: tuple[float, ...]) -> None:
        """A shard takes the mean of these slots' gradients."""
        seen = self.shards[shard]
        assert step not in seen.measured, "measured twice"
        assert all(seen.staged[slot].step == step for slot in slots)
        seen.measured[step] = slots, squares

    def clip_scale(self, step: Step, slots: tuple[Slot, ...]) -> float:
        """From what every shard has measured."""
        if self.rules.clip_norm is None:
            return 1.0
        assert {seen.measured[step][0] for seen in self.shards} == {slots}, "measured something else"
        norm = math.sqrt(sum(each for seen in self.shards for each in seen.measured[step][1]))
        return min(1.0, self.rules.clip_norm / (norm + 1e-6))

    def applies(self, shard: Shard, step: Step, slots: tuple[Slot, ...], how: How) -> None:
        """A shard updates with these slots' gradients."""
        seen = self.shards[shard]
        assert list(slots) == sorted(set(slots)), "not in slot order"
        for slot in slots:
            push = seen.staged.pop(slot)
            assert push.step == step
            assert push.finite
            assert not any(step == s and slot in taken for s, taken in seen.applied), "applied twice"
            if isinstance(self.rules.mode, Sync):
                assert push.pulled == seen.version, "computed from other weights"
                assert len(slots) >= self.rules.mode.quorum(self.rules.slots), "did not wait"
                assert how == How(step, self.lr_factor(step), self.clip_scale(step, slots))
            else:
                assert how == self.how(shard, push)
        seen.applied.append((step, slots))
        seen.version += 1

    def how(self, shard: Shard, push: Push) -> How:
        """How a push is to be taken by itself, on arrival."""
        seen, limit = self.shards[shard], self.rules.clip_norm
        assert (push.norm is None) == (limit is None)
        scale = 1.0 if limit is None or push.norm is None else min(1.0, limit / (push.norm + 1e-6))
        late = push.pulled if self.rules.keeps_pulled and push.pulled < seen.version else None
        assert late is None or late in seen.copies, "the weights that it was computed from are gone"
        return How(push.tick, push.lr_factor * self.weight(seen.version - push.pulled), scale, late)

    def weight(self, lag: int) -> float:
        """What a gradient counts for."""
        return 1 / lag if isinstance(self.rules.correction, LagRate) and lag > 1 else 1.0

    def gathers(self, shard: Shard, slot: Slot, step: Step, how: How, weight: float) -> None:
        """A shard adds a gradient to those of its next update."""
        seen = self.shards[shard]
        push = seen.staged.pop(slot)
        assert push.step == step
        assert push.finite
        assert not any((slot, step) == (s, at) for at, slots in seen.applied for s in slots), "applied before"
        assert not any((slot, step) == (other.slot, other.step) for other, _ in seen.gathered), "gathered twice"
        assert weight == self.weight(seen.version - push.pulled)
        assert how == self.how(shard, push)
        seen.gathered.append((push, weight))

    def applies_gathered(self, shard: Shard, count: int, weight: float, how: How) -> None:
        """A shard updates with all that it has gathered."""
        seen = self.shards[shard]
        weights = [weight for _, weight in seen.gathered]
        last, _ = seen.gathered[-1]
        assert (count, weight) == (len(weights), sum(weights))
        assert how == How(last.tick, last.lr_factor * (sum(weights) / count))
        seen.applied += [(push.step, (push.slot,)) for push, _ in seen.gathered]
        seen.windows.append(count)
        seen.gathered = []
        seen.version += 1

    def holds(self, shard: Shard, now: Version, versions: tuple[Version, ...]) -> None:
        """A shard keeps copies of weights."""
        seen = self.shards[shard]
        assert now == seen.version
        assert set(versions) <= seen.copies | {now}, "wants a copy of weights that are gone"
        seen.copies = set(versions)

    def commits_to(self, commit: Commit) -> None:
        """The lead tells a shard to close a step."""
        assert self.commits.setdefault(commit.step, commit) == commit, "closed twice, and not the same way"

    def answers(self, shard: Shard, slot: Slot, receipt: Receipt) -> None:
        """A shard answers a push."""
        receipts, key = self.shards[shard].receipts, (slot, receipt.step)
        if key in receipts:
            assert receipt == receipts[key], "a repeat got another answer"
            return
        receipts[key] = receipt
        assert receipt.lr == (LR if receipt.status is Status.ACCEPTED else ())
        if isinstance(receipt.following, Granted):
            self.granted(slot, receipt.following)

    def pulled(self, shard: Shard, reply: Pulled) -> None:
        """A shard gives weights."""
        seen = self.shards[shard]
        assert reply.version == seen.version
        if isinstance(self.rules.mode, Sync) and not self.left:
            assert reply.step == seen.closed

    def keeps(self, shard: Shard, boundary: Boundary) -> None:
        """A shard keeps a snapshot."""
        version = self.shards[shard].version
        if isinstance(self.rules.mode, Sync):
            assert self.boundaries.setdefault(boundary, version) == version, "shards keep different versions"
        assert boundary not in self.shards[shard].snapshots, "kept twice"
        self.shards[shard].snapshots[boundary] = version

    def drops(self, shard: Shard, before: Boundary) -> None:
        """A shard lets go of snapshots."""
        seen = self.shards[shard]
        seen.snapshots = {b: version for b, version in seen.snapshots.items() if b >= before}

    def gives(self, shard: Shard, snapshot: Snapshot) -> None:
        """A shard gives a snapshot."""
        seen = self.shards[shard]
        kept = seen.snapshots.get(snapshot.boundary)
        assert kept is not None or snapshot.boundary == 0 or not isinstance(self.rules.mode, Sync)
        assert snapshot.version == (seen.version if kept is None else kept)

    # ------------------------------------------------------------------ at the end

    def verify_sync(self) -> None:
        """All shards have come the same way."""
        first = self.shards[LEAD]
        for seen in self.shards:
            assert not seen.staged
            assert seen.applied == first.applied
            assert seen.version == first.version == len(first.applied)
            for key in seen.receipts.keys() & first.receipts.keys():
                assert seen.receipts[key].status == first.receipts[key].status
                assert seen.receipts[key].version == first.receipts[key].version or (
                    seen.receipts[key].status is Status.LATE
                )

    def verify_async(self, deaths: int) -> None:
        """Every granted iteration ends on all shards, and is applied by one, by all or by none."""
        for seen in self.shards:
            assert not seen.staged
            assert seen.receipts.keys() == self.grants.keys()
            taken = [(slot, step) for step, slots in seen.applied for slot in slots]
            assert len(set(taken)) == len(taken), "applied twice"
            left = [(push.slot, push.step) for push, _ in seen.gathered]
            accepted = {key for key, receipt in seen.receipts.items() if receipt.status is Status.ACCEPTED}
            assert {*taken, *left} == accepted
            assert not set(taken) & set(left)
            self._verify_windows(seen)
        for key in self.grants:
            verdicts = {seen.receipts[key].status for seen in self.shards}
            assert len(verdicts - {Status.ADVANCED}) == 1
            assert deaths or Status.ADVANCED not in verdicts

    def _verify_windows(self, seen: Seen) -> None:
        """Every update had as many gradients as the mode says, but for the last one of a budget that was used up."""
        gather = self.rules.mode.gather if isinstance(self.rules.mode, Async) else 1
        if gather == 1:
            assert seen.version == len(seen.applied)
            return
        assert seen.version == len(seen.windows)
        assert all(count == gather for count in seen.windows[:-1])
        assert all(1 <= count <= gather for count in seen.windows[-1:])
        if self.rules.steps is not None and self.end == self.rules.steps:
            assert not seen.gathered, "the budget is used up, and something is left"
