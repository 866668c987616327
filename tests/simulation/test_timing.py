import math
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest

from psgd.config import Straggler
from psgd.core.local_steps import LocalSteps
from psgd.core.modes import Async, Mode, Rules, Sync
from psgd.durations import constant, parse_duration
from psgd.errors import ConfigurationError, LostError
from psgd.runlog import Iteration, Record
from psgd.simulation.timing import Timing, TimingJob, run_timing
from psgd.simulation.world import World

EXPONENTIAL = World(compute=parse_duration("exp:1"))


def time(
    mode: Mode,
    slots: int,
    steps: int,
    world: World,
    *,
    shards: int = 1,
    workers: int | None = None,
    parameters: int = 0,
    stragglers: tuple[Straggler, ...] = (),
    seed: int = 0,
) -> tuple[Timing, list[Iteration]]:
    records: list[Record] = []
    job = TimingJob(
        Rules(mode, slots, shards, steps),
        workers or slots,
        parameters=parameters,
        stragglers=stragglers,
        seed=seed,
    )
    timing = run_timing(job, world, records.append)
    return timing, [record for record in records if isinstance(record, Iteration)]


def pushes_per_s(timing: Timing) -> float:
    return timing.figures.accepted / timing.seconds


def idle_share(iterations: Sequence[Iteration], workers: int) -> float:
    return 1 - sum(i.compute_s for i in iterations) / (workers * max(i.time_s for i in iterations))


# ------------------------------------------------------------------ what theory says


@pytest.mark.parametrize("slots", [4, 8, 16])
def test_async_outpaces_sync_by_the_harmonic_number_where_compute_times_are_exponential(slots: int) -> None:
    harmonic = math.fsum(1 / k for k in range(1, slots + 1))
    (sync, _), (free, _) = time(Sync(), slots, 1500, EXPONENTIAL), time(Async(), slots, 1500, EXPONENTIAL)
    assert pushes_per_s(free) / pushes_per_s(sync) == pytest.approx(harmonic, rel=0.03)


@pytest.mark.parametrize("slots", [4, 8, 16])
def test_the_mean_lag_of_async_is_the_number_of_others(slots: int) -> None:
    _, iterations = time(Async(), slots, 500, EXPONENTIAL)
    assert sum(i.lag for i in iterations) / len(iterations) == pytest.approx(slots - 1, rel=0.05)


def test_throughput_rises_and_idleness_falls_with_the_bound_where_stragglers_are_transient() -> None:
    runs = {s: time(Async(s), 8, 300, EXPONENTIAL) for s in (0, 1, 2, 4, 8)}
    rates = [pushes_per_s(timing) for timing, _ in runs.values()]
    idle = [idle_share(iterations, 8) for _, iterations in runs.values()]
    assert all(slower < faster for slower, faster in pairwise(rates))
    assert all(more > less for more, less in pairwise(idle))
    assert rates[-1] >= 2 * rates[0]
    assert {s: timing.figures.max_clock_gap <= s for s, (timing, _) in runs.items()} == dict.fromkeys(runs, True)


def test_throughput_does_not_depend_on_the_bound_where_one_slot_is_slow_for_good() -> None:
    slow = (Straggler(3, factor=3.0),)
    rates = [pushes_per_s(time(Async(s), 8, 400, World(), stragglers=slow)[0]) for s in (0, 2, 4, 8)]
    assert rates == pytest.approx([8 / 3] * 4, rel=0.05)


def test_four_backups_capture_most_of_what_ten_gain() -> None:
    world = World(compute=parse_duration("1+chi2:0.1+2%exp:5"))
    seconds = {b: time(Sync(b), 100, 60, world)[0].seconds for b in (0, 4, 10)}
    assert (seconds[0] - seconds[4]) / (seconds[0] - seconds[10]) > 0.85


# ------------------------------------------------------------------ exact times


def test_a_step_takes_as_long_as_its_slowest_slot() -> None:
    timing, iterations = time(Sync(), 2, 3, World(slots=((1, constant(2.5)),)))
    assert timing.seconds == 7.5
    assert [i.wait_s for i in iterations if i.slot == 0] == [1.5] * 3
    assert [i.wait_s for i in iterations if i.slot == 1] == [0.0] * 3


def test_an_iteration_takes_grant_pull_computation_push_and_update() -> None:
    world = World(
        compute=constant(1.0), latency=constant(0.25), bandwidth=100.0, service=constant(0.5), update=constant(2.0)
    )
    timing, iterations = time(Async(0), 1, 2, world, parameters=25)
    # join, and a grant: two round trips; then a pull (latency, service, latency and bytes), a push and its answer
    pull = 0.25 + 0.5 + 0.25 + 1.0
    push = (0.25 + 1.0) + 0.5 + 2.0 + 0.25
    assert timing.seconds == 0.5 + (0.5 + pull + 1.0 + push) + (0.5 + pull + 1.0 + push) + 0.5
    assert [i.compute_s for i in iterations] == [1.0, 1.0]
    assert [i.transfer_s for i in iterations] == [0.5 + pull + push, pull + push]  # the first introduces itself
    assert [i.wait_s for i in iterations] == [0.5, 0.5]
    assert [i.bytes for i in iterations] == [200, 200]


def test_many_shards_share_the_bytes() -> None:
    world = World(compute=constant(0.0), bandwidth=100.0)
    (one, _), (four, _) = (time(Sync(), 8, 10, world, parameters=400, shards=shards) for shards in (1, 4))
    # eight gradients pass the link of one shard, or a quarter of each; then a worker's own link is a limit, too
    assert one.seconds > 2 * four.seconds


def test_several_slots_of_a_worker_take_turns() -> None:
    timing, iterations = time(Async(), 4, 5, World(), workers=2)
    assert timing.seconds == 10.0
    assert {i.worker for i in iterations if i.slot == 3} == {1}
    assert timing.figures.clocks == (5, 5, 5, 5)


def test_workers_that_fail_are_replaced_and_nothing_is_counted_twice() -> None:
    world = World(compute=parse_duration("exp:1"), latency=constant(0.1), mtbf=10.0, downtime=constant(2.0))
    timing, iterations = time(Async(4), 6, 40, world, shards=3)
    assert timing.figures.accepted + timing.figures.dropped == 240
    assert len({(i.slot, i.step) for i in iterations}) == len(iterations)
    assert timing.seconds > time(Async(4), 6, 40, World(compute=parse_duration("exp:1")))[0].seconds


def test_a_push_that_breaks_off_as_its_worker_fails_is_never_applied() -> None:
    world = World(compute=constant(1.0), bandwidth=100.0, mtbf=20.0, downtime=constant(1.0))
    timing, iterations = time(Async(0), 1, 40, world, parameters=100)  # a push takes four seconds, its answer none
    assert len({i.time_s for i in iterations}) == timing.figures.accepted == 40


@pytest.mark.parametrize("mode", [Sync(), Async()])
def test_a_run_whose_workers_fail_before_they_have_computed_is_given_up(mode: Mode) -> None:
    world = World(compute=constant(1.0), mtbf=0.01)
    message = r"^no iteration has ended since workers have failed 200 times: mtbf must be longer .*, got 0.01 s$"
    with pytest.raises(LostError, match=message):
        time(mode, 4, 5, world, workers=2)


def test_however_often_workers_fail_a_run_goes_on_as_long_as_iterations_end() -> None:
    world = World(compute=constant(1.0), mtbf=1.0, downtime=constant(0.0))
    timing, _ = time(Async(), 2, 300, world)  # about 1,000 failures, far more than nothing may come of
    assert timing.figures.accepted == 600
    assert timing.seconds == pytest.approx(300 * (math.e - 1), rel=0.1)  # until a worker lives for a second


def test_an_iteration_of_local_steps_has_as_many_mini_batches() -> None:
    records: list[Record] = []
    job = TimingJob(Rules(Sync(), 2, 1, 3, local_steps=LocalSteps(5)), workers=2, batch_size=4)
    timing = run_timing(job, World(), records.append)
    assert timing.seconds == 15.0
    assert {record.samples for record in records if isinstance(record, Iteration)} == {20}


def test_a_run_lasts_until_its_slots_have_heard_of_its_end() -> None:
    world = World(compute=constant(10.0), latency=constant(1.0))
    (free, asking), (sync, told) = time(Async(), 1, 3, world), time(Sync(), 1, 3, world)
    assert (asking[-1].time_s, free.seconds) == (46.0, 48.0)
    assert told[-1].time_s == sync.seconds  # the last receipt says so


def test_pushes_of_one_moment_are_stale_by_what_those_before_them_have_changed() -> None:
    _, iterations = time(Async(), 4, 3, World())
    assert [(i.slot, i.lag) for i in iterations] == [
        *((0, 0), (1, 1), (2, 2), (3, 3)),
        *((0, 3), (1, 3), (2, 3), (3, 3)),
        *((0, 3), (1, 3), (2, 3), (3, 3)),
    ]


def test_modes_with_one_seed_have_the_same_luck() -> None:
    (_, sync), (_, free) = time(Sync(), 3, 20, EXPONENTIAL), time(Async(0), 3, 20, EXPONENTIAL)
    took = [{(i.slot, i.step): i.compute_s for i in run} for run in (sync, free)]
    assert took[0] == took[1]


# ------------------------------------------------------------------ what is refused


def test_more_workers_than_slots_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="workers must be in 1 … 2, the slots, got 3"):
        TimingJob(Rules(Sync(), 2, 1, 5), workers=3)


def test_slots_that_the_job_has_not_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"must be < slots \(2\), got 2"):
        time(Sync(), 2, 5, World(slots=((2, constant(3.0)),)))
    with pytest.raises(ConfigurationError, match=r"^straggler slot must be < slots \(2\), got 2$"):
        TimingJob(Rules(Sync(), 2, 1, 5), workers=2, stragglers=(Straggler(2, factor=2.0),))


def test_a_simulation_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="steps must be given"):
        TimingJob(Rules(Sync(), 2, 1, None), workers=2)


@pytest.mark.parametrize(
    ("name", "value", "least"), [("batch_size", 0, 1), ("parameters", -1, 0), ("parameters", 2**63, 0), ("seed", -1, 0)]
)
def test_a_number_that_is_out_of_range_is_refused(name: str, value: int, least: int) -> None:
    message = re.escape(f"{name} must be in {least} … 2**63 - 1, got {value}")
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        TimingJob(Rules(Sync(), 2, 1, 5), workers=2, **{name: value})  # type: ignore[arg-type]
