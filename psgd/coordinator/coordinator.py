"""The coordinator: takes what happened, decides what is to be done, and says why. Never in the hot path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psgd.coordinator.failure import Lease, may_replace
from psgd.core.gate import UNREACHED, boundary_step
from psgd.core.ids import Boundary, Incarnation, Step
from psgd.core.membership import Membership
from psgd.core.modes import Rules
from psgd.errors import InternalError
from psgd.runlog import Evaluation
from psgd.training.policies import Policies, Stop

# ------------------------------------------------------------------ events


@dataclass(frozen=True, slots=True)
class TrainingBegan:
    """The workers are told to run: the time that training takes is counted from here."""


@dataclass(frozen=True, slots=True)
class BoundaryReached:
    """The lead says that every iteration before the boundary's step is finished."""

    boundary: Boundary
    step: Step


@dataclass(frozen=True, slots=True)
class SnapshotEvaluated:
    """The evaluator has measured the boundary's snapshot.

    Args:
        versions: of the snapshot, indexed by shard.
        metrics: by name: ``test_loss``, …
        seconds: of reading and measuring.
        arrays: metrics that are more than one number, by name.
    """

    boundary: Boundary
    versions: tuple[int, ...]
    metrics: dict[str, float]
    seconds: float
    arrays: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerBeat:
    """A worker shows that it is alive."""

    worker: int
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class WorkerEnded:
    """All slots of a worker have come to their end."""

    worker: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker's process is gone."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed."""


Event = TrainingBegan | BoundaryReached | SnapshotEvaluated | WorkerBeat | WorkerEnded | WorkerLost | Ticked

# ------------------------------------------------------------------ decisions


@dataclass(frozen=True, slots=True)
class EvaluateSnapshot:
    """Let the evaluator measure the boundary's snapshot."""

    boundary: Boundary
    step: Step


@dataclass(frozen=True, slots=True)
class SaveSnapshot:
    """Write the weights that were measured.

    Args:
        names: of the files, without their ending.
        metrics: what was measured.
    """

    boundary: Boundary
    names: tuple[str, ...]
    step: Step
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class SettleBoundary:
    """Tell the lead that the boundary's evaluation is settled.

    Args:
        stop: end the run at the following boundary.
        lr_factor: of the schedule's learning rate, from the following boundary on.
    """

    boundary: Boundary
    stop: bool
    lr_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Log:
    """Write the record, with the driver's time."""

    record: Evaluation


@dataclass(frozen=True, slots=True)
class ReplaceWorker:
    """Make sure that the worker's process is gone, tell the shards, start its next incarnation."""

    worker: int
    membership: Membership
    reason: str


@dataclass(frozen=True, slots=True)
class FinishRun:
    """The run is complete."""

    reason: str


@dataclass(frozen=True, slots=True)
class FailRun:
    """The run can not go on."""

    reason: str


STARTING_S = 120.0
"""Seconds that a replacement may take before it gives its first sign of life, beside its lease."""

NO_RULE = "nothing to stop for"

AFTER_ALL = Boundary(0)
"""Stands for the state as it is, when loops without a budget have ended."""

Decision = EvaluateSnapshot | SaveSnapshot | SettleBoundary | Log | ReplaceWorker | FinishRun | FailRun


class Coordinator:
    """The schedule of one run.

    Args:
        evaluates: whether there is an evaluator.
        policies: what evaluations decide.
        max_failures: how many workers may be replaced; -1: without end.
        lease_s: a worker that shows no sign of life for so long is taken for lost.
    """

    def __init__(
        self,
        rules: Rules,
        workers: int,
        evaluates: bool,
        policies: Policies,
        max_failures: int,
        lease_s: float,
    ) -> None:
        self.membership = Membership.first(rules.slots, workers)
        self.stopped_early: str | None = None
        self._rules = rules
        self._evaluates = evaluates
        self._policies = policies
        self._max_failures = max_failures
        self._failures = 0
        self._lease = Lease(lease_s)
        self._running = set(range(workers))
        self._steps: dict[Boundary, Step] = {}
        self._measured: dict[Boundary, Mapping[str, float]] = {}
        self._ordered = Boundary(0)
        self._settled = Boundary(0)
        self._end = UNREACHED if rules.steps is None else rules.steps
        self._began: float | None = None
        self._finished = False

    def handle(self, event: Event, now: float) -> list[Decision]:
        """Take an event, return what is to be done, in this order.

        Args:
            now: seconds on a monotonic clock.
        """
        match event:
            case TrainingBegan():
                self._began = now
                return []
            case BoundaryReached(boundary, step):
                return self._reached(boundary, step)
            case SnapshotEvaluated():
                return self._evaluated(event, now)
            case WorkerBeat(worker, incarnation):
                if incarnation == self.membership.incarnation_of(worker):
                    self._lease.renew(worker, now)
                return []
            case WorkerEnded(worker):
                self._running.discard(worker)
                self._lease.end(worker)
                return self._last_evaluation() or self._finish()
            case WorkerLost(worker, reason):
                return self._lost(worker, reason, now)
            case Ticked():
                return [d for worker, reason in self._lease.expired(now) for d in self._lost(worker, reason, now)]

    def _reached(self, boundary: Boundary, step: Step) -> list[Decision]:
        """Evaluate boundaries in their order, in whatever order the reports of them arrive."""
        self._steps[boundary] = step
        decisions: list[Decision] = []
        while (following := Boundary(self._ordered + 1)) in self._steps:
            self._ordered = following
            decisions += self._evaluate(following)
        return decisions

    def _evaluate(self, boundary: Boundary) -> list[Decision]:
        step = self._steps[boundary]
        return [EvaluateSnapshot(boundary, step)] if self._evaluates else self._settle(SettleBoundary(boundary, False))

    def _evaluated(self, event: SnapshotEvaluated, now: float) -> list[Decision]:
        """What follows from the evaluations so far; it takes effect at the following boundary."""
        if self._began is None:
            raise InternalError(f"boundary {event.boundary} was evaluated before training began")
        self._measured[event.boundary] = event.metrics
        history = list(self._measured.values())
        verdict = self._policies.verdict(history, now - self._began)
        lr_factor, why = self._policies.lr_factor(history)
        names = self._policies.keeping.decide(history) if self._policies.keeping else ()
        step = self._steps[event.boundary]
        following = UNREACHED if event.boundary == AFTER_ALL else boundary_step(self._rules, event.boundary + 1)
        stop = isinstance(verdict, Stop) and following < self._end
        if stop:
            self._end = following
            self.stopped_early = f"{verdict.reason}: stopped at step {following}"
        record = Evaluation(
            time_s=0.0,
            boundary=event.boundary,
            step=step,
            versions=event.versions,
            metrics=event.metrics,
            seconds=event.seconds,
            decision=f"{'stop' if stop else 'go on'}: {'; '.join(filter(None, [verdict.reason, why])) or NO_RULE}",
            effective_step=self._steps[AFTER_ALL] if event.boundary == AFTER_ALL else following,
            lr_factor=lr_factor,
            arrays=event.arrays,
        )
        saved: list[Decision] = [SaveSnapshot(event.boundary, names, step, event.metrics)] if names else []
        return [*saved, Log(record), *self._settle(SettleBoundary(event.boundary, stop, lr_factor))]

    def _settle(self, verdict: SettleBoundary) -> list[Decision]:
        self._settled = verdict.boundary
        return [verdict, *self._finish()]

    def _lost(self, worker: int, reason: str, now: float) -> list[Decision]:
        if worker not in self._running or self._finished:
            return []
        self._lease.end(worker)
        self._failures += 1
        if not may_replace(self._failures, self._max_failures):
            self._finished = True
            return [FailRun(f"worker {worker} was lost ({reason}), and max_failures is {self._max_failures}")]
        self.membership = self.membership.replaced(worker)
        self._lease.renew(worker, now + STARTING_S)  # it may never start: its place may have gone with its node
        return [ReplaceWorker(worker, self.membership, reason)]

    def _last_evaluation(self) -> list[Decision]:
        """A run without a budget ends when its loops do: only then is there something final to measure."""
        if self._running or self._end < UNREACHED or not self._evaluates or AFTER_ALL in self._steps:
            return []
        self._steps[AFTER_ALL] = Step(0)
        return self._evaluate(AFTER_ALL)

    def _finish(self) -> list[Decision]:
        """Complete when all slots have ended and the last boundary is settled."""
        if self._finished or self._running:
            return []
        if self._end < UNREACHED:
            complete = boundary_step(self._rules, self._settled) >= self._end
        else:
            complete = not self._evaluates or AFTER_ALL in self._measured
        if not complete:
            return []
        self._finished = True
        return [FinishRun(self.stopped_early or "the budget is used up")]
