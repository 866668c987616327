"""The gate: who may start an iteration. One gate a job, at the lead."""

from bisect import bisect_right
from dataclasses import dataclass, field

from psgd.core.ids import Boundary, Slot, Step
from psgd.core.messages import Ended, Granted, Settle
from psgd.core.modes import Async, Rules


def may_start(clock: int, slowest: int, staleness: int | None) -> bool:
    """Whether a slot may start iteration ``clock`` while the slowest has finished ``slowest`` iterations.

    >>> may_start(clock=4, slowest=2, staleness=2), may_start(clock=5, slowest=2, staleness=2)
    (True, False)
    """
    return staleness is None or clock - slowest <= staleness


UNREACHED = 2**62
"""A step that no run reaches."""


def boundary_step(rules: Rules, boundary: int) -> int:
    """The step at which an evaluation boundary lies; the last one lies at the end of the run."""
    steps = UNREACHED if rules.steps is None else rules.steps
    return min(boundary * (rules.evaluate_every or UNREACHED), steps)


def boundary_at(rules: Rules, step: int) -> Boundary | None:
    """The number of the boundary that lies at a step (counted in finished steps), if one does."""
    every = rules.evaluate_every or UNREACHED
    if step == 0 or (step % every and step != rules.steps):
        return None
    return Boundary(-(-step // every))


@dataclass(slots=True)
class Budget:
    """How far the run may go: its end, and the boundary beyond which an evaluation has to be settled first.

    The evaluation of boundary k decides what happens at boundary k+1, so nobody starts an iteration behind k+1
    before k is settled: the run does not depend on how long an evaluation took.
    """

    rules: Rules
    settled: int = 0
    steps: int | None = field(init=False)
    _factors: list[tuple[int, float]] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = self.rules.steps
        self._factors = [(0, 1.0)]

    def settle(self, verdict: Settle) -> None:
        """Take the verdict of an evaluation; a repeat changes nothing."""
        if verdict.boundary != self.settled + 1:
            return
        self.settled = verdict.boundary
        following = boundary_step(self.rules, verdict.boundary + 1)
        if verdict.stop:
            self.steps = following if self.steps is None else min(self.steps, following)
        in_use = self._index(boundary_step(self.rules, verdict.boundary))
        self._factors = [*self._factors[in_use:], (following, verdict.lr_factor)]

    def lr_factor(self, step: int) -> float:
        """What evaluations have made of the schedule's learning rate, at a step."""
        return self._factors[self._index(step)][1]

    def _index(self, step: int) -> int:
        return bisect_right(self._factors, step, key=lambda entry: entry[0]) - 1

    def exhausted(self, drawn: int, batches_a_step: int) -> bool:
        """Whether ``drawn`` iterations, of ``batches_a_step`` a step, are all that there are."""
        return self.steps is not None and drawn >= self.steps * batches_a_step

    def open(self, drawn: int, batches_a_step: int) -> bool:
        """Whether the next iteration lies before the first boundary that has to wait for an evaluation."""
        return drawn < boundary_step(self.rules, self.settled + 2) * batches_a_step


class RoundGate:
    """Sync: a slot may start the open step, and only that."""

    def __init__(self, rules: Rules) -> None:
        self.max_clock_gap = 0
        self._slots = rules.slots
        self._budget = Budget(rules)
        self._closed = 0
        self._last: int | None = None

    @property
    def steps(self) -> int:
        """Steps closed."""
        return self._closed

    finished_steps = steps

    @property
    def outlook(self) -> tuple[object, ...]:
        """As long as it stays the same, so does the answer to a slot that may not start yet."""
        return self._closed, self._budget.settled, self._last

    @property
    def clocks(self) -> tuple[int, ...]:
        """A step that closes ends every slot's iteration: taken or dropped."""
        return (self._closed,) * self._slots

    @property
    def lr_factor(self) -> float:
        """What evaluations have made of the schedule's learning rate, for the open step."""
        return self._budget.lr_factor(self._closed)

    def closed(self, steps: int) -> None:
        """So many steps have closed."""
        self._closed = steps

    def settle(self, verdict: Settle) -> None:
        """An evaluation is settled."""
        self._budget.settle(verdict)

    def leave(self, finished: int) -> None:
        """A slot's own loop has ended: no step behind it can close, so the run ends there."""
        self._last = finished if self._last is None else min(self._last, finished)

    @property
    def cut_short(self) -> bool:
        """Whether the open step can not close any more, because a slot has left."""
        return self._last is not None and self._closed >= self._last

    @property
    def ended(self) -> bool:
        """Whether all steps of the budget have closed."""
        return self._budget.exhausted(self._closed, 1)

    def decide(self, slot: Slot, step: Step) -> Granted | Ended | None:
        """The answer to a slot that asks for ``step``, or None: not yet."""
        if self.ended or self.cut_short:
            return Ended()
        if step > self._closed or not self._budget.open(self._closed, 1):
            return None
        return Granted(Step(self._closed), self._closed, self.lr_factor)


class ClockGate:
    """Async: a slot may start iteration c while c − the slowest slot's finished iterations ≤ staleness."""

    def __init__(self, rules: Rules, mode: Async) -> None:
        self.max_clock_gap = 0
        self._staleness = mode.staleness
        self._slots = rules.slots
        self._budget = Budget(rules)
        self._finished = dict.fromkeys(map(Slot, range(rules.slots)), 0)
        self._finished_in_all = 0
        self._slots_at = {0: rules.slots}  # finished iterations → slots that have finished so many and have not left
        self._slowest: int | None = 0
        self._left: set[Slot] = set()
        self._granted: dict[Slot, Granted] = {}
        self._drawn = 0

    @property
    def steps(self) -> int:
        """Iterations granted ÷ slots, rounded down: how often the schedule has ticked."""
        return self._drawn // self._slots

    @property
    def outlook(self) -> tuple[object, ...]:
        """As long as it stays the same, so does the answer to a slot that may not start yet."""
        exhausted = self._budget.exhausted(self._drawn, self._slots)
        return self._slowest, self._budget.settled, len(self._left), exhausted

    @property
    def clocks(self) -> tuple[int, ...]:
        """Finished iterations, indexed by slot."""
        return tuple(self._finished[Slot(slot)] for slot in range(self._slots))

    @property
    def finished_steps(self) -> int:
        """Finished iterations of all slots ÷ slots, rounded down."""
        return self._finished_in_all // self._slots

    def settle(self, verdict: Settle) -> None:
        """An evaluation is settled."""
        self._budget.settle(verdict)

    def leave(self, slot: Slot, finished: int) -> None:
        """A slot's own loop has ended: nobody waits for it, and an iteration that it leaves undone is free again."""
        self.finish(slot, finished)
        if slot not in self._left:
            self._left.add(slot)
            self._count(self._finished[slot], -1)
        granted = self._granted.pop(slot, None)
        if granted is not None and granted.step >= finished:
            self._drawn -= 1

    def finish(self, slot: Slot, finished: int) -> None:
        """The slot has finished so many iterations, each answered by all shards."""
        before = self._finished[slot]
        if finished <= before:
            return
        self._finished[slot] = finished
        self._finished_in_all += finished - before
        if slot not in self._left:
            self._count(finished, 1)
            self._count(before, -1)

    def _count(self, finished: int, change: int) -> None:
        """Other slots than before have finished so many iterations. To look at each of them would take too long."""
        self._slots_at[finished] = self._slots_at.get(finished, 0) + change
        if self._slots_at[finished] == 0:
            del self._slots_at[finished]
            if finished == self._slowest:
                self._slowest = min(self._slots_at, default=None)

    def decide(self, slot: Slot, step: Step) -> Granted | Ended | None:
        """The answer to a slot that asks for ``step``, or None: not yet. A repeated question gets the last grant."""
        earlier = self._granted.get(slot)
        if earlier is not None and step <= earlier.step:
            return earlier
        if slot in self._left or self._budget.exhausted(self._drawn, self._slots):
            return Ended()
        slowest = step if self._slowest is None else self._slowest
        if not may_start(step, slowest, self._staleness) or not self._budget.open(self._drawn, self._slots):
            return None
        self.max_clock_gap = max(self.max_clock_gap, step - slowest)
        granted = self._granted[slot] = Granted(step, self.steps, self._budget.lr_factor(self.steps))
        self._drawn += 1
        return granted
