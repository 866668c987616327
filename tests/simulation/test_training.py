import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from psgd import inprocess
from psgd.config import Job, Straggler
from psgd.coordinator.outcome import Outcome
from psgd.core.modes import Async, Mode, Sync
from psgd.durations import constant, parse_duration
from psgd.errors import ConfigurationError
from psgd.runlog import Evaluation, Iteration, Notice, Record
from psgd.simulation.training import run
from psgd.simulation.world import World
from psgd.training.policies import EarlyStopping, Policies
from psgd.transport.flat import sha256, tensors_of
from tests.jobs import MLP, SLOTS, STEPS, NormAndDropout, first_model, images, keep_nothing, make_job

SLOW_AND_FRAGILE = World(
    compute=parse_duration("exp:1"),
    latency=parse_duration("exp:50ms"),
    bandwidth=1e6,
    service=parse_duration("10ms"),
    update=parse_duration("exp:20ms"),
    evaluation=parse_duration("3"),
    mtbf=6.0,
    downtime=parse_duration("1"),
)


def simulate(job: Job, world: World, stopping: EarlyStopping | None = None) -> tuple[Outcome, list[Record]]:
    records: list[Record] = []
    outcome = run(job, world, tensors_of(first_model(job.model)), Policies(stopping), records.append, keep_nothing)
    return outcome, records


def iterations(records: Sequence[Record]) -> list[Iteration]:
    return [record for record in records if isinstance(record, Iteration)]


def losses_by_step(records: Sequence[Record]) -> dict[tuple[int, int], float | None]:
    return {(record.slot, record.step): record.loss for record in iterations(records)}


# ------------------------------------------------------------------ sync: the bits of reality


@pytest.mark.parametrize("world", [World(), SLOW_AND_FRAGILE], ids=["even", "slow and fragile"])
@pytest.mark.parametrize(("workers", "shards"), [(1, 1), (2, 3), (SLOTS, 2)])
def test_sync_has_the_bits_of_a_real_run_in_any_world(world: World, workers: int, shards: int) -> None:
    job = make_job(NormAndDropout, workers=workers, shards=shards, evaluate_every=2, evaluation_data=images)
    real = inprocess.run(
        make_job(NormAndDropout), tensors_of(first_model(NormAndDropout)), Policies(), lambda _: None, keep_nothing
    )
    outcome, _ = simulate(job, world)
    assert sha256(outcome.weights) == sha256(real.weights)
    assert outcome.versions == (STEPS,) * shards


def test_failures_happen_in_a_fragile_world_and_are_told() -> None:
    _, records = simulate(make_job(workers=2), SLOW_AND_FRAGILE)
    lost = [record for record in records if isinstance(record, Notice)]
    assert lost
    assert all("was lost and is replaced: failed at" in notice.text for notice in lost)


# ------------------------------------------------------------------ async: truly stale, counted once


@pytest.mark.parametrize("mode", [Async(), Async(0), Async(2), Sync(backups=1)])
@pytest.mark.parametrize("workers", [2, SLOTS])
def test_every_granted_iteration_ends_once_whatever_fails(mode: Mode, workers: int) -> None:
    outcome, records = simulate(make_job(mode=mode, workers=workers, shards=2, steps=12), SLOW_AND_FRAGILE)
    figures = outcome.figures
    assert figures.accepted + figures.dropped == 12 * SLOTS
    seen = [(record.slot, record.step) for record in iterations(records)]
    assert len(seen) == len(set(seen))
    if isinstance(mode, Async) and mode.staleness is not None:
        assert figures.max_clock_gap <= mode.staleness


def test_gradients_are_those_of_the_weights_that_were_pulled() -> None:
    """Two slots on a quadratic of one number, by hand: the second push is computed before the first is applied."""

    class Number(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.ones(1))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.theta * torch.ones_like(inputs[:, 0, 0, 0])

    def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs**2).mean() / 2

    def sgd(params: object) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=0.25)  # type: ignore[arg-type]

    job = make_job(Number, Async(), workers=2, slots=2, steps=2, optimizer=sgd, loss=half_square)
    outcome, records = simulate(job, World())
    one = 1.0 - 0.25 * 1.0  # slot 0, from 1
    two = one - 0.25 * 1.0  # slot 1, from 1 as well
    three = two - 0.25 * one  # slot 0, from what it left at
    four = three - 0.25 * two
    assert outcome.weights["theta"].item() == pytest.approx(four, rel=1e-7)
    assert [record.lag for record in iterations(records)] == [0, 1, 1, 1]
    assert [record.time_s for record in iterations(records)] == [1.0, 1.0, 2.0, 2.0]


def test_the_same_world_and_seed_give_the_same_run() -> None:
    job = make_job(mode=Async(), workers=SLOTS, shards=2, steps=8)
    (first, records), (second, again) = (simulate(job, SLOW_AND_FRAGILE) for _ in range(2))
    assert sha256(first.weights) == sha256(second.weights)
    assert first.seconds == second.seconds
    assert records == again


def test_another_seed_gives_other_times() -> None:
    job = make_job(mode=Async(), workers=SLOTS)
    other = replace(job, training=replace(job.training, seed=job.training.seed + 1))
    world = World(compute=parse_duration("exp:1"))
    assert simulate(job, world)[0].seconds != simulate(other, world)[0].seconds


# ------------------------------------------------------------------ evaluations and time


def test_evaluations_are_made_at_their_boundaries_and_take_their_time() -> None:
    job = make_job(workers=SLOTS, steps=4, evaluate_every=2, evaluation_data=images)
    outcome, records = simulate(job, World(evaluation=constant(0.5)))
    found = [record for record in records if isinstance(record, Evaluation)]
    assert [(record.step, record.time_s, record.seconds) for record in found] == [(2, 2.5, 0.5), (4, 4.5, 0.5)]
    assert outcome.seconds == 4.5


def test_evaluations_stop_a_simulated_run_as_they_stop_a_real_one() -> None:
    job = make_job(MLP, mode=Async(2), workers=2, steps=20, evaluate_every=2, evaluation_data=images)
    outcome, _ = simulate(job, World(), EarlyStopping("test_accuracy", patience=1, mode="min"))
    assert outcome.stopped_early is not None
    assert outcome.figures.accepted < 20 * SLOTS


def test_slots_that_share_a_worker_compute_one_after_another() -> None:
    outcome, records = simulate(make_job(workers=1, steps=2), World())
    assert outcome.seconds == 2.0 * SLOTS
    assert math.isclose(sum(record.compute_s for record in iterations(records)), 2.0 * SLOTS)


def test_nobody_waits_for_a_straggler_in_the_world_that_simulates_it() -> None:
    job = make_job(workers=SLOTS, steps=3, stragglers=(Straggler(1, factor=1000.0),))
    outcome, _ = simulate(job, World())
    assert outcome.seconds == 3000.0


def test_a_straggler_that_takes_ages_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^straggler factor must be <= 1e\+09, got 1e\+300$"):
        simulate(make_job(stragglers=(Straggler(1, factor=1e300),)), World())
