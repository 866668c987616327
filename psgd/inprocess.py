"""The in-process twin of `psgd.cluster`: all parties in one thread on the memory plane, for tests and debugging."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from psgd.config import Job
from psgd.coordinator.coordinator import (
    BoundaryReached,
    Coordinator,
    EvaluateSnapshot,
    Event,
    FailRun,
    FinishRun,
    Log,
    ReplaceWorker,
    SaveSnapshot,
    SettleBoundary,
    SnapshotEvaluated,
    TrainingBegan,
    WorkerEnded,
)
from psgd.coordinator.outcome import Keep, Outcome, read_outcome, read_weights
from psgd.core.ids import LEAD, Boundary, Shard, Step
from psgd.core.messages import Settle
from psgd.errors import ConfigurationError, InternalError
from psgd.runlog import Record, Timed
from psgd.shard.build import build_shard
from psgd.shard.shard import ParameterShard
from psgd.training.policies import Policies
from psgd.training.threads import torch_threads
from psgd.transport.attachment import attach
from psgd.transport.base import Endpoint
from psgd.transport.flat import allocate, pack
from psgd.transport.memory import MemoryConnection, MemoryPeerLink
from psgd.transport.state import ask, load_state
from psgd.worker.build import build_worker, device_for
from psgd.worker.evaluator import Evaluator
from psgd.worker.loop import Worker
from psgd.worker.runner import SlotRunner


def run(
    job: Job,
    initial: Mapping[str, torch.Tensor],
    policies: Policies,
    observe: Callable[[Record], None],
    keep: Keep,
) -> Outcome:
    """Train in this thread, without Ray.

    Args:
        initial: the first weights, by the layout's names.
        policies: what evaluations decide.
        observe: told about every record.
        keep: writes the weights of an evaluation.

    Raises:
        ConfigurationError: if the job has an own loop, which would block the thread that all parties share.
        ResourceError: if there is no GPU for workers or shards that are to use one.
    """
    if job.own_loop is not None:
        raise ConfigurationError("plane memory runs the built-in loop only: give train_loop another plane")
    device_for(job.training.use_gpu)  # or refuse
    with torch_threads(job.training.threads):
        return _Process(job, initial, policies, observe, keep).run()


class _Process:
    """All parties of one job."""

    def __init__(
        self,
        job: Job,
        initial: Mapping[str, torch.Tensor],
        policies: Policies,
        observe: Callable[[Record], None],
        keep: Keep,
    ) -> None:
        self._job = job
        self._observe = observe
        self._keep = keep
        self._events: list[Event] = []
        self._began = time.perf_counter()
        self._finished: str | None = None
        shards = self._shards()
        self._parts = job.parts()
        self._connections = [MemoryConnection(shard) for shard in shards]
        load_state(self._connections, self._parts, pack(initial, job.layout))
        self._coordinator = Coordinator(
            job.rules, job.workers, job.evaluation_data is not None, policies, max_failures=0, lease_s=float("inf")
        )
        self._evaluator = Evaluator(job, self._connections) if job.evaluation_data is not None else None
        self._workers = {number: self._worker(number) for number in range(job.workers)}

    def _worker(self, number: int) -> Worker[SlotRunner]:
        job, membership = self._job, self._coordinator.membership
        attachment = attach(self._connections, job, membership.slots_of(number))
        return build_worker(job, number, membership, attachment, self._stamp)

    def _shards(self) -> list[ParameterShard]:
        job = self._job
        endpoints: dict[int, Endpoint] = {}
        shards = [
            build_shard(
                job, Shard(k), allocate(part.bytes), 1, MemoryPeerLink(endpoints), self._reached, time.monotonic
            )
            for k, part in enumerate(job.parts())
        ]
        endpoints.update(enumerate(shards))
        return shards

    def _reached(self, boundary: Boundary, step: Step) -> None:
        self._events.append(BoundaryReached(boundary, step))

    def run(self) -> Outcome:
        """Advance whoever can until the coordinator says that all is done."""
        self._began = time.perf_counter()
        self._handle(TrainingBegan())
        for worker in self._workers.values():
            worker.start()
        while self._finished is None:
            moved = [worker.advance(timeout_s=0) for worker in self._workers.values()]
            self._events += [WorkerEnded(number) for number, worker in self._workers.items() if worker.done]
            self._workers = {number: worker for number, worker in self._workers.items() if not worker.done}
            if not any(moved) and not self._events:
                raise InternalError("nobody can go on, and the run has not ended")
            while self._events:
                self._handle(self._events.pop(0))
        seconds = time.perf_counter() - self._began
        return read_outcome(self._job, self._connections, seconds, self._coordinator.stopped_early)

    def _handle(self, event: Event) -> None:
        for decision in self._coordinator.handle(event, time.monotonic()):
            match decision:
                case EvaluateSnapshot(boundary):
                    self._evaluate(boundary)
                case SaveSnapshot():
                    self._keep(decision, read_weights(self._connections, self._job, decision.boundary))
                case SettleBoundary(boundary, stop, lr_factor):
                    ask(self._connections[LEAD], Settle(boundary, stop, lr_factor))
                case Log(record):
                    self._stamp(replace(record, time_s=time.perf_counter()))
                case FinishRun(reason):
                    self._finished = reason
                case ReplaceWorker(reason=reason) | FailRun(reason):
                    raise InternalError(f"a thread can not lose a worker: {reason}")

    def _stamp(self, record: Timed) -> None:
        """Hand the record on, with the run's time in place of the process'."""
        self._observe(replace(record, time_s=record.time_s - self._began))

    def _evaluate(self, boundary: Boundary) -> None:
        if self._evaluator is None:
            raise InternalError("an evaluation was ordered without an evaluator")
        done = self._evaluator.evaluate(boundary)
        self._events.append(SnapshotEvaluated(boundary, done.versions, done.metrics, done.seconds, done.arrays))
