import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from psgd.config import Straggler
from psgd.core.local_steps import LocalSteps
from psgd.core.modes import Async, Mode, Rules, Sync
from psgd.durations import NONE, Duration, constant, parse_duration
from psgd.experiments.calibration import (
    Calibration,
    calibrate,
    differing,
    fit_compute,
    fit_service,
    shorten,
    usual_transfer,
)
from psgd.experiments.timings import RunTimings, course_of, read_timings, simulate
from psgd.running import run_without_gradients
from psgd.simulation.timing import TimingJob
from psgd.simulation.world import World
from tests.records import iteration

RUN = Path("run")


def drawn(text: str, count: int, seed: int = 0) -> list[float]:
    duration, generator = parse_duration(text), np.random.default_rng(seed)
    return [duration.draw(generator) for _ in range(count)]


def calibrated(folder: Path, job: TimingJob, world: World) -> Calibration:
    """What is made of a simulated run of the job in the world."""
    run_without_gradients(job, world, folder, progress=False)
    return calibrate(read_timings(folder), folder)


def parts_of(duration: Duration) -> list[float]:
    """The numbers in its words."""
    return [float(number) for number in str(duration).replace("+exp", "").split(":") if number[0].isdigit()]


# ------------------------------------------------------------------ computing


def test_slots_that_are_alike_are_fitted_together() -> None:
    (quantity,) = fit_compute({slot: drawn("lognormal:0.1:0.3", 200, slot) for slot in range(4)}, RUN)
    assert str(quantity.fit.duration) == "lognormal:0.09987:0.2914"
    assert (quantity.slot, quantity.fit.measured, quantity.traced) == (None, 800, False)


def test_a_slot_that_clearly_differs_has_a_model_of_its_own_and_the_others_are_fitted_without_it() -> None:
    taken = {slot: drawn("exp:3" if slot == 2 else "exp:1", 300, slot) for slot in range(4)}
    others, slow = fit_compute(taken, RUN)
    assert (others.name, others.slot, others.fit.measured) == ("compute", None, 900)
    assert (slow.name, slow.slot, slow.fit.measured) == ("compute_of", 2, 300)
    assert others.fit.duration.mean == pytest.approx(np.mean([taken[0], taken[1], taken[3]]), rel=0.01)
    assert slow.fit.duration.mean == pytest.approx(np.mean(taken[2]), rel=0.01)


def test_a_small_difference_and_one_by_chance_are_none() -> None:
    assert differing({0: [1.0] * 50, 1: [1.09] * 50}) == []
    assert differing({0: [1.0] * 50, 1: [1.2] * 50}) == [1]
    few = {slot: drawn("exp:1", 5, slot) for slot in range(4)}
    medians = [float(np.median(seconds)) for seconds in few.values()]
    assert max(medians) > 1.5 * min(medians)
    assert differing(few) == []


def test_where_no_family_comes_close_the_times_are_drawn_themselves(tmp_path: Path) -> None:
    taken = {0: [1.0, 10.0] * 60}
    (quantity,) = fit_compute(taken, tmp_path)
    assert quantity.traced
    assert str(quantity.fit.duration) == f"trace:{tmp_path}"
    assert quantity.fit.duration.mean == 5.5
    assert quantity.families[0].distance > 0.1


def test_too_few_times_are_not_drawn_themselves() -> None:
    (quantity,) = fit_compute({0: [1.0, 10.0] * 49}, RUN)
    assert not quantity.traced


def test_a_heavy_tail_without_a_mean_is_not_taken_for_what_ends() -> None:
    taken = [0.001 * each for each in (1.0, 1.1, 1.2, 1.3, 1.5, 2.0, 9.0, 40.0)]
    (quantity,) = fit_compute({0: taken}, RUN)
    assert str(quantity.families[0].duration).startswith("pareto")
    assert quantity.families[0].duration.mean > 2 * np.mean(taken)
    assert quantity.fit.duration.mean == pytest.approx(np.mean(taken), rel=0.25)
    assert not quantity.traced


def test_no_computing_is_fitted_as_none() -> None:
    (quantity,) = fit_compute({0: [0.0, 0.0, 1e-9], 1: [0.0]}, RUN)
    assert quantity.fit.duration == NONE


def test_a_single_time_is_a_constant() -> None:
    (quantity,) = fit_compute({0: [0.25]}, RUN)
    assert quantity.fit.duration.mean == 0.25


def test_times_at_the_limit_of_what_counts_are_a_constant() -> None:
    (quantity,) = fit_compute({0: [1e-6] * 51 + [0.0] * 49}, RUN)
    assert str(quantity.fit.duration) == "1e-06"


# ------------------------------------------------------------------ transfer


def test_hiccups_are_no_part_of_usual_transfer() -> None:
    assert usual_transfer([iteration(transfer_s=seconds) for seconds in [0.5] * 99 + [100.0]]) == 0.5


def test_a_job_is_shortened_to_several_iterations_a_slot_at_least() -> None:
    job = TimingJob(Rules(Async(), 100, 1, 500), workers=100)
    assert [shorten(job, count).rules.steps for count in (10**6, 5000, 100)] == [500, 50, 10]


def transfers(seconds: list[float], job: TimingJob) -> RunTimings:
    """A run of one slot whose transfers took so long."""
    ended = [iteration(step=step, time_s=1.0 + step, transfer_s=took) for step, took in enumerate(seconds)]
    return RunTimings({}, tuple(ended), (), job)


def test_a_service_that_never_varies_is_a_constant() -> None:
    job = TimingJob(Rules(Async(), 6, 1, 60), workers=1)
    world = World(compute=parse_duration("lognormal:10ms:0.2"), service=constant(0.001))
    run = RunTimings({}, tuple(simulate(job, world)), (), job)
    fitted = World(compute=fit_compute(run.compute_s(), RUN)[0].fit.duration)
    assert str(fit_service(run, fitted).fit.duration) == "0.001"


def test_the_spread_of_a_service_has_a_limit() -> None:
    run = transfers([1e-5, 10.0] * 25, TimingJob(Rules(Async(), 1, 1, 50), workers=1))
    service = fit_service(run, World(compute=constant(0.1))).fit.duration
    assert parts_of(service)[1] == 2.0
    again = replace(run, iterations=tuple(simulate(run.job, World(compute=constant(0.1), service=service))))
    assert usual_transfer(again.warm) == pytest.approx(usual_transfer(run.warm), rel=0.02)


def test_transfer_that_nobody_measured_is_none() -> None:
    service = fit_service(transfers([0.5], TimingJob(Rules(Async(), 1, 1, 1), workers=1)), World())
    assert (service.fit.duration, service.seconds) == (NONE, ())


# ------------------------------------------------------------------ worlds found again


@pytest.mark.parametrize(
    ("mode", "workers"),
    [(Sync(), 4), (Sync(1), 4), (Async(), 4), (Async(2), 4), (Async(), 2), (Sync(), 2)],
    ids=["sync", "sync+1", "async", "async:2", "async, two slots a worker", "sync, two slots a worker"],
)
def test_the_world_of_a_simulated_run_is_found_again(tmp_path: Path, mode: Mode, workers: int) -> None:
    job = TimingJob(Rules(mode, 4, 2, 150), workers, batch_size=8, seed=1)
    world = World(compute=parse_duration("lognormal:0.1:0.3"), service=constant(0.01))
    found = calibrated(tmp_path, job, world)
    median, sigma = parts_of(found.world.compute)
    assert str(found.world.compute).startswith("lognormal")
    assert median == pytest.approx(0.1, rel=0.05)
    assert sigma == pytest.approx(0.3, rel=0.1)
    assert found.world.service.mean == pytest.approx(0.01, rel=0.1)
    assert (found.world.slots, found.world.evaluation) == ((), NONE)
    assert found.left_out == 4
    for name in ("samples_per_s", "idle_share", "seconds"):
        assert getattr(found.simulated, name) == pytest.approx(getattr(found.measured, name), rel=0.05)


def test_services_that_all_wait_for_are_told_from_the_waiting(tmp_path: Path) -> None:
    job = TimingJob(Rules(Async(), 16, 1, 60), workers=16)
    found = calibrated(tmp_path, job, World(compute=constant(0.1), service=constant(0.02)))
    assert usual_transfer(found.run.warm) > 5 * 0.02
    assert found.world.service.mean == pytest.approx(0.02, rel=0.02)


def test_a_service_that_varies_is_told_from_one_that_slots_wait_for(tmp_path: Path) -> None:
    job = TimingJob(Rules(Async(2), 4, 1, 250), workers=4)
    world = World(compute=parse_duration("exp:100ms"), service=parse_duration("lognormal:10ms:0.8"))
    found = calibrated(tmp_path, job, world)
    assert str(found.world.service).startswith("lognormal")
    assert found.world.service.mean == pytest.approx(world.service.mean, rel=0.15)
    assert parts_of(found.world.service)[1] == pytest.approx(0.8, rel=0.25)


def test_stragglers_are_no_part_of_the_world_and_are_simulated_again(tmp_path: Path) -> None:
    stragglers = (Straggler(None, parse_duration("exp:200ms")), Straggler(0, factor=3.0))
    job = TimingJob(Rules(Async(1), 4, 1, 100), workers=4, stragglers=stragglers, seed=5)
    found = calibrated(tmp_path, job, World(compute=constant(0.05)))
    assert str(found.world.compute) == "0.05"
    assert (found.world.slots, found.world.service) == ((), NONE)
    assert found.simulated.pushes_per_s == pytest.approx(found.measured.pushes_per_s, rel=1e-6)
    assert found.simulated.lag == pytest.approx(found.measured.lag)


@pytest.mark.parametrize("mini_batches", [4, 16])
@pytest.mark.parametrize("text", ["exp:10ms", "lognormal:10ms:0.5"])
def test_mini_batches_of_local_steps_are_spread_again(tmp_path: Path, text: str, mini_batches: int) -> None:
    rules = Rules(Sync(), 8, 1, 150, local_steps=LocalSteps(mini_batches))
    found = calibrated(tmp_path, TimingJob(rules, 8), World(compute=parse_duration(text)))
    assert found.simulated.pushes_per_s == pytest.approx(found.measured.pushes_per_s, rel=0.03)
    assert found.simulated.idle_share == pytest.approx(found.measured.idle_share, rel=0.05)


def test_mini_batches_of_local_steps_that_no_family_fits_are_drawn_spread(tmp_path: Path) -> None:
    rules = Rules(Sync(), 8, 1, 60, local_steps=LocalSteps(4))
    found = calibrated(tmp_path, TimingJob(rules, 8), World(compute=parse_duration("8ms+50%4ms")))
    assert found.quantities[0].traced
    assert np.std(found.quantities[0].seconds) == pytest.approx(0.002, rel=0.1)
    assert found.simulated.pushes_per_s == pytest.approx(found.measured.pushes_per_s, rel=0.02)


def test_what_is_predicted_for_another_mode_is_what_it_does(tmp_path: Path) -> None:
    world = World(compute=parse_duration("exp:100ms"), service=constant(0.003))
    rules = Rules(Async(2), 8, 1, 150)
    found = calibrated(tmp_path / "known", TimingJob(rules, 8), world)
    for mode in (Sync(), Async(0), Async()):
        job = TimingJob(Rules(mode, 8, 1, 150), 8)
        foretold, found_so = (course_of(job, simulate(job, each)) for each in (found.world, world))
        assert foretold.pushes_per_s == pytest.approx(found_so.pushes_per_s, rel=0.06)


def test_a_slow_slot_of_a_simulated_run_is_found_again(tmp_path: Path) -> None:
    world = World(compute=constant(0.1), slots=((3, constant(0.3)),))
    found = calibrated(tmp_path, TimingJob(Rules(Async(), 4, 1, 60), 4), world)
    assert (str(found.world.compute), [(slot, str(each)) for slot, each in found.world.slots]) == ("0.1", [(3, "0.3")])
    assert not any(math.isnan(each.fit.distance) for each in found.quantities if each.name.startswith("compute"))
