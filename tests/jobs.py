"""Small jobs for tests: synthetic images, models that have what makes training hard to reproduce."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from psgd.config import Clip, Job, ModelFactory, OptimizerFactory, Precision, ScheduleFactory, Straggler, Training
from psgd.coordinator.coordinator import SaveSnapshot
from psgd.core.corrections import Correction
from psgd.core.ids import Boundary, Shard, Slot, Step
from psgd.core.local_steps import LocalSteps
from psgd.core.membership import Membership
from psgd.core.messages import Figures, Inspect, Settle
from psgd.core.modes import Mode, Rules, Sync
from psgd.data.sampler import BatchPlan
from psgd.runlog import Iteration, Record
from psgd.shard.shard import ParameterShard
from psgd.shard.state import ShardState
from psgd.training.models import cnn, mlp
from psgd.training.optimizers import resolve_optimizer
from psgd.training.outer import clip_of
from psgd.transport.attachment import Attachment, attach
from psgd.transport.base import Endpoint
from psgd.transport.flat import allocate, layout_of, pack, sha256, tensors_of, views
from psgd.transport.memory import MemoryConnection, MemoryPeerLink
from psgd.transport.state import ask, load_state, read_state
from psgd.transport.wire_format import WireFormat
from psgd.worker.build import build_worker

SHAPE, CLASSES = (1, 8, 8), 10
SLOTS, STEPS, BATCH, SEED = 4, 5, 6, 3

SGD = resolve_optimizer("sgd", 0.1, {"momentum": 0.9})
MLP: ModelFactory = partial(mlp, SHAPE, CLASSES)
CNN: ModelFactory = partial(cnn, SHAPE, CLASSES)


class NormAndDropout(nn.Module):
    """BatchNorm has floating buffers and an integer one, dropout draws at random."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, kernel_size=3)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.5)
        self.out = nn.Linear(8 * 6 * 6, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:  # (B, 1, 8, 8) -> (B, CLASSES)
        hidden = self.dropout(torch.relu(self.norm(self.conv(inputs))))
        logits: Tensor = self.out(hidden.flatten(1))
        return logits


@cache
def images() -> TensorDataset:
    """100 samples: an epoch is 4 steps of 4 slots of 6, and runs go beyond."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(100, *SHAPE, generator=generator)
    return TensorDataset(inputs, torch.randint(CLASSES, (100,), generator=generator))


def first_model(factory: ModelFactory, seed: int = SEED) -> nn.Module:
    """The model with the weights that every run of a test starts from."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory()


def make_job(
    model: ModelFactory = MLP,
    mode: Mode | None = None,
    *,
    workers: int = 1,
    shards: int = 1,
    slots: int = SLOTS,
    steps: int = STEPS,
    evaluate_every: int | None = None,
    optimizer: OptimizerFactory = SGD,
    schedule: ScheduleFactory | None = None,
    whole: bool = False,
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    batch_size: int = BATCH,
    accumulate: int = 1,
    bf16: bool = False,
    use_gpu: bool = False,
    stragglers: tuple[Straggler, ...] = (),
    data: "Callable[[], Dataset[tuple[Tensor, ...]]]" = images,
    evaluation_data: "Callable[[], Dataset[tuple[Tensor, ...]]] | None" = None,
    clip: Clip | None = None,
    correction: Correction | None = None,
    local_steps: LocalSteps | None = None,
    wire: str = "float32",
) -> Job:
    precision: Precision = "bf16" if bf16 else "fp32"
    training = Training(loss, batch_size, SEED, accumulate, precision=precision, use_gpu=use_gpu, stragglers=stragglers)
    mode, update_clip = Sync() if mode is None else mode, clip_of(clip, local_steps)
    clip_norm = None if update_clip is None else update_clip.norm
    return Job(
        rules=Rules(mode, slots, shards, steps, evaluate_every, clip_norm, local_steps, correction),
        workers=workers,
        layout=layout_of(tensors_of(first_model(model))),
        whole=whole,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        training=training,
        data=data,
        evaluation_data=evaluation_data,
        clip=clip,
        wire=wire,
    )


def keep_nothing(decision: SaveSnapshot, weights: Mapping[str, Tensor]) -> None:
    """For runs whose evaluations keep no weights."""
    raise AssertionError(f"nobody wanted {decision.names} to be kept")


def plan_of(job: Job) -> BatchPlan:
    return BatchPlan(len(images()), job.rules.slots, job.training.batch_size, job.training.seed)


def accepted_by_step(records: Iterable[Record], steps: int = STEPS) -> dict[int, tuple[int, ...]]:
    """The accepted set of each step, as the log names it."""
    accepted: dict[int, list[int]] = {step: [] for step in range(steps)}
    for record in records:
        if isinstance(record, Iteration) and record.status == "accepted":
            accepted[record.step].append(record.slot)
    return {step: tuple(sorted(slots)) for step, slots in accepted.items()}


@dataclass
class Parties:
    """Shards and workers of a job on the memory plane, advanced by hand; evaluations are settled at once."""

    job: Job
    first: nn.Module | None = None
    records: list[Iteration] = field(default_factory=list)
    boundaries: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        job = self.job
        parts = job.parts()
        endpoints: dict[int, Endpoint] = {}
        for k, part in enumerate(parts):
            state = ShardState.of(job, Shard(k), allocate(part.bytes), cores=1)
            wire = WireFormat(job.layout, part, job.wire)
            peers = MemoryPeerLink(endpoints)
            endpoints[k] = ParameterShard(job.rules, Shard(k), state, wire, peers, self._reached, lambda: 0.0)
        self.connections = [MemoryConnection(endpoints[k]) for k in range(len(parts))]
        first = first_model(job.model) if self.first is None else self.first
        load_state(self.connections, parts, pack(tensors_of(first), job.layout))
        membership = Membership.first(job.rules.slots, job.workers)
        self.workers = [
            build_worker(job, number, membership, self._attachment(membership.slots_of(number)), self.records.append)
            for number in range(job.workers)
        ]
        for worker in self.workers:
            worker.start()

    def _attachment(self, slots: Sequence[Slot]) -> Attachment:
        return attach(self.connections, self.job, slots)

    def _reached(self, boundary: Boundary, step: Step) -> None:
        self.boundaries.append((boundary, step))
        ask(self.connections[0], Settle(boundary, stop=False))

    def exhaust(self, *numbers: int) -> None:
        """Advance these workers, in turns, until none of them can go on without the others."""
        moved = [True]
        while any(moved):
            moved = [self.workers[number].advance(timeout_s=0) for number in numbers]

    def run_in_random_order(self, seed: int) -> None:
        """Advance workers in an order that is different with every seed, until all have ended."""
        draw = random.Random(seed)
        while not all(worker.done for worker in self.workers):
            favourite = draw.choice(self.workers)
            for _ in range(draw.randrange(1, 60)):
                favourite.advance(timeout_s=0)

    def figures(self, shard: int = 0) -> Figures:
        figures = ask(self.connections[shard], Inspect()).result()
        assert isinstance(figures, Figures)
        return figures

    def weights_sha256(self) -> str:
        memory, _ = read_state(self.connections, self.job.layout, self.job.parts(), Boundary(0))
        return sha256(views(memory, self.job.layout))
