"""Jobs without Ray: shards as their hosts run them, and a thread for each slot or worker; on every plane."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from psgd.config import Job, OptimizerFactory, OwnLoop, Plane, ScheduleFactory, Training
from psgd.core.ids import LEAD, Boundary, Incarnation, Shard, Slot
from psgd.core.layout import Part
from psgd.core.membership import Membership
from psgd.core.messages import Figures, Inspect
from psgd.core.modes import Mode, Rules, Sync
from psgd.runlog import Iteration, Reported
from psgd.shard.queue import ThreadedQueue
from psgd.shard.shard import ParameterShard
from psgd.shard.state import ShardState
from psgd.shard.workplace import workplace_on
from psgd.training.outer import update_of
from psgd.transport.attachment import Attachment, attach
from psgd.transport.base import Endpoint
from psgd.transport.flat import allocate, layout_of, pack, tensors_of, views
from psgd.transport.key import JobKey
from psgd.transport.memory import MemoryConnection, MemoryPeerLink
from psgd.transport.planes import ShardDoors, reach
from psgd.transport.state import ask, load_state, read_state
from psgd.transport.wire_format import WireFormat
from psgd.worker.build import build_worker
from psgd.worker.session import Session, run_own_loop

KEY = JobKey("job-1", "a-secret")
PATIENCE_S = 30.0
"""A slot that takes longer hangs."""


def sgd(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.125)  # type: ignore[arg-type]


def tiny() -> nn.Module:
    """Two tensors, a block of the flat space each, so that two shards have one each."""
    return nn.Linear(2, 2)


def points(count: int = 32, features: int = 2, classes: int = 2) -> TensorDataset:
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(count, features, generator=generator)
    return TensorDataset(inputs, torch.randint(classes, (count,), generator=generator))


def own_job(
    loop: Callable[..., None],
    *,
    model: Callable[[], nn.Module] = tiny,
    mode: Mode = Sync(),  # noqa: B008, a frozen value
    slots: int = 1,
    shards: int = 2,
    steps: int | None = 3,
    optimizer: OptimizerFactory = sgd,
    schedule: ScheduleFactory | None = None,
    plane: Plane = "memory",
) -> Job:
    return Job(
        rules=Rules(mode, slots, shards, steps),
        workers=slots,
        layout=layout_of(tensors_of(model())),
        whole=False,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        training=Training(nn.functional.cross_entropy, batch_size=4, seed=5),
        data=None,
        own_loop=OwnLoop(loop),
        plane=plane,
    )


def first_weights(job: Job) -> Mapping[str, Tensor]:
    torch.manual_seed(3)
    return tensors_of(job.model())


class Run:
    """A job's shards, which slots may train on.

    Args:
        lanes: threads that update a shard.

    Attributes:
        records: of all slots, in the order in which they were told.
        addresses: of the shards' doors; empty on plane memory.
    """

    def __init__(self, job: Job, initial: Mapping[str, Tensor], lanes: int = 1) -> None:
        self.records: list[Iteration | Reported] = []
        self._job = job
        self._lanes = lanes
        self._doors: list[ShardDoors] = []
        self._attachments: list[Attachment] = []
        endpoints: dict[int, Endpoint] = {}
        self._queues = [ThreadedQueue(self._shard(Shard(k), MemoryPeerLink(endpoints))) for k in self._shards()]
        endpoints.update(enumerate(self._queues))
        self.addresses = [door.open(queue) for door, queue in zip(self._doors, self._queues, strict=False)]
        self._connections = self.connect()
        load_state(self._connections, job.parts(), pack(initial, job.layout))

    def _shards(self) -> range:
        return range(self._job.rules.shards)

    def _shard(self, shard: Shard, peers: MemoryPeerLink) -> ParameterShard:
        job, part = self._job, self._job.parts()[shard]
        lanes = job.lanes(shard, self._lanes)
        place = workplace_on(job.shard_device)
        optimizer, schedule = update_of(job.optimizer, job.schedule, job.rules.local_steps)
        state = ShardState(job.layout, lanes, optimizer, schedule, job.whole, self._memory(part), place)
        wire = WireFormat(job.layout, part, job.wire)
        return ParameterShard(job.rules, shard, state, wire, peers, lambda boundary, step: None, time.monotonic)

    def _memory(self, part: Part) -> Tensor:
        if self._job.plane == "memory":
            return allocate(part.bytes)
        self._doors.append(ShardDoors(self._job, part, KEY, "127.0.0.1"))
        return self._doors[-1].memory

    def connect(self) -> Sequence[MemoryConnection]:
        """Ways to all shards."""
        return [MemoryConnection(queue) for queue in self._queues]

    def attach(self, *slots: Slot) -> Attachment:
        """Attach a worker as the job's plane says."""
        if self._job.plane == "memory":
            attachment = attach(self.connect(), self._job, slots)
        else:
            attachment, notices = reach(self.addresses, self._job, KEY, slots)
            assert notices == []
        self._attachments.append(attachment)
        return attachment

    def session(self, slot: int, incarnation: int = 0) -> Session:
        attachment = self.attach(Slot(slot))
        return Session(self._job, slot, Slot(slot), Incarnation(incarnation), attachment, self.records.append)

    def train(self) -> None:
        """Run the built-in loop on all workers, each on a thread, until all have come to an end."""
        membership = Membership.first(self._job.rules.slots, self._job.workers)
        workers = [
            build_worker(self._job, number, membership, self.attach(*membership.slots_of(number)), self.records.append)
            for number in range(self._job.workers)
        ]
        self._all([partial(_on_one_thread, worker.run) for worker in workers])

    def loops(self, *slots: int, incarnation: int = 0) -> None:
        """Run the slots' loops at the same time, until all have come to an end.

        Raises:
            Exception: what a loop has raised.
        """
        sessions = [self.session(slot, incarnation) for slot in slots]
        self._all([partial(_on_one_thread, partial(run_own_loop, session)) for session in sessions])

    def _all(self, loops: Sequence[Callable[[], None]]) -> None:
        with ThreadPoolExecutor(len(loops)) as threads:
            running = [threads.submit(loop) for loop in loops]
            _, hanging = wait_for(running, PATIENCE_S)
            if hanging:
                self.close()  # the loops that wait hear that the shards are gone
            for loop in running:
                loop.result()

    @property
    def weights(self) -> dict[str, Tensor]:
        """As they are on the shards now, by name."""
        memory, _ = read_state(self._connections, self._job.layout, self._job.parts(), Boundary(0))
        return views(memory, self._job.layout)

    @property
    def figures(self) -> Figures:
        """The lead's."""
        figures = ask(self._connections[LEAD], Inspect()).result()
        assert isinstance(figures, Figures)
        return figures

    @property
    def iterations(self) -> list[Iteration]:
        return [record for record in self.records if isinstance(record, Iteration)]

    @property
    def reports(self) -> list[Reported]:
        return [record for record in self.records if isinstance(record, Reported)]

    def close(self) -> None:
        for attachment in self._attachments:
            attachment.close()
        for connection in self._connections:
            connection.close()
        for door in self._doors:
            door.close()
        for shard in self._queues:
            shard.close()


def _on_one_thread(loop: Callable[[], None]) -> None:
    torch.set_num_threads(1)  # a new thread starts with as many as there are cores
    loop()


@contextlib.contextmanager
def shards_of(job: Job, initial: Mapping[str, Tensor] | None = None, lanes: int = 1) -> Iterator[Run]:
    run = Run(job, first_weights(job) if initial is None else initial, lanes)
    try:
        yield run
    finally:
        run.close()
