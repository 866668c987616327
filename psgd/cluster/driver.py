"""The driver: makes every actor, performs what the coordinator decides, and watches for deaths."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import ray
import torch

from psgd.cluster.coordination import Beat
from psgd.cluster.fleet import Fleet, Reference, fetch
from psgd.cluster.resources import Need
from psgd.cluster.session import ray_session, unwinding
from psgd.config import Job, Placement
from psgd.coordinator.coordinator import (
    Coordinator,
    Decision,
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
    WorkerLost,
)
from psgd.coordinator.outcome import Keep, Outcome, read_outcome, read_weights
from psgd.core.ids import LEAD, Boundary
from psgd.core.messages import Announce, Done, Settle
from psgd.errors import InternalError, LostError
from psgd.runlog import Notice, Record
from psgd.training.policies import Policies
from psgd.transport.base import Connection
from psgd.transport.flat import pack
from psgd.transport.key import JobKey
from psgd.transport.planes import connect
from psgd.transport.state import ask, load_state
from psgd.worker.evaluator import Evaluated

LEASE_S = 30.0
COLLECT_S = 0.2
DEATH_SEEN_WITHIN_S = 2.0
"""Whoever asks a shard hears at once that it is gone; Ray, which knows why, takes a moment."""


def run(
    job: Job,
    placement: Placement,
    initial: Mapping[str, torch.Tensor],
    policies: Policies,
    observe: Callable[[Record], None],
    keep: Keep,
) -> Outcome:
    """Train on Ray: the caller's, the one that RAY_ADDRESS names, or one of its own that ends with the run.

    Args:
        initial: the first weights, by the layout's names.
        policies: what evaluations decide.
        observe: told about every record, in this thread.
        keep: writes the weights of an evaluation, in this thread.

    Raises:
        ResourceError: if the cluster has too little.
        LostError: if a process is lost that can not be replaced.
    """
    session = ray_session(Need.of(job, placement), show_output=job.own_loop is not None)
    with unwinding() as take_signals_over, session as listen_on:
        take_signals_over()
        key = JobKey(job=f"psgd-{secrets.token_hex(8)}", token=secrets.token_urlsafe(32))
        coordinator = Coordinator(
            job.rules, job.workers, job.evaluation_data is not None, policies, placement.max_failures, LEASE_S
        )
        fleet = Fleet(job, placement, key, listen_on)
        try:
            return _Driver(job, fleet, key, observe, keep).run(coordinator, initial)
        finally:
            fleet.close()


class _Driver:
    """One run."""

    def __init__(self, job: Job, fleet: Fleet, key: JobKey, observe: Callable[[Record], None], keep: Keep) -> None:
        self._job = job
        self._fleet = fleet
        self._key = key
        self._observe = observe
        self._keep = keep
        self._connections: list[Connection] = []
        self._pending: dict[Reference, Callable[[Reference], None]] = {}
        self._serving: dict[Reference, Callable[[Reference], None]] = {}
        self._clock_offsets: dict[int, float] = {}
        self._incarnations: dict[int, int] = {}
        self._began = time.perf_counter()
        self._finished = False

    def run(self, coordinator: Coordinator, initial: Mapping[str, torch.Tensor]) -> Outcome:
        """Start everything, keep going until the coordinator says that all is done, read the end state."""
        rules = self._job.rules
        self._observe(Notice(0.0, f"Ray is there: starting {rules.shards} shards and {self._job.workers} workers"))
        self._fleet.start(coordinator)
        addresses = self._fleet.open_shards()
        for k, address in enumerate(addresses):
            if address.notice is not None:
                self._observe(Notice(0.0, f"shard {k}: {address.notice}"))
        self._connections = connect(addresses, self._job, self._key)
        try:
            self._watch_shards()
            self._load(initial)
            self._fleet.open_workers()
            self._began = time.perf_counter()
            self._tell(TrainingBegan())
            self._watch_workers()
            while not self._finished:
                ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=None)
                for reference in ready:
                    self._pending.pop(reference)(reference)
            return self._outcome(time.perf_counter() - self._began)
        finally:
            for connection in self._connections:
                connection.close()

    # ------------------------------------------------------------------ one pending call an actor, to see deaths

    def _watch_shards(self) -> None:
        for k, shard in enumerate(self._fleet.shards):
            self._serving[shard.serve.remote()] = partial(self._shard_ended, k)
        self._pending.update(self._serving)

    @contextmanager
    def _asking_shards(self) -> Iterator[None]:
        """What a shard has died of is raised rather than that it does not answer."""
        try:
            yield
        except LostError:
            for reference in ray.wait(list(self._serving), num_returns=1, timeout=DEATH_SEEN_WITHIN_S)[0]:
                self._serving[reference](reference)
            raise

    def _load(self, initial: Mapping[str, torch.Tensor]) -> None:
        """Give the shards their first weights, from which they make their optimizers: the user's code may raise."""
        with self._asking_shards():
            load_state(self._connections, self._job.parts(), pack(initial, self._job.layout))

    def _watch_workers(self) -> None:
        self._collect()
        for number in self._fleet.workers:
            self._run_worker(number)

    def _collect(self) -> None:
        self._pending[self._fleet.coordinator.collect.remote(COLLECT_S)] = self._collected

    def _run_worker(self, number: int) -> None:
        worker = self._fleet.workers[number]
        self._pending[worker.run.remote()] = partial(self._worker_ended, number, worker)

    def _collected(self, reference: Reference) -> None:
        decisions, beats = fetch(reference)
        for beat in beats:
            self._record(beat)
        for decision in decisions:
            self._perform(decision)
        if not self._finished:
            self._collect()

    def _worker_ended(self, number: int, worker: Any, reference: Reference) -> None:
        replaced = self._fleet.workers.get(number) is not worker
        try:
            fetch(reference)
        except LostError as error:  # its process is gone, or it has lost touch with a shard
            if not replaced:
                self._tell(WorkerLost(number, str(error)))
        except Exception:
            if not replaced:
                raise
        else:
            self._tell(WorkerEnded(number))

    def _worker_opened(self, reference: Reference) -> None:
        """Why a worker can not connect is heard before what comes of it; that it was lost, its own end says."""
        with suppress(LostError):
            fetch(reference)

    def _shard_ended(self, shard: int, reference: Reference) -> None:
        try:
            fetch(reference)
        except LostError as error:
            raise LostError(f"shard {shard} was lost, and with it its weights: {error}") from error
        raise InternalError(f"shard {shard} closed during the run")

    # ------------------------------------------------------------------ decisions

    def _tell(self, event: Event) -> None:
        """Wait until it is heard: the driver's events keep their order."""
        fetch(self._fleet.coordinator.tell.remote(event))

    def _perform(self, decision: Decision) -> None:
        match decision:
            case EvaluateSnapshot(boundary):
                self._evaluate(boundary)
            case SaveSnapshot(boundary):
                with self._asking_shards():
                    weights = read_weights(self._connections, self._job, boundary)
                self._keep(decision, weights)
            case SettleBoundary(boundary, stop, lr_factor):
                self._settle(Settle(boundary, stop, lr_factor))
            case Log(record):
                self._observe(replace(record, time_s=time.perf_counter() - self._began))
            case ReplaceWorker():
                self._replace(decision)
            case FinishRun():
                self._finished = True
            case FailRun(reason):
                raise LostError(reason)

    def _settle(self, verdict: Settle) -> None:
        """The lead holds everybody back until it hears of this, so it has to."""
        with self._asking_shards():
            reply = ask(self._connections[LEAD], verdict).result()
            if not isinstance(reply, Done):
                raise LostError(f"the lead does not take the verdict over boundary {verdict.boundary}: {reply}")

    def _evaluate(self, boundary: Boundary) -> None:
        evaluator = self._fleet.evaluator
        if evaluator is None:
            raise InternalError("an evaluation was ordered without an evaluator")
        self._pending[evaluator.evaluate.remote(boundary)] = self._evaluated

    def _evaluated(self, reference: Reference) -> None:
        with self._asking_shards():
            done: Evaluated = fetch(reference)
        self._tell(SnapshotEvaluated(done.boundary, done.versions, done.metrics, done.seconds, done.arrays))

    def _replace(self, decision: ReplaceWorker) -> None:
        number, membership = decision.worker, decision.membership
        self._fleet.kill_worker(number)
        announced = Announce(membership.generation, membership.incarnations)
        for future in [ask(connection, announced) for connection in self._connections]:
            future.result()
        incarnation = self._incarnations[number] = membership.incarnation_of(number)
        text = f"worker {number} was lost ({decision.reason}): replaced by incarnation {incarnation}"
        self._observe(Notice(time.perf_counter() - self._began, text))
        self._clock_offsets.pop(number, None)
        self._pending[self._fleet.replace_worker(number, membership)] = self._worker_opened
        self._run_worker(number)

    # ------------------------------------------------------------------ records

    def _record(self, beat: Beat) -> None:
        """Hand a worker's records on, with the run's time in place of its own; the fastest beat says the offset."""
        if beat.incarnation == self._incarnations.get(beat.worker, 0):
            self._set_clock(beat)
        offset = self._clock_offsets.get(beat.worker, 0.0)
        for record in beat.records:
            self._observe(replace(record, time_s=record.time_s + offset))

    def _set_clock(self, beat: Beat) -> None:
        offset = time.perf_counter() - self._began - beat.sent_s
        self._clock_offsets[beat.worker] = min(offset, self._clock_offsets.get(beat.worker, offset))

    def _outcome(self, seconds: float) -> Outcome:
        stopped_early: str | None = fetch(self._fleet.coordinator.stopped_early.remote())
        with self._asking_shards():
            return read_outcome(self._job, self._connections, seconds, stopped_early)
