"""A run without gradients is, message for message, the run that trains."""

from dataclasses import replace

import pytest

from psgd.config import Clip, Job
from psgd.core.modes import Async, Mode, Sync
from psgd.durations import constant, parse_duration
from psgd.runlog import Iteration, Record
from psgd.simulation import training
from psgd.simulation.timing import TimingJob, run_timing
from psgd.simulation.world import World
from psgd.training.policies import Policies
from psgd.transport.flat import tensors_of
from tests.jobs import STEPS, first_model, keep_nothing, make_job

MODES = [Sync(), Sync(backups=1), Async(), Async(staleness=2), Async(gather=2)]
BUSY = World(
    compute=parse_duration("exp:10ms"),
    latency=parse_duration("exp:1ms"),
    bandwidth=10e6,
    service=parse_duration("exp:1ms"),
    update=parse_duration("2ms"),
)


def train(job: Job, world: World) -> tuple[float, list[Iteration]]:
    records: list[Record] = []
    outcome = training.run(job, world, tensors_of(first_model(job.model)), Policies(), records.append, keep_nothing)
    return outcome.seconds, bare(records)


def time(job: Job, world: World) -> tuple[float, list[Iteration]]:
    """The same without gradients."""
    records: list[Record] = []
    parameters = job.layout.bytes // 4
    alike = TimingJob(job.rules, job.workers, job.training.batch_size, parameters, seed=job.training.seed)
    return run_timing(alike, world, records.append).seconds, bare(records)


def bare(records: list[Record]) -> list[Iteration]:
    """Iterations, without what only a gradient has."""
    return [replace(each, loss=None, lr=(), clip_scale=1.0) for each in records if isinstance(each, Iteration)]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(("workers", "slots"), [(1, 8), (2, 5), (4, 4)])
def test_it_takes_the_time_and_the_bytes_of_the_training(mode: Mode, workers: int, slots: int) -> None:
    job = make_job(mode=mode, workers=workers, slots=slots)
    assert time(job, BUSY) == train(job, BUSY)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_failures_cost_it_what_they_cost_the_training(mode: Mode) -> None:
    job, fragile = make_job(mode=mode, workers=2), replace(BUSY, mtbf=0.1, downtime=constant(0.05))
    assert time(job, fragile) == train(job, fragile)


@pytest.mark.parametrize(("mode", "rounds"), [(Sync(), STEPS), (Async(), 0)])
def test_clipping_takes_the_round_between_shards_that_it_takes_in_training(mode: Mode, rounds: int) -> None:
    world = World(latency=constant(1.0))
    free, clipped = (make_job(mode=mode, workers=4, shards=2, clip=clip) for clip in (None, Clip(norm=1.0)))
    seconds, _ = time(clipped, world)
    assert seconds == train(clipped, world)[0]
    assert seconds == time(free, world)[0] + 2 * rounds
