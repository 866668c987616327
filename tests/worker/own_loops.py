"""Own loops without Ray: shards on threads of their own, and one thread a slot."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from psgd.config import Job, OptimizerFactory, OwnLoop, ScheduleFactory, Training
from psgd.core.ids import LEAD, Boundary, Incarnation, Shard, Slot
from psgd.core.messages import Figures, Inspect
from psgd.core.modes import Mode, Rules, Sync
from psgd.runlog import Iteration, Reported
from psgd.shard.queue import ThreadedQueue
from psgd.shard.shard import ParameterShard
from psgd.shard.state import ShardState
from psgd.transport.attachment import attach
from psgd.transport.base import Endpoint
from psgd.transport.flat import allocate, layout_of, pack, tensors_of, views
from psgd.transport.memory import MemoryConnection, MemoryPeerLink
from psgd.transport.state import ask, load_state, read_state
from psgd.transport.wire_format import WireFormat
from psgd.worker.session import Session, run_own_loop

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
    )


def first_weights(job: Job) -> Mapping[str, Tensor]:
    torch.manual_seed(3)
    return tensors_of(job.model())


class Run:
    """A job's shards, which slots may train on.

    Attributes:
        records: of all slots, in the order in which they were told.
    """

    def __init__(self, job: Job, initial: Mapping[str, Tensor]) -> None:
        self.records: list[Iteration | Reported] = []
        self._job = job
        endpoints: dict[int, Endpoint] = {}
        self._queues = [ThreadedQueue(self._shard(Shard(k), MemoryPeerLink(endpoints))) for k in self._shards()]
        endpoints.update(enumerate(self._queues))
        self._connections = [self.connect() for _ in range(job.rules.slots + 1)]
        load_state(self._connections[-1], job.parts(), pack(initial, job.layout))

    def _shards(self) -> range:
        return range(self._job.rules.shards)

    def _shard(self, shard: Shard, peers: MemoryPeerLink) -> ParameterShard:
        job = self._job
        state = ShardState.of(job, shard, allocate(job.parts()[shard].bytes), cores=1)
        wire = WireFormat(job.layout, job.parts()[shard], job.wire)
        return ParameterShard(job.rules, shard, state, wire, peers, lambda boundary, step: None, time.monotonic)

    def connect(self) -> Sequence[MemoryConnection]:
        """Ways to all shards."""
        return [MemoryConnection(queue) for queue in self._queues]

    def session(self, slot: int, incarnation: int = 0) -> Session:
        attachment = attach(self._connections[slot], self._job, [Slot(slot)])
        return Session(self._job, slot, Slot(slot), Incarnation(incarnation), attachment, self.records.append)

    def loops(self, *slots: int, incarnation: int = 0) -> None:
        """Run the slots' loops at the same time, until all have come to an end.

        Raises:
            Exception: what a loop has raised.
        """
        with ThreadPoolExecutor(len(slots)) as threads:
            loops = [threads.submit(_on_one_thread, self.session(slot, incarnation)) for slot in slots]
            _, hanging = wait_for(loops, PATIENCE_S)
            if hanging:
                self.close()  # the loops that wait hear that the shards are gone
            for loop in loops:
                loop.result()

    @property
    def weights(self) -> dict[str, Tensor]:
        """As they are on the shards now, by name."""
        memory, _ = read_state(self._connections[-1], self._job.layout, self._job.parts(), Boundary(0))
        return views(memory, self._job.layout)

    @property
    def figures(self) -> Figures:
        """The lead's."""
        figures = ask(self._connections[-1][LEAD], Inspect()).result()
        assert isinstance(figures, Figures)
        return figures

    @property
    def iterations(self) -> list[Iteration]:
        return [record for record in self.records if isinstance(record, Iteration)]

    @property
    def reports(self) -> list[Reported]:
        return [record for record in self.records if isinstance(record, Reported)]

    def close(self) -> None:
        for connection in (connection for connections in self._connections for connection in connections):
            connection.close()
        for shard in self._queues:
            shard.close()


def _on_one_thread(session: Session) -> None:
    torch.set_num_threads(1)  # a new thread starts with as many as there are cores
    run_own_loop(session)


@contextlib.contextmanager
def shards_of(job: Job, initial: Mapping[str, Tensor] | None = None) -> Iterator[Run]:
    run = Run(job, first_weights(job) if initial is None else initial)
    try:
        yield run
    finally:
        run.close()
