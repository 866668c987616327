"""Local steps end with the bits of one process that trains the slots one after another."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from psgd import inprocess
from psgd.config import Clip, Job, ModelFactory, OptimizerFactory, ScheduleFactory
from psgd.coordinator.outcome import Outcome
from psgd.core.local_steps import LocalSteps
from psgd.core.modes import Async, Sync
from psgd.data.sampler import draw_seed
from psgd.runlog import Iteration, Record
from psgd.training.optimizers import resolve_optimizer
from psgd.training.policies import Policies
from psgd.transport.flat import tensors_of
from psgd.worker.compute import Computation
from psgd.worker.local_steps import LocalTraining
from tests.jobs import (
    BATCH,
    CLASSES,
    MLP,
    SEED,
    SGD,
    SLOTS,
    STEPS,
    NormAndDropout,
    Parties,
    first_model,
    images,
    keep_nothing,
    make_job,
    plan_of,
)
from tests.local_reference import train_local_reference
from tests.worker.own_loops import shards_of

LOCAL = 3
"""Mini-batches an iteration; an epoch has 4, so iterations reach over its end."""
DILOCO = LocalSteps(LOCAL)
AVERAGING = LocalSteps(LOCAL, lr=1.0, momentum=0.0)
ADAMW = resolve_optimizer("adamw", 0.01, {})


class Odd(nn.Module):
    """A tied matrix, frozen parameters, a branch that only some mini-batches take, and one that none takes."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(64, 64, bias=False)
        self.fixed = nn.Linear(64, 64).requires_grad_(requires_grad=False)
        self.decode = nn.Linear(64, 64)
        self.decode.weight = self.encode.weight
        self.always = nn.Linear(64, CLASSES)
        self.sometimes = nn.Linear(64, CLASSES)
        self.never = nn.Parameter(torch.ones(70))

    def forward(self, inputs: Tensor) -> Tensor:  # (B, 1, 8, 8) -> (B, CLASSES)
        hidden = self.decode(torch.tanh(self.fixed(self.encode(inputs.flatten(1)))))
        logits: Tensor = self.always(hidden)
        return logits + self.sometimes(hidden) if torch.rand(()) < 0.1 else logits


def outer_of(local: LocalSteps) -> OptimizerFactory:
    """Written out: SGD, with Nesterov momentum if there is any."""
    nesterov = local.momentum > 0
    return lambda named: torch.optim.SGD(named, local.lr, momentum=local.momentum, nesterov=nesterov)


def reference(
    model: ModelFactory,
    inner: OptimizerFactory = ADAMW,
    local: LocalSteps = DILOCO,
    schedule: ScheduleFactory | None = None,
    clip: Callable[[Sequence[Tensor]], object] | None = None,
    slots: int = SLOTS,
) -> dict[str, Tensor]:
    return train_local_reference(
        first_model(model),
        images(),
        nn.functional.cross_entropy,
        inner,
        outer_of(local),
        plan_of(make_job(slots=slots)),
        STEPS,
        local.steps,
        schedule,
        clip,
    )


@cache
def norm_reference() -> dict[str, Tensor]:
    return reference(NormAndDropout)


def run(job: Job) -> tuple[Outcome, list[Iteration]]:
    records: list[Record] = []
    outcome = inprocess.run(job, tensors_of(first_model(job.model)), Policies(), records.append, keep_nothing)
    return outcome, [record for record in records if isinstance(record, Iteration)]


def assert_bits(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert weights.keys() == expected.keys()
    assert [name for name, tensor in weights.items() if not torch.equal(tensor, expected[name])] == []


@pytest.mark.parametrize(("workers", "shards"), [(w, k) for w in (1, 2, 4) for k in (1, 2, 3)])
def test_any_number_of_workers_and_shards_has_the_bits_of_diloco_in_one_process(workers: int, shards: int) -> None:
    job = make_job(NormAndDropout, workers=workers, shards=shards, optimizer=ADAMW, local_steps=DILOCO)
    assert_bits(run(job)[0].weights, norm_reference())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("inner", [SGD, ADAMW], ids=["momentum", "adamw"])
def test_tensors_of_every_kind_end_with_the_bits_of_one_process(inner: OptimizerFactory, workers: int) -> None:
    job = make_job(Odd, workers=workers, shards=2, optimizer=inner, local_steps=DILOCO)
    assert_bits(run(job)[0].weights, reference(Odd, inner))


def test_some_iterations_have_the_branch_in_no_mini_batch_and_some_in_a_few() -> None:
    taken = set()
    for step in range(STEPS):
        slots = []
        for slot in range(SLOTS):
            draws = [torch.Generator().manual_seed(draw_seed(SEED, step * LOCAL + h, slot)) for h in range(LOCAL)]
            slots.append(any(bool(torch.rand((), generator=draw) < 0.1) for draw in draws))
        taken.add(sum(slots))
    assert 0 in taken
    assert any(0 < count < SLOTS for count in taken)  # else the test with Odd shows less than it should


@pytest.mark.parametrize("local", [LocalSteps(1), LocalSteps(LOCAL, 0.5, 0.5), AVERAGING], ids=str)
def test_the_outer_optimizer_is_the_one_that_was_asked_for(local: LocalSteps) -> None:
    job = make_job(MLP, workers=2, shards=2, optimizer=SGD, local_steps=local)
    assert_bits(run(job)[0].weights, reference(MLP, SGD, local))


def test_the_inner_schedule_ticks_once_a_step_and_the_outer_rate_stays() -> None:
    schedule = partial(CosineAnnealingLR, T_max=STEPS)
    job = make_job(MLP, workers=2, shards=2, schedule=schedule, optimizer=ADAMW, local_steps=DILOCO)
    outcome, records = run(job)
    assert_bits(outcome.weights, reference(MLP, ADAMW, DILOCO, schedule))
    assert {record.lr for record in records} == {(0.7,)}
    rates = {record.step: record.inner_lr for record in records}
    cosine = [0.005 * (1 + math.cos(math.pi * tick / STEPS)) for tick in range(STEPS)]
    assert [rates[step][0] for step in range(STEPS)] == pytest.approx(cosine)


@pytest.fixture
def one_computes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers on threads share torch's random state, which seeds are set in and dropout draws from."""
    turn, compute = Lock(), LocalTraining.__call__

    def in_turn(self: LocalTraining, *arguments: Any) -> Computation:
        with turn:
            return compute(self, *arguments)

    monkeypatch.setattr(LocalTraining, "__call__", in_turn)


@pytest.mark.usefixtures("one_computes_at_a_time")
@pytest.mark.parametrize(("model", "workers"), [(NormAndDropout, 2), (Odd, 2), (Odd, 4)])
def test_shared_memory_has_the_bits_of_one_process(model: ModelFactory, workers: int) -> None:
    job = make_job(model, workers=workers, shards=2, optimizer=ADAMW, local_steps=DILOCO)
    with shards_of(replace(job, plane="shm"), tensors_of(first_model(model))) as shards:
        shards.train()
        assert_bits(shards.weights, reference(model))


# ------------------------------------------------------------------ what local steps are the same as


class Scale(nn.Module):
    """Its gradient, for the loss below, is the mean of the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1, 8, 8))

    def forward(self, inputs: Tensor) -> Tensor:  # (B, 1, 8, 8) -> (B,)
        return (inputs * self.factor).flatten(1).sum(1)


def total(outputs: Tensor, _targets: Tensor) -> Tensor:
    return outputs.sum() / 4


def whole_numbers() -> torch.utils.data.TensorDataset:
    """Small ones, whose sums have no rounding."""
    generator = torch.Generator().manual_seed(0)
    return torch.utils.data.TensorDataset(
        torch.randint(-8, 8, (100, 1, 8, 8), generator=generator).float(), torch.zeros(100)
    )


@pytest.mark.parametrize("mode", [Sync(), Async(0)])
def test_one_plain_step_that_is_taken_over_is_a_step_of_sgd_exactly_where_sums_are_exact(mode: Sync | Async) -> None:
    exact = partial(
        make_job, Scale, mode, workers=2, shards=2, optimizer=resolve_optimizer("sgd", 2**-6, {}), loss=total,
        batch_size=4, data=whole_numbers,
    )  # fmt: skip
    plain, _ = run(exact())
    local, _ = run(exact(local_steps=LocalSteps(1, lr=1.0, momentum=0.0)))
    assert torch.equal(local.weights["factor"], plain.weights["factor"])
    assert len(plain.weights["factor"].unique()) > 8


@pytest.mark.parametrize("workers", [1, 4])
def test_one_plain_step_that_is_taken_over_is_a_step_of_sgd_but_for_rounding(workers: int) -> None:
    make = partial(make_job, NormAndDropout, workers=workers, shards=2, optimizer=resolve_optimizer("sgd", 0.1, {}))
    plain, local = run(make())[0], run(make(local_steps=LocalSteps(1, lr=1.0, momentum=0.0)))[0]
    for name, tensor in plain.weights.items():
        torch.testing.assert_close(local.weights[name], tensor, rtol=0, atol=1e-6)


def test_a_single_slot_that_is_taken_over_goes_on_where_it_was() -> None:
    """Federated averaging over one client is that client, but for the rounding of its Δ."""
    sgd = resolve_optimizer("sgd", 0.01, {})
    plain, _ = run(make_job(MLP, slots=1, steps=4 * LOCAL, optimizer=sgd))
    local, _ = run(make_job(MLP, slots=1, steps=4, optimizer=sgd, local_steps=AVERAGING))
    for name, tensor in plain.weights.items():
        torch.testing.assert_close(local.weights[name], tensor, rtol=0, atol=1e-6)


# ------------------------------------------------------------------ modes, wires, faults


@pytest.mark.parametrize("staleness", [None, 0, 3])
def test_with_one_slot_on_arrival_has_the_bits_of_rounds(staleness: int | None) -> None:
    make = partial(make_job, NormAndDropout, shards=2, slots=1, optimizer=ADAMW, local_steps=DILOCO)
    assert_bits(run(make(Async(staleness)))[0].weights, run(make(Sync()))[0].weights)


@pytest.mark.parametrize("mode", [Async(), Async(1), Sync(1)])
def test_every_iteration_counts_its_mini_batches_in_every_mode(mode: Sync | Async) -> None:
    parties = Parties(make_job(NormAndDropout, mode, workers=2, shards=2, optimizer=ADAMW, local_steps=DILOCO))
    parties.run_in_random_order(seed=1)
    figures = parties.figures()
    assert figures.accepted + figures.dropped == STEPS * SLOTS
    assert {record.samples for record in parties.records} == {LOCAL * BATCH}
    assert {record.lr for record in parties.records if record.status == "accepted"} == {(0.7,)}
    assert {record.inner_lr for record in parties.records} == {(0.01,)}


@pytest.mark.parametrize("wire", ["bfloat16", "int8", "topk:0.1", "onebit"])
def test_on_every_wire_bits_do_not_depend_on_who_runs_the_slots(wire: str) -> None:
    make = partial(make_job, NormAndDropout, shards=2, optimizer=ADAMW, local_steps=DILOCO, wire=wire)
    one, two, four = (run(make(workers=workers))[0].weights for workers in (1, 2, 4))
    assert_bits(two, one)
    assert_bits(four, one)
    assert not torch.equal(one["out.weight"], norm_reference()["out.weight"])


# ------------------------------------------------------------------ clipping


def scale_together(parameters: Sequence[Tensor], limit: float) -> None:
    """As `torch.nn.utils.clip_grad_norm_`, but with the norm in float64."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = math.sqrt(sum(float(grad.double().square().sum()) for grad in grads))
    for grad in grads:
        grad.mul_(min(1.0, limit / (norm + 1e-6)))


def scale_each(parameters: Sequence[Tensor], limit: float) -> None:
    for parameter in parameters:
        scale_together([parameter], limit)


CLIPS: dict[str, tuple[Clip, Callable[[Sequence[Tensor]], object]]] = {
    "norm": (Clip(norm=0.5), partial(scale_together, limit=0.5)),
    "value": (Clip(value=0.01), partial(nn.utils.clip_grad_value_, clip_value=0.01)),
    "tensor_norm": (Clip(tensor_norm=0.1), partial(scale_each, limit=0.1)),
}


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("mode", [Sync(), Async(), Async(0)], ids=str)
def test_one_slot_has_the_bits_of_a_loop_that_clips_before_each_inner_step(mode: Sync | Async, clip: str) -> None:
    limit, clip_by_hand = CLIPS[clip]
    job = make_job(NormAndDropout, mode, slots=1, shards=3, optimizer=SGD, local_steps=DILOCO, clip=limit)
    outcome, records = run(job)
    assert_bits(outcome.weights, reference(NormAndDropout, SGD, clip=clip_by_hand, slots=1))
    assert {record.clip_scale for record in records} == {1.0}  # what is pushed is not clipped


@pytest.mark.parametrize("clip", CLIPS)
def test_every_slot_clips_its_own_and_a_parameter_without_a_gradient_is_no_part_of_it(clip: str) -> None:
    limit, clip_by_hand = CLIPS[clip]
    job = make_job(Odd, workers=2, shards=2, optimizer=SGD, local_steps=DILOCO, clip=limit)
    assert_bits(run(job)[0].weights, reference(Odd, SGD, clip=clip_by_hand))


def test_a_norm_is_clipped_as_torch_does_but_for_rounding() -> None:
    job = make_job(MLP, slots=1, optimizer=SGD, local_steps=DILOCO, clip=Clip(norm=0.5))
    expected = reference(MLP, SGD, clip=partial(nn.utils.clip_grad_norm_, max_norm=0.5), slots=1)
    for name, tensor in run(job)[0].weights.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", CLIPS)
def test_the_limits_of_these_tests_bind(clip: str) -> None:
    clipped, free = reference(MLP, SGD, clip=CLIPS[clip][1], slots=1), reference(MLP, SGD, slots=1)
    assert max((clipped[name] - free[name]).abs().max().item() for name in free) > 1e-3


# ------------------------------------------------------------------ what is not finite


def infinite_at(mini_batch: int, slot: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy, but infinite at this (mini-batch, slot)."""
    seed = draw_seed(SEED, mini_batch, slot)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = nn.functional.cross_entropy(outputs, targets)
        return value * torch.inf if torch.initial_seed() == seed else value

    return loss


@pytest.mark.parametrize("clip", [None, *(clip for clip, _ in CLIPS.values())], ids=str)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("mode", [Sync(), Async(0)])
def test_a_slot_whose_steps_end_in_nan_begins_anew(mode: Sync | Async, workers: int, clip: Clip | None) -> None:
    spoilt = infinite_at(LOCAL + 1, slot=1)  # in iteration 1
    outcome, records = run(
        make_job(MLP, mode, workers=workers, shards=2, optimizer=ADAMW, loss=spoilt, local_steps=DILOCO, clip=clip)
    )
    refused = [(record.step, record.slot) for record in records if record.status == "nonfinite"]
    assert sorted(refused) == ([(1, 1)] if isinstance(mode, Async) else [(1, slot) for slot in range(SLOTS)])
    assert all(tensor.isfinite().all() for tensor in outcome.weights.values())
    assert outcome.figures.clocks == (STEPS,) * SLOTS
