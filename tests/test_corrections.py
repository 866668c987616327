"""Whole asynchronous runs against a plain loop that replays them: who pushed when, computed at which weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

from psgd import inprocess
from psgd.config import Job, OptimizerFactory
from psgd.coordinator.outcome import Outcome
from psgd.core.corrections import Correction, DelayCompensation, GapAware, LagRate
from psgd.core.messages import Push, Request
from psgd.core.modes import Async
from psgd.data.sampler import draw_seed, seed_everything
from psgd.runlog import Iteration, Record
from psgd.shard.shard import ParameterShard
from psgd.training.forms import use_fused
from psgd.training.policies import EarlyStopping, Policies
from psgd.transport.flat import sha256, tensors_of
from tests.jobs import MLP, SEED, SLOTS, STEPS, NormAndDropout, first_model, images, keep_nothing, make_job, plan_of

MOMENTUM = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
ADAM = partial(torch.optim.Adam, lr=0.003)


@dataclass
class Watched:
    """A run, and what arrived at its lead.

    Args:
        pushes: in the order in which they came.
    """

    outcome: Outcome
    records: list[Iteration]
    pushes: list[Push]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watched]:
    pushes: list[Push] = []
    submit = ParameterShard.submit

    def listen(shard: ParameterShard, request: Request, *more: object) -> None:
        if isinstance(request, Push) and shard is first[0]:
            pushes.append(request)
        submit(shard, request, *more)  # type: ignore[arg-type]

    first: list[ParameterShard] = []
    make = ParameterShard.__init__

    def note(shard: ParameterShard, *given: object) -> None:
        make(shard, *given)  # type: ignore[arg-type]
        first.append(shard)

    monkeypatch.setattr(ParameterShard, "__init__", note)
    monkeypatch.setattr(ParameterShard, "submit", listen)

    def run(job: Job, stopping: EarlyStopping | None = None) -> Watched:
        first.clear()
        pushes.clear()
        records: list[Record] = []
        begun = tensors_of(first_model(job.model))
        outcome = inprocess.run(job, begun, Policies(stopping), records.append, keep_nothing)
        return Watched(outcome, [r for r in records if isinstance(r, Iteration)], list(pushes))

    return run


@dataclass
class Plain:
    """Asynchronous training written out plainly, one gradient after another."""

    job: Job
    versions: list[list[Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = first_model(self.job.model).train()
        self.parameters = list(self.model.parameters())
        self.optimizer = self.job.optimizer(self.model.named_parameters())
        use_fused(self.optimizer)
        self.versions = [self.copy()]
        self.mean_square = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros_like(p) for p in self.parameters]

    def copy(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]

    def gradient(self, push: Push) -> list[Tensor]:
        """At the weights that the push names."""
        self.put(self.versions[push.pulled])
        plan = plan_of(self.job)
        self.model.zero_grad()
        seed_everything(plan.seed, push.step, push.slot)
        inputs, targets = images()[plan.indices(push.step, push.slot)]
        self.job.training.loss(self.model(inputs), targets).backward()
        self.put(self.versions[-1])
        return [p.grad.clone() for p in self.parameters if p.grad is not None]

    def put(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, values in zip(self.parameters, weights, strict=True):
                parameter.copy_(values)

    def correct(self, push: Push, gradient: list[Tensor]) -> list[Tensor]:
        now, then = self.versions[-1], self.versions[push.pulled]
        correction, updates = self.job.rules.correction, len(self.versions) - 1
        corrected = []
        for k, g in enumerate(gradient):
            way = (now[k] - then[k]).double()
            if isinstance(correction, DelayCompensation):
                self.mean_square[k] = 0.95 * self.mean_square[k] + 0.05 * g * g
                strength = 2 / (self.mean_square[k] + 1e-7).sqrt() if correction.adaptive else correction.scale
                g = (g + strength * g * g * way).float()
            elif isinstance(correction, GapAware) and updates > 0:
                size = 0.1 * ((self.steps[k] / (1 - 0.999**updates)).sqrt() + 1e-8)
                g = (g / (1 + way.abs() / size)).float()
            corrected.append(g)
        return corrected

    def update(self, gradient: list[Tensor], factor: float) -> None:
        for parameter, values in zip(self.parameters, gradient, strict=True):
            parameter.grad = values.clone()
        (group,) = self.optimizer.param_groups
        lr = group["lr"]
        group["lr"] = lr * factor
        self.optimizer.step()
        group["lr"] = lr
        for k, parameter in enumerate(self.parameters):
            step = (self.versions[-1][k] - parameter.detach()) / (lr * factor)
            self.steps[k] = 0.999 * self.steps[k] + 0.001 * step * step
        self.versions.append(self.copy())

    def replay(self, pushes: list[Push], gather: int = 1) -> str:
        """The hash of the weights in the end."""
        for start in range(0, len(pushes), gather):
            window = pushes[start : start + gather]
            lags = [len(self.versions) - 1 - push.pulled for push in window]
            weights = [self.weight(lag) for lag in lags]
            gradients = [self.correct(push, self.gradient(push)) for push in window]
            total = [torch.zeros_like(p) for p in self.parameters]
            for weight, gradient in zip(weights, gradients, strict=True):
                total = [a + (g if len(window) == 1 else g * weight) for a, g in zip(total, gradient, strict=True)]
            divisor = 1.0 if len(window) == 1 else sum(weights)
            self.update([a / divisor for a in total], sum(weights) / len(weights))
        return sha256(self.model.state_dict())

    def weight(self, lag: int) -> float:
        return 1 / max(lag, 1) if isinstance(self.job.rules.correction, LagRate) else 1.0


def make(
    mode: Async,
    correction: Correction | None = None,
    optimizer: OptimizerFactory = MOMENTUM,
    **changes: object,
) -> Job:
    """Four workers of a slot each, so that gradients come late."""
    settings: dict[str, object] = {"workers": SLOTS, "shards": 2, **changes}
    return make_job(MLP, mode, optimizer=optimizer, correction=correction, **settings)  # type: ignore[arg-type]


# ------------------------------------------------------------------ bit by bit


@pytest.mark.parametrize("optimizer", [MOMENTUM, ADAM], ids=["momentum", "adam"])
@pytest.mark.parametrize("staleness", [None, 1])
@pytest.mark.parametrize("correction", [None, LagRate()], ids=str)
@pytest.mark.parametrize("gather", [1, 2, 3, 4])
def test_gathering_and_lower_rates_have_the_bits_of_the_plain_loop(
    gather: int,
    correction: Correction | None,
    staleness: int | None,
    optimizer: OptimizerFactory,
    watch: Callable[..., Watched],
) -> None:
    job = make(Async(staleness, gather), correction, optimizer)
    run = watch(job)
    assert len(run.pushes) == STEPS * SLOTS
    assert staleness is not None or max(record.lag for record in run.records) >= (2 if gather == 1 else 1)
    assert Plain(job).replay(run.pushes, gather) == sha256(run.outcome.weights)


@pytest.mark.parametrize("correction", [DelayCompensation(0.0), DelayCompensation(0.0, adaptive=True)], ids=str)
def test_without_strength_delay_compensation_is_plain_async(
    correction: Correction, watch: Callable[..., Watched]
) -> None:
    plain, corrected = watch(make(Async())), watch(make(Async(), correction))
    assert [(p.slot, p.step, p.pulled) for p in plain.pushes] == [(p.slot, p.step, p.pulled) for p in corrected.pushes]
    assert sha256(plain.outcome.weights) == sha256(corrected.outcome.weights)


@pytest.mark.parametrize("correction", [LagRate(), DelayCompensation(), GapAware()], ids=str)
def test_with_one_slot_nothing_is_late_and_every_correction_is_plain_async(
    correction: Correction, watch: Callable[..., Watched]
) -> None:
    plain, corrected = (
        watch(make_job(NormAndDropout, Async(), slots=1, steps=8, shards=3, correction=each))
        for each in (None, correction)
    )
    assert sha256(plain.outcome.weights) == sha256(corrected.outcome.weights)


# ------------------------------------------------------------------ by the formula


@pytest.mark.parametrize("gather", [1, 3])
@pytest.mark.parametrize("staleness", [None, 2])
@pytest.mark.parametrize(
    "correction", [DelayCompensation(300.0), DelayCompensation(adaptive=True), GapAware()], ids=str
)
def test_late_gradients_are_corrected_against_the_weights_that_their_slot_pulled(
    correction: Correction, staleness: int | None, gather: int, watch: Callable[..., Watched]
) -> None:
    job = make(Async(staleness, gather), correction, partial(torch.optim.SGD, lr=0.1), steps=8)
    run = watch(job)
    plain, uncorrected = Plain(job), Plain(make(Async(staleness, gather), None, job.optimizer, steps=8))
    plain.replay(run.pushes, gather)
    uncorrected.replay(run.pushes, gather)
    change = 0.0
    for found, expected, other in zip(
        run.outcome.weights.values(), plain.versions[-1], uncorrected.versions[-1], strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-6)
        change = max(change, (expected - other).abs().max().item())
    assert change > 1e-4, "the correction makes a difference that is seen"


# ------------------------------------------------------------------ what the log says


def test_receipts_show_the_learning_rate_that_was_used(watch: Callable[..., Watched]) -> None:
    run = watch(make(Async(), LagRate()))
    assert {record.lag for record in run.records} >= {0, 1, 2}
    for record in run.records:
        assert record.lr == (0.1 * (1 / max(record.lag, 1)),)


def test_every_gathered_gradient_shows_the_rate_that_it_counts_with(watch: Callable[..., Watched]) -> None:
    schedule = partial(StepLR, step_size=1, gamma=0.5)
    run = watch(make(Async(gather=3), LagRate(), schedule=schedule))
    assert len(run.records) == STEPS * SLOTS
    assert {record.status for record in run.records} == {"accepted"}
    rates = [lr / (1 / max(record.lag, 1)) for record in run.records for lr in record.lr]
    assert {round(math.log2(0.1 / rate)) for rate in rates} == set(range(STEPS))


# ------------------------------------------------------------------ counting


@pytest.mark.parametrize(("gather", "updates"), [(1, 20), (2, 10), (3, 7), (4, 5)])
def test_the_budget_is_used_up_and_the_last_update_takes_what_there_is(
    gather: int, updates: int, watch: Callable[..., Watched]
) -> None:
    outcome = watch(make(Async(gather=gather))).outcome
    assert outcome.versions == (updates, updates)
    assert (outcome.figures.accepted, outcome.figures.dropped) == (20, 0)


def test_a_gradient_that_is_not_finite_takes_no_place(watch: Callable[..., Watched]) -> None:
    seed = draw_seed(SEED, 1, 2)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = nn.functional.cross_entropy(outputs, targets)
        return value * torch.inf if torch.initial_seed() == seed else value

    run = watch(make(Async(gather=4), loss=loss))
    assert run.outcome.versions == (5, 5)  # 19 gradients: four times four, and three
    assert (run.outcome.figures.accepted, run.outcome.figures.dropped) == (19, 1)
    assert all(tensor.isfinite().all() for tensor in run.outcome.weights.values())


class Worsening:
    """A loss that grows with every batch, so that no evaluation is better than the first."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return nn.functional.cross_entropy(outputs, targets) * self.calls


def test_what_an_early_stop_leaves_behind_counts_as_dropped(watch: Callable[..., Watched]) -> None:
    small = partial(torch.optim.SGD, lr=1e-4)
    job = make(Async(0, gather=3), None, small, steps=50, evaluate_every=1, loss=Worsening(), evaluation_data=images)
    run = watch(job, EarlyStopping(patience=2))
    pushes = len(run.records)
    assert run.outcome.stopped_early is not None
    assert pushes == 16
    assert run.outcome.versions == (5, 5)
    assert (run.outcome.figures.accepted, run.outcome.figures.dropped) == (15, 1)
