"""A run in virtual time that computes nothing: how long, how stale, how idle, among thousands of workers if need be."""

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from psgd.config import Straggler, check_stragglers
from psgd.coordinator.coordinator import Coordinator, SaveSnapshot, SnapshotEvaluated
from psgd.core.ids import LEAD, Boundary, Shard, Version
from psgd.core.membership import Membership
from psgd.core.messages import Figures, Inspect
from psgd.core.modes import Rules
from psgd.core.slot import Compute, Computed, SlotMachine
from psgd.errors import ConfigurationError, InternalError
from psgd.runlog import Record, Timed
from psgd.shard.shard import OnBoundary
from psgd.simulation.agenda import Agenda
from psgd.simulation.bare import BareShard, BareSlot
from psgd.simulation.cluster import SURVIVES_ALL, VirtualCluster
from psgd.simulation.compute_times import ComputeTimes
from psgd.simulation.world import World, check_slowing
from psgd.training.policies import Policies
from psgd.transport.base import Connection, PeerLink, Sizes
from psgd.transport.memory import MemoryConnection
from psgd.transport.state import ask
from psgd.worker.compute import Computation
from psgd.worker.loop import Pace, Worker
from psgd.worker.record import Chronicle
from psgd.worker.runner import Inbox

ITEM_BYTES = 4
"""Of a float32."""


@dataclass(frozen=True, slots=True)
class TimingJob:
    """A job without a model.

    Args:
        workers: processes that run the slots; at most one a slot.
        batch_size: samples that a mini-batch stands for.
        parameters: float32 numbers that travel; shards share them evenly.
        stragglers: slots slowed on purpose, as in a real run.
        seed: of everything random.

    Raises:
        ConfigurationError: if a number is out of range, or a straggler is none of the slots.
    """

    rules: Rules
    workers: int
    batch_size: int = 1
    parameters: int = 0
    stragglers: tuple[Straggler, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= self.rules.slots:
            raise ConfigurationError(f"workers must be in 1 … {self.rules.slots}, the slots, got {self.workers}")
        if self.rules.steps is None:
            raise ConfigurationError("steps must be given: a simulation without gradients has no loop that ends")
        for name, least in (("batch_size", 1), ("parameters", 0), ("seed", 0)):
            if not least <= getattr(self, name) < 2**63:
                raise ConfigurationError(f"{name} must be in {least} … 2**63 - 1, got {getattr(self, name)}")
        check_stragglers(self.stragglers, self.rules.slots)
        check_slowing(self.stragglers)

    @property
    def iteration_samples(self) -> int:
        """What an iteration stands for."""
        return self.batch_size * self.rules.mini_batches


@dataclass(frozen=True, slots=True)
class Timing:
    """How a simulated run went.

    Args:
        seconds: virtual, until all slots have heard that there is no further iteration, as those of a real run.
        figures: the lead's.
    """

    seconds: float
    figures: Figures


def run_timing(job: TimingJob, world: World, observe: Callable[[Record], None]) -> Timing:
    """Let a job's slots and shards exchange their messages in virtual time.

    Args:
        observe: told about every record; times are virtual.

    Raises:
        ConfigurationError: if the world knows slots that the job has not.
        LostError: if workers fail so often that nothing comes of it.

    Example:
        >>> from psgd.core.modes import Async
        >>> job = TimingJob(Rules(Async(), slots=4, shards=1, steps=25), workers=4)
        >>> run_timing(job, World(), lambda record: None).seconds
        25.0
    """
    return _TimingRun(job, world, observe).run()


class _TimingRun:
    """The run of one job; there is nothing to evaluate or to keep."""

    def __init__(self, job: TimingJob, world: World, observe: Callable[[Record], None]) -> None:
        world.check_slots(job.rules.slots)
        self._job = job
        self._observe = observe
        self._agenda = Agenda()
        self._size = -(-job.parameters // job.rules.shards) * ITEM_BYTES
        coordinator = Coordinator(job.rules, job.workers, False, Policies(), SURVIVES_ALL, lease_s=float("inf"))
        self._cluster = VirtualCluster(
            job.rules,
            world,
            self._agenda,
            coordinator,
            ComputeTimes(world, job.stragglers, job.seed, job.rules.mini_batches),
            self._make_shard,
            self._hire,
            self,
            job.seed,
        )

    def run(self) -> Timing:
        """Run the job."""
        seconds = self._cluster.run(self._job.workers)
        figures = ask(MemoryConnection(self._cluster.shards[LEAD]), Inspect()).result()
        if not isinstance(figures, Figures):
            raise InternalError(f"the lead gave no figures: {figures}")
        return Timing(seconds, figures)

    def _make_shard(self, shard: Shard, peers: PeerLink, on_boundary: OnBoundary) -> BareShard:
        return BareShard(self._job.rules, shard, self._size, peers, on_boundary, self._agenda.time)

    def _hire(
        self, number: int, membership: Membership, connections: Sequence[Connection], pace: Pace
    ) -> Worker[BareSlot]:
        inbox: Inbox = queue.SimpleQueue()
        sizes = [Sizes(self._size, self._size, self._size, self._size)] * len(connections)
        versions: list[Version | None] = [None] * len(connections)
        runners = [
            BareSlot(
                SlotMachine(slot, membership.incarnations[slot], self._job.rules),
                Chronicle(number, slot, self._agenda.time),
                connections,
                sizes,
                versions,
                inbox,
            )
            for slot in membership.slots_of(number)
        ]
        return Worker(number, self._job.rules.mode, runners, self._make, inbox, self._observe, pace)

    def _make(self, runner: BareSlot, wanted: Compute) -> tuple[Computation, Computed]:
        """A gradient that nobody sees; it is small enough for any clipping."""
        norm = 0.0 if self._job.rules.push_names_norm else None
        return Computation(None, self._job.iteration_samples, 0.0), Computed(finite=True, absent=(), norm=norm)

    def evaluate(self, boundary: Boundary) -> SnapshotEvaluated:
        """There is nothing to measure."""
        raise InternalError("an evaluation was ordered without an evaluator")

    def save(self, decision: SaveSnapshot) -> None:
        """There is nothing to keep."""
        raise InternalError("weights were to be kept, and there are none")

    def log(self, record: Timed) -> None:
        """Hand the record on, with the virtual time."""
        self._observe(replace(record, time_s=self._agenda.now))
