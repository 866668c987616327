"""The bits of synchronous training are those of one process that computes the slots one after another."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from psgd import inprocess
from psgd.config import Job, ModelFactory, OptimizerFactory
from psgd.core.modes import Sync
from psgd.data.sampler import draw_seed
from psgd.runlog import Evaluation, Record
from psgd.training.optimizers import resolve_optimizer
from psgd.training.policies import Policies
from psgd.transport.flat import sha256, tensors_of
from psgd.worker.compute import Computation, Supervised
from tests.jobs import (
    CLASSES,
    CNN,
    MLP,
    SEED,
    SGD,
    SLOTS,
    STEPS,
    NormAndDropout,
    Parties,
    accepted_by_step,
    first_model,
    images,
    keep_nothing,
    make_job,
    plan_of,
)
from tests.reference import train_reference
from tests.worker.own_loops import shards_of

MODELS: dict[str, ModelFactory] = {"mlp": MLP, "cnn": CNN, "norm": NormAndDropout}
OPTIMIZERS: dict[str, OptimizerFactory] = {
    "sgd": SGD,
    "adam": resolve_optimizer("adam", 0.01, {}),
    "rmsprop": resolve_optimizer("rmsprop", 0.01, {}),
    "adagrad": resolve_optimizer("adagrad", 0.05, {}),
}
EVERY_SLOT = dict.fromkeys(range(STEPS), tuple(range(SLOTS)))


def reference(
    job: Job,
    accepted: Mapping[int, tuple[int, ...]] = EVERY_SLOT,
    model: nn.Module | None = None,
) -> str:
    return train_reference(
        first_model(job.model) if model is None else model,
        images(),
        job.training.loss,
        job.optimizer,
        job.schedule,
        plan_of(job),
        accepted,
        job.training.accumulate,
        job.training.precision == "bf16",
    )


@cache
def plain_reference(model: str, optimizer: str) -> str:
    return reference(make_job(MODELS[model], optimizer=OPTIMIZERS[optimizer]))


def run(job: Job, model: nn.Module | None = None) -> tuple[str, list[Record]]:
    records: list[Record] = []
    first = tensors_of(first_model(job.model) if model is None else model)
    outcome = inprocess.run(job, first, Policies(), records.append, keep_nothing)
    assert len(set(outcome.versions)) == 1  # every shard stands at the same step
    return sha256(outcome.weights), records


@pytest.mark.parametrize(("workers", "shards"), [(w, k) for w in (1, 2, 4) for k in (1, 2, 3)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_any_number_of_workers_and_shards_has_the_bits_of_one_process(
    model: str, optimizer: str, workers: int, shards: int
) -> None:
    job = make_job(MODELS[model], workers=workers, shards=shards, optimizer=OPTIMIZERS[optimizer])
    assert run(job)[0] == plain_reference(model, optimizer)


def test_a_reference_of_another_run_has_other_bits() -> None:
    names = [(model, optimizer) for model in MODELS for optimizer in OPTIMIZERS]
    assert len({plain_reference(*name) for name in names}) == len(names)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_in_which_workers_come_changes_nothing(seed: int) -> None:
    parties = Parties(make_job(NormAndDropout, workers=4, shards=2))
    parties.run_in_random_order(seed)
    assert parties.weights_sha256() == plain_reference("norm", "sgd")


# ------------------------------------------------------------------ through shared memory


@pytest.fixture
def one_computes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers on threads share torch's random state, which seeds are set in and dropout draws from."""
    turn, compute = Lock(), Supervised.__call__

    def in_turn(self: Supervised, *arguments: Any) -> Computation:
        with turn:
            return compute(self, *arguments)

    monkeypatch.setattr(Supervised, "__call__", in_turn)


def run_through_shared_memory(job: Job, lanes: int = 1) -> tuple[str, list[Record]]:
    with shards_of(replace(job, plane="shm"), tensors_of(first_model(job.model)), lanes) as shards:
        shards.train()
        return sha256(shards.weights), list(shards.records)


@pytest.mark.usefixtures("one_computes_at_a_time")
@pytest.mark.parametrize(("workers", "shards"), [(w, k) for w in (1, 2, 4) for k in (1, 2, 3)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("model", ["mlp", "norm"])
def test_shared_memory_has_the_bits_of_one_process(model: str, optimizer: str, workers: int, shards: int) -> None:
    job = make_job(MODELS[model], workers=workers, shards=shards, optimizer=OPTIMIZERS[optimizer])
    weights, records = run_through_shared_memory(job)
    assert weights == plain_reference(model, optimizer)
    assert accepted_by_step(records) == EVERY_SLOT


@pytest.mark.usefixtures("one_computes_at_a_time")
@pytest.mark.parametrize("lanes", [2, 3])
@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_lanes_of_a_shard_have_the_bits_of_one_process(optimizer: str, shards: int, lanes: int) -> None:
    job = make_job(NormAndDropout, workers=2, shards=shards, optimizer=OPTIMIZERS[optimizer])
    assert run_through_shared_memory(job, lanes)[0] == plain_reference("norm", optimizer)


# ------------------------------------------------------------------ what models do to tensors


class Tied(nn.Module):
    """One matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(64, 64, bias=False)
        self.decode = nn.Linear(64, 64)
        self.out = nn.Linear(64, CLASSES)
        self.decode.weight = self.encode.weight

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.out(self.decode(torch.tanh(self.encode(inputs.flatten(1)))))
        return logits


class Frozen(nn.Module):
    """Parameters in the middle that are never trained."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 32)
        self.fixed = nn.Linear(32, 100).requires_grad_(requires_grad=False)
        self.out = nn.Linear(100, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.out(torch.relu(self.fixed(self.first(inputs.flatten(1)))))
        return logits


class Branching(nn.Module):
    """A branch that only some batches take, and one that none takes."""

    def __init__(self) -> None:
        super().__init__()
        self.always = nn.Linear(64, CLASSES)
        self.sometimes = nn.Linear(64, CLASSES)
        self.never = nn.Parameter(torch.ones(70))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.always(inputs.flatten(1))
        return logits + self.sometimes(inputs.flatten(1)) if torch.rand(()) < 0.3 else logits


class Counting(nn.Module):
    """An integer buffer that the forward pass reads and writes, by an amount drawn at random."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(64, CLASSES)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(3, dtype=torch.int32))

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen += torch.randint(5, (3,), dtype=torch.int32)
        logits: Tensor = self.out(inputs.flatten(1)) * (1 + 0.1 * self.seen.sum())
        return logits


class Masked(nn.Module):
    """A buffer with −Inf, as attention masks are."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(64, CLASSES)
        self.mask: Tensor
        self.register_buffer("mask", torch.tensor([0.0] * (CLASSES - 1) + [-torch.inf]))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.out(inputs.flatten(1)) + self.mask
        return torch.cat([logits[:, :-1], logits[:, -1:].clamp(min=-10.0)], dim=1)


class Tiny(nn.Module):
    """Two blocks of 64 elements."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(CLASSES))
        self.shift = nn.Parameter(torch.zeros(CLASSES))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)[:, :CLASSES] * self.scale + self.shift


@pytest.mark.usefixtures("one_computes_at_a_time")
@pytest.mark.parametrize("model", [Tied, Frozen, Branching, Counting, Masked])
def test_tensors_of_every_kind_go_through_shared_memory(model: ModelFactory) -> None:
    job = make_job(model, workers=2, shards=3)
    assert run_through_shared_memory(job, lanes=2)[0] == reference(job)


@pytest.mark.parametrize(("workers", "shards"), [(1, 3), (4, 2)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("model", [Tied, Frozen, Branching, Counting, Masked])
def test_tensors_of_every_kind_end_with_the_bits_of_one_process(
    model: ModelFactory, optimizer: str, workers: int, shards: int
) -> None:
    job = make_job(model, workers=workers, shards=shards, optimizer=OPTIMIZERS[optimizer])
    weights, records = run(job)
    assert weights == reference(job)
    assert accepted_by_step(records) == EVERY_SLOT


def test_some_steps_have_the_branch_in_no_slot_and_some_in_a_few() -> None:
    taken = []
    for step in range(STEPS):
        draws = [torch.Generator().manual_seed(draw_seed(SEED, step, slot)) for slot in range(SLOTS)]
        taken.append(sum(bool(torch.rand((), generator=draw) < 0.3) for draw in draws))
    assert 0 in taken
    assert any(0 < count < SLOTS for count in taken)  # else the tests with Branching show less than they should


def test_integer_buffers_come_from_the_lowest_slot() -> None:
    outcome = inprocess.run(
        make_job(Counting, workers=2), tensors_of(first_model(Counting)), Policies(), lambda _: None, keep_nothing
    )
    expected = torch.zeros(3, dtype=torch.int32)
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(draw_seed(SEED, step, 0))
        expected += torch.randint(5, (3,), dtype=torch.int32, generator=generator)
    assert torch.equal(outcome.weights["seen"], expected)


@pytest.mark.parametrize("shards", [2, 5])
@pytest.mark.parametrize("whole", [False, True])
def test_shards_that_hold_nothing_take_part(shards: int, whole: bool) -> None:
    job = make_job(Tiny, workers=2, shards=shards, whole=whole)
    assert run(job)[0] == reference(job)


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("model", [CNN, NormAndDropout])
def test_whole_tensors_have_the_bits_of_slices(model: ModelFactory, shards: int) -> None:
    job = make_job(model, workers=2, shards=shards, whole=True)
    assert run(job)[0] == reference(job)


def test_an_optimizer_that_needs_whole_tensors_has_the_bits_of_one_process() -> None:
    job = make_job(MLP, workers=2, shards=3, whole=True, optimizer=resolve_optimizer("adafactor", 0.01, {}))
    assert run(job)[0] == reference(job)


class Lookahead(torch.optim.SGD):
    """Keeps a copy of the weights that it is made with (Zhang et al. 2019, half way back every two steps)."""

    def __init__(self, params: object, lr: float) -> None:
        super().__init__(params, lr=lr)  # type: ignore[arg-type]
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]
        self.steps = 0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step(closure)
        self.steps += 1
        if self.steps % 2 == 0:
            for slow, fast in zip(self.slow, self.param_groups[0]["params"], strict=True):
                slow += (fast - slow) * 0.5
                fast.copy_(slow)


def test_an_optimizer_that_keeps_the_first_weights_sees_them() -> None:
    job = make_job(MLP, workers=2, shards=2, optimizer=partial(Lookahead, lr=0.1))
    assert run(job)[0] == reference(job)


# ------------------------------------------------------------------ how a run is set up


@pytest.mark.parametrize("accumulate", [2, 4, 6])  # micro-batches of 3, of 2 (a chunk less than asked for), of 1
def test_micro_batches_have_the_bits_of_the_same_micro_batches(accumulate: int) -> None:
    job = make_job(CNN, workers=2, shards=2, accumulate=accumulate)
    weights, _ = run(job)
    assert weights == reference(job)
    assert weights != plain_reference("cnn", "sgd")  # the order of the sum is another one


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_cosine_schedule_ticks_once_a_step(optimizer: str) -> None:
    schedule = partial(CosineAnnealingLR, T_max=STEPS)
    job = make_job(MLP, workers=4, shards=2, optimizer=OPTIMIZERS[optimizer], schedule=schedule)
    weights, _ = run(job)
    assert weights == reference(job)
    assert weights != plain_reference("mlp", optimizer)


def test_autocast_has_the_bits_of_autocast() -> None:
    job = make_job(CNN, workers=2, shards=2, bf16=True)
    weights, _ = run(job)
    assert weights == reference(job)
    assert weights != plain_reference("cnn", "sgd")


def test_warm_weights_and_buffers_are_where_training_starts() -> None:
    job = make_job(NormAndDropout, workers=2, shards=2)
    warm = first_model(NormAndDropout)
    reference(job, model=warm)  # trains it for a while
    weights, _ = run(job, warm)
    assert weights == reference(job, model=warm)
    assert weights != plain_reference("norm", "sgd")


@pytest.mark.parametrize("every", [1, 2, None])
def test_evaluation_beside_training_does_not_change_it(every: int | None) -> None:
    job = make_job(NormAndDropout, workers=2, shards=2, evaluate_every=every, evaluation_data=images)
    weights, records = run(job)
    assert weights == plain_reference("norm", "sgd")
    assert [r.step for r in records if isinstance(r, Evaluation)] == [*range(every or STEPS, STEPS, every or 1), STEPS]


# ------------------------------------------------------------------ steps that not every slot takes part in


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("backups", [1, 2])
def test_with_backups_the_log_names_what_one_process_replays(workers: int, backups: int) -> None:
    parties = Parties(make_job(NormAndDropout, Sync(backups), workers=workers, shards=2))
    parties.run_in_random_order(seed=workers)
    accepted = accepted_by_step(parties.records)
    assert {len(slots) for slots in accepted.values()} == {SLOTS - backups}
    assert parties.weights_sha256() == reference(parties.job, accepted)


def infinite_at(*where: tuple[int, int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy, but infinite at these (step, slot)."""
    seeds = {draw_seed(SEED, step, slot) for step, slot in where}

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = nn.functional.cross_entropy(outputs, targets)
        return value * torch.inf if torch.initial_seed() in seeds else value

    return loss


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # of the reference, whose step 0 is none
@pytest.mark.parametrize("bad", [0, 2])
@pytest.mark.parametrize(("workers", "shards"), [(1, 1), (2, 3), (4, 2)])
def test_a_step_with_an_infinite_gradient_is_none_but_the_schedule_ticks(workers: int, shards: int, bad: int) -> None:
    schedule = partial(CosineAnnealingLR, T_max=STEPS)
    job = make_job(
        NormAndDropout, workers=workers, shards=shards, schedule=schedule, loss=infinite_at((bad, 1), (bad, 3))
    )
    weights, records = run(job)
    accepted = {**EVERY_SLOT, bad: ()}
    assert accepted_by_step(records) == accepted
    assert weights == reference(job, accepted)
