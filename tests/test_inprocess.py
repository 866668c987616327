import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from psgd import inprocess
from psgd.config import Job, OwnLoop, Straggler
from psgd.coordinator.outcome import Outcome
from psgd.core.modes import Async, Mode, Sync
from psgd.data.sampler import draw_seed
from psgd.durations import constant
from psgd.errors import ConfigurationError
from psgd.runlog import Evaluation, Iteration, Record
from psgd.training.policies import EarlyStopping, Policies
from psgd.transport.flat import sha256, tensors_of
from tests.jobs import MLP, SEED, SLOTS, STEPS, NormAndDropout, Parties, first_model, images, keep_nothing, make_job

ITERATIONS = STEPS * SLOTS


def run(job: Job, stopping: EarlyStopping | None = None) -> tuple[Outcome, list[Record]]:
    records: list[Record] = []
    outcome = inprocess.run(job, tensors_of(first_model(job.model)), Policies(stopping), records.append, keep_nothing)
    return outcome, records


def iterations(records: list[Record]) -> list[Iteration]:
    return [record for record in records if isinstance(record, Iteration)]


def evaluations(records: list[Record]) -> list[Evaluation]:
    return [record for record in records if isinstance(record, Evaluation)]


# ------------------------------------------------------------------ one run


@pytest.mark.parametrize("mode", [Sync(), Async(), Async(0)])
def test_every_slot_computes_every_step(mode: Mode) -> None:
    outcome, records = run(make_job(mode=mode, workers=2, shards=2))
    done = {(record.slot, record.step) for record in iterations(records)}
    assert done == {(slot, step) for slot in range(SLOTS) for step in range(STEPS)}
    assert {record.worker for record in iterations(records) if record.slot == 3} == {1}
    assert len(iterations(records)) == outcome.figures.accepted == ITERATIONS
    assert (outcome.figures.dropped, outcome.figures.steps, outcome.stopped_early) == (0, STEPS, None)
    assert outcome.figures.clocks == (STEPS,) * SLOTS
    assert outcome.versions == ((STEPS,) * 2 if isinstance(mode, Sync) else (ITERATIONS,) * 2)


def test_weights_come_in_the_layouts_order_and_are_the_callers_own() -> None:
    first = tensors_of(first_model(NormAndDropout))
    before = {name: tensor.detach().clone() for name, tensor in first.items()}
    outcome = inprocess.run(make_job(NormAndDropout), first, Policies(), lambda record: None, keep_nothing)
    assert list(outcome.weights) == list(before)
    assert all(torch.equal(first[name], before[name]) for name in before)
    assert all(not torch.equal(outcome.weights[name], before[name]) for name in ("out.weight", "norm.running_mean"))
    assert outcome.weights["norm.num_batches_tracked"].item() == STEPS


def test_times_of_records_grow_within_the_run() -> None:
    outcome, records = run(make_job(workers=2, evaluate_every=2, evaluation_data=images))
    times = [record.time_s for record in records if isinstance(record, Iteration | Evaluation)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= outcome.seconds


def test_a_loss_that_falls_is_logged() -> None:
    _, records = run(make_job(steps=24, optimizer=partial(torch.optim.SGD, lr=0.1)))
    losses = [record.loss or math.nan for record in iterations(records)]
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_an_own_loop_is_refused() -> None:
    job = replace(make_job(workers=SLOTS), own_loop=OwnLoop(lambda: None))
    with pytest.raises(ConfigurationError, match="plane memory runs the built-in loop only"):
        run(job)


def test_the_number_of_threads_is_the_jobs_and_then_the_callers() -> None:
    seen: list[int] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return nn.functional.cross_entropy(outputs, targets)

    job = make_job(loss=loss, steps=1)
    run(replace(job, training=replace(job.training, threads=2)))
    assert set(seen) == {2}
    assert torch.get_num_threads() == 1


def test_a_straggler_costs_time_and_no_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("psgd.worker.compute.time.sleep", slept.append)
    outcome, _ = run(make_job(workers=2, stragglers=(Straggler(1, constant(60.0)),)))
    assert slept == [60.0] * STEPS
    assert sha256(outcome.weights) == sha256(run(make_job())[0].weights)


# ------------------------------------------------------------------ evaluation


def test_evaluations_name_the_versions_that_they_measured() -> None:
    _, records = run(make_job(shards=3, evaluate_every=2, evaluation_data=images))
    found = [(record.boundary, record.step, record.versions) for record in evaluations(records)]
    assert found == [(1, 2, (2, 2, 2)), (2, 4, (4, 4, 4)), (3, 5, (5, 5, 5))]
    assert all(set(record.metrics) == {"test_loss", "test_accuracy"} for record in evaluations(records))


class Worsening:
    """A loss that grows with every batch, so that no evaluation is better than the first."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return nn.functional.cross_entropy(outputs, targets) * self.calls


@pytest.mark.parametrize("mode", [Sync(), Async(1)])
def test_early_stopping_ends_the_run_at_the_following_boundary(mode: Mode) -> None:
    job = make_job(mode=mode, workers=2, shards=2, steps=50, evaluate_every=3, loss=Worsening(), evaluation_data=images)
    outcome, records = run(job, EarlyStopping(patience=2))
    assert outcome.figures.steps == 12  # bad news at boundaries 2 and 3 take effect at boundary 4
    assert outcome.stopped_early is not None
    assert outcome.stopped_early.endswith("for 2 evaluations: stopped at step 12")
    decided = [(record.step, record.decision.split(":")[0], record.effective_step) for record in evaluations(records)]
    assert decided == [(3, "go on", 6), (6, "go on", 9), (9, "stop", 12), (12, "go on", 15)]
    assert len(iterations(records)) == 12 * SLOTS


# ------------------------------------------------------------------ asynchronous


@pytest.mark.parametrize("staleness", [None, 0, 3])
@pytest.mark.parametrize("shards", [1, 3])
def test_with_one_slot_asynchronous_training_has_the_bits_of_synchronous(staleness: int | None, shards: int) -> None:
    schedule = partial(CosineAnnealingLR, T_max=8)
    make = partial(make_job, NormAndDropout, shards=shards, slots=1, steps=8, schedule=schedule)
    synchronous, first = run(make(Sync()))
    asynchronous, second = run(make(Async(staleness)))
    assert sha256(synchronous.weights) == sha256(asynchronous.weights)
    assert torch.equal(
        synchronous.weights["norm.num_batches_tracked"], asynchronous.weights["norm.num_batches_tracked"]
    )
    assert [record.lr for record in iterations(first)] == [record.lr for record in iterations(second)]
    assert len({record.lr for record in iterations(first)}) == 8


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_a_worker_stops_at_the_staleness_bound_until_the_slowest_goes_on(staleness: int) -> None:
    parties = Parties(make_job(mode=Async(staleness), workers=2, slots=2, steps=10))
    parties.exhaust(0)
    assert parties.workers[0].clocks == {0: staleness + 1}
    assert parties.figures().max_clock_gap == staleness
    parties.workers[1].advance(timeout_s=0)
    parties.exhaust(0)
    assert parties.workers[0].clocks == {0: staleness + 1}  # the slowest has joined, and finished nothing
    parties.exhaust(0, 1)
    assert parties.figures().max_clock_gap == staleness
    ahead, behind = parties.figures().clocks
    assert ahead + behind == 20
    assert 0 <= ahead - behind <= staleness + 1


def test_without_a_bound_one_worker_may_use_up_the_whole_budget() -> None:
    parties = Parties(make_job(mode=Async(), workers=2, shards=2, slots=2, steps=10))
    parties.exhaust(0)
    assert parties.figures().clocks == (20, 0)
    assert parties.figures().max_clock_gap == 19
    parties.exhaust(1)
    assert all(worker.done for worker in parties.workers)
    assert [parties.figures(shard).version for shard in range(2)] == [20, 20]


@pytest.mark.parametrize("staleness", [None, 0, 1, 4])
@pytest.mark.parametrize("seed", range(3))
def test_in_any_order_the_budget_is_used_up_and_the_bound_is_kept(staleness: int | None, seed: int) -> None:
    parties = Parties(make_job(mode=Async(staleness), workers=3, shards=2, steps=6))
    parties.run_in_random_order(seed)
    figures = parties.figures()
    assert sum(figures.clocks) == 6 * SLOTS == figures.accepted == figures.version == parties.figures(1).version
    assert (figures.steps, figures.dropped) == (6, 0)
    assert staleness is None or figures.max_clock_gap <= staleness
    for slot, clock in enumerate(figures.clocks):
        assert [r.step for r in parties.records if r.slot == slot] == list(range(clock))  # each once, in order
    versions = sorted(record.version for record in parties.records)
    assert versions == list(range(1, 6 * SLOTS + 1))


def test_the_schedule_ticks_once_in_as_many_iterations_as_there_are_slots() -> None:
    schedule = partial(StepLR, step_size=1, gamma=0.5)
    _, asynchronous = run(make_job(mode=Async(0), schedule=schedule))
    _, synchronous = run(make_job(mode=Sync(), schedule=schedule))
    rates = [record.lr for record in iterations(asynchronous)]
    assert rates == [(0.1 * 0.5**step,) for step in range(STEPS) for _ in range(SLOTS)]
    assert rates == [record.lr for record in iterations(synchronous)]


# ------------------------------------------------------------------ gradients that are not finite, late ones


def infinite_at(step: int, slot: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy, but infinite at this (step, slot)."""
    seed = draw_seed(SEED, step, slot)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = nn.functional.cross_entropy(outputs, targets)
        return value * torch.inf if torch.initial_seed() == seed else value

    return loss


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("step", [0, 2])
def test_asynchronously_a_gradient_that_is_not_finite_is_refused_by_every_shard(shards: int, step: int) -> None:
    outcome, records = run(make_job(mode=Async(), workers=2, shards=shards, loss=infinite_at(step, 1)))
    refused = [(r.step, r.slot) for r in iterations(records) if r.status == "nonfinite"]
    assert refused == [(step, 1)]
    assert outcome.versions == (ITERATIONS - 1,) * shards
    assert (outcome.figures.accepted, outcome.figures.dropped) == (ITERATIONS - 1, 1)
    assert outcome.figures.clocks == (STEPS,) * SLOTS  # the clock goes on
    assert all(tensor.isfinite().all() for tensor in outcome.weights.values())


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("step", [0, 2])
def test_synchronously_such_a_step_closes_without_an_update_on_every_shard(shards: int, step: int) -> None:
    schedule = partial(StepLR, step_size=1, gamma=0.5)
    outcome, records = run(make_job(workers=2, shards=shards, loss=infinite_at(step, 1), schedule=schedule))
    refused = [(r.step, r.slot) for r in iterations(records) if r.status == "nonfinite"]
    assert sorted(refused) == [(step, slot) for slot in range(SLOTS)]
    assert outcome.versions == (STEPS - 1,) * shards
    assert (outcome.figures.steps, outcome.figures.dropped) == (STEPS, SLOTS)
    assert outcome.figures.accepted == ITERATIONS - SLOTS
    assert {r.step: r.lr for r in iterations(records)} == {
        s: () if s == step else (0.1 * 0.5**s,)
        for s in range(STEPS)  # the schedule ticks
    }


def test_with_backups_late_gradients_are_counted() -> None:
    outcome, records = run(make_job(mode=Sync(backups=1), workers=4, shards=3, steps=6))
    accepted = [r for r in iterations(records) if r.status == "accepted"]
    late = [r for r in iterations(records) if r.status == "late"]
    assert outcome.figures.accepted == len(accepted) == 6 * (SLOTS - 1)
    assert outcome.figures.dropped == 6
    assert 0 < len(late) <= 6  # the others were never computed: the slot went on with the open step
    assert {r.lr for r in late} == {()}
    assert outcome.versions == (6, 6, 6)
    assert [sum(r.step == step for r in accepted) for step in range(6)] == [SLOTS - 1] * 6


def test_first_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"tensor '1\.weight' is missing"):
        inprocess.run(make_job(MLP), {}, Policies(), lambda record: None, keep_nothing)
