"""A job in virtual time, with real gradients at weights as stale as the world makes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from psgd.config import DataFactory, Job
from psgd.coordinator.coordinator import Coordinator, SaveSnapshot, SnapshotEvaluated
from psgd.coordinator.outcome import Keep, Outcome, read_outcome, read_weights
from psgd.core.ids import Boundary, Shard
from psgd.core.membership import Membership
from psgd.errors import InternalError
from psgd.runlog import Record, Timed
from psgd.shard.build import build_shard
from psgd.shard.shard import OnBoundary, ParameterShard
from psgd.simulation.agenda import Agenda
from psgd.simulation.cluster import SURVIVES_ALL, VirtualCluster
from psgd.simulation.compute_times import ComputeTimes
from psgd.simulation.world import World, check_slowing
from psgd.training.policies import Policies
from psgd.training.threads import torch_threads
from psgd.transport.attachment import attach
from psgd.transport.base import Connection, PeerLink
from psgd.transport.flat import allocate, pack
from psgd.transport.memory import MemoryConnection
from psgd.transport.state import load_state
from psgd.worker.build import build_worker
from psgd.worker.evaluator import Evaluator
from psgd.worker.loop import Pace, Worker
from psgd.worker.runner import SlotRunner


def run(
    job: Job,
    world: World,
    initial: Mapping[str, torch.Tensor],
    policies: Policies,
    observe: Callable[[Record], None],
    keep: Keep,
) -> Outcome:
    """Train in this thread, in a world of one's choice; the outcome's seconds are virtual.

    Args:
        initial: the first weights, by the layout's names.
        policies: what evaluations decide.
        observe: told about every record.
        keep: writes the weights of an evaluation.
    """
    with torch_threads(job.training.threads):
        return _Training(job, world, initial, policies, observe, keep).run()


def once(make: DataFactory) -> DataFactory:
    """The same data set for every worker, as they are all in this process."""
    made = make()
    return lambda: made


class _Training:
    """The run of one job; performs what the coordinator decides about snapshots."""

    def __init__(
        self,
        job: Job,
        world: World,
        initial: Mapping[str, torch.Tensor],
        policies: Policies,
        observe: Callable[[Record], None],
        keep: Keep,
    ) -> None:
        check_slowing(job.training.stragglers)
        # Stragglers are the world's: here nobody sleeps. Nothing is gained by gradients that leave early.
        training = replace(job.training, stragglers=(), overlap=False)
        self._job = replace(job, training=training, data=None if job.data is None else once(job.data))
        self._observe = observe
        self._keep = keep
        self._agenda = Agenda()
        self._coordinator = Coordinator(
            job.rules, job.workers, job.evaluation_data is not None, policies, SURVIVES_ALL, lease_s=float("inf")
        )
        seed = job.training.seed
        compute_times = ComputeTimes(world, job.training.stragglers, seed, job.rules.mini_batches)
        self._cluster = VirtualCluster(
            job.rules,
            world,
            self._agenda,
            self._coordinator,
            compute_times,
            self._make_shard,
            self._hire,
            self,
            seed,
        )
        self._connections = [MemoryConnection(shard) for shard in self._cluster.shards]
        load_state(self._connections, job.parts(), pack(initial, job.layout))
        self._evaluator = None if job.evaluation_data is None else Evaluator(self._job, self._connections)

    def run(self) -> Outcome:
        """Train."""
        seconds = self._cluster.run(self._job.workers)
        return read_outcome(self._job, self._connections, seconds, self._coordinator.stopped_early)

    def _make_shard(self, shard: Shard, peers: PeerLink, on_boundary: OnBoundary) -> ParameterShard:
        memory = allocate(self._job.parts()[shard].bytes)
        return build_shard(self._job, shard, memory, 1, peers, on_boundary, self._agenda.time)

    def _hire(
        self, number: int, membership: Membership, connections: Sequence[Connection], pace: Pace
    ) -> Worker[SlotRunner]:
        attachment = attach(connections, self._job, membership.slots_of(number))
        return build_worker(self._job, number, membership, attachment, self._observe, pace, self._agenda.time)

    def evaluate(self, boundary: Boundary) -> SnapshotEvaluated:
        """Measure the snapshot as it is now."""
        if self._evaluator is None:
            raise InternalError("an evaluation was ordered without an evaluator")
        done = self._evaluator.evaluate(boundary)
        return SnapshotEvaluated(boundary, done.versions, done.metrics, done.seconds, done.arrays)

    def save(self, decision: SaveSnapshot) -> None:
        """Keep the weights that were measured."""
        self._keep(decision, read_weights(self._connections, self._job, decision.boundary))

    def log(self, record: Timed) -> None:
        """Hand the record on, with the virtual time."""
        self._observe(replace(record, time_s=self._agenda.now))
