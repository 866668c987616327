"""The simulator's world fitted to a run, and how well the simulator then tells what the run was like."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scipy import optimize, stats

from psgd.analysis.fitting import CONSTANT_SPREAD, Fit, fit_all, unaveraged
from psgd.durations import NONE, Duration, Measured, Term, constant, parse_duration
from psgd.errors import InternalError
from psgd.experiments.timings import Course, RunTimings, course_of, simulate
from psgd.runlog import Iteration
from psgd.simulation.timing import TimingJob
from psgd.simulation.world import World

TRACE = "trace:"
BAD_DISTANCE, TRACED_FROM = 0.1, 100
"""Where no family comes closer, the durations themselves are drawn, if there are so many."""
MEAN_OFF = 0.25
"""By what share a model's mean may differ from what was measured."""
CLEARLY_APART, CHANCE = 0.1, 0.001
"""A slot differs from the others if its median does by such a share, and chance rarely makes such a difference."""
RESOLUTION_S = 1e-6
"""Durations below are as good as none."""
HICCUPS = 0.01
"""The share of the longest transfers that are left out: what the machine did meanwhile is not the shards' doing."""
EXPLAINED, ROUNDS = 0.1, 3
"""Of the variance of transfer times, what may be left unexplained; how often a greater spread is tried."""
MOST_SPREAD = 2.0
"""Of a service, the standard deviation of its logarithm at most: beyond, a run would be its few longest."""
PROBED, SIMULATED = 1000, 20_000
"""Iterations of a simulation, at most: of those that look for the service, and of the last one."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something of the world, as it was fitted.

    Args:
        name: of the option.
        slot: that it is about; None: all that have none of their own.
        seconds: what was measured; of mini-batches, where only means of several were, what has such means.
        fit: the model that was taken.
        families: all that were tried, the best first.
    """

    name: str
    slot: int | None
    seconds: tuple[float, ...]
    fit: Fit
    families: tuple[Fit, ...] = ()

    @property
    def traced(self) -> bool:
        """Whether the durations are drawn themselves, because no family comes close."""
        return bool(self.families) and self.fit not in self.families


@dataclass(frozen=True, slots=True)
class Calibration:
    """A world, and the run that it was fitted to.

    Args:
        left_out: iterations, the slots' first ones.
        measured: how the run went.
        simulated: how the same run goes in the world.
    """

    run: RunTimings
    world: World
    quantities: tuple[Quantity, ...]
    left_out: int
    measured: Course
    simulated: Course


def calibrate(run: RunTimings, path: Path) -> Calibration:
    """Fit the world to a run, then simulate the run in it.

    Compute times are fitted without what was injected, for all slots together but those that clearly differ. What
    transfer takes is all put down to the shards' service: it is what makes the simulated run, under the same rules and
    with the same waiting at the shards, spend as much on transfer as the real one.

    Args:
        path: of the run, for traces.
    """
    computing = fit_compute(run.compute_s(), path, run.job.rules.mini_batches)
    world = World(
        compute=computing[0].fit.duration,
        slots=tuple((each.slot, each.fit.duration) for each in computing if each.slot is not None),
    )
    quantities = [*computing]
    service = fit_service(run, world)
    quantities.append(service)
    world = replace(world, service=service.fit.duration)
    if run.evaluation_s:
        evaluation = fit_evaluation(run.evaluation_s)
        quantities.append(evaluation)
        world = replace(world, evaluation=evaluation.fit.duration)
    return Calibration(
        run,
        world,
        tuple(quantities),
        len(run.iterations) - len(run.warm),
        course_of(run.job, run.iterations),
        _again(run.job, world),
    )


def _again(job: TimingJob, world: World) -> Course:
    """How the job goes in the world; the seconds of a very long one are those of a part, times its share in it."""
    part = shorten(job, SIMULATED)
    course = course_of(part, simulate(part, world))
    return replace(course, seconds=course.seconds * (job.rules.steps or 1) / (part.rules.steps or 1))


# ------------------------------------------------------------------ computing


def fit_compute(compute_s: Mapping[int, Sequence[float]], path: Path, mini_batches: int = 1) -> list[Quantity]:
    """Models of how long mini-batches take: of all slots first, then of each one that clearly differs.

    Args:
        compute_s: each slot's times.
        path: of the run, for a trace.
        mini_batches: that each time is the mean of.
    """
    apart = differing(compute_s)
    together = [second for slot, seconds in compute_s.items() if slot not in apart for second in seconds]
    whole = path if not apart else None  # a trace does not tell slots apart
    return [
        _fit("compute", None, together, mini_batches, whole),
        *(_fit("compute_of", slot, compute_s[slot], mini_batches, None) for slot in apart),
    ]


def differing(compute_s: Mapping[int, Sequence[float]]) -> list[int]:
    """The slots whose compute times are clearly not like most of the others'."""
    medians = {slot: statistics.median(seconds) for slot, seconds in compute_s.items()}
    typical = statistics.median_low(medians.values())
    apart = [slot for slot, median in medians.items() if abs(median - typical) > CLEARLY_APART * typical]
    like = [second for slot, seconds in compute_s.items() if slot not in apart for second in seconds]
    return [slot for slot in apart if stats.ks_2samp(compute_s[slot], like).pvalue < CHANCE]


def _fit(name: str, slot: int | None, means: Sequence[float], mini_batches: int, path: Path | None) -> Quantity:
    """The family that comes closest; of a path, the trace of the run where none comes close.

    A run's speed depends on the mean, so it must be about right: that of a heavy tail can be infinite. The exponential
    families have the one that was measured.
    """
    measured = tuple(unaveraged(means, mini_batches))
    if statistics.median(means) < RESOLUTION_S:
        return Quantity(name, slot, measured, Fit(NONE, 0.0, len(measured)))
    if len(measured) < 2:
        return Quantity(name, slot, measured, Fit(constant(measured[0]), 0.0, 1))
    noticeable = [max(second, RESOLUTION_S) for second in means]
    families, mean = tuple(fit_all(noticeable, mini_batches)), statistics.fmean(noticeable)
    best = next(each for each in families if abs(each.duration.mean - mean) <= MEAN_OFF * mean)
    if best.distance > BAD_DISTANCE and len(measured) >= TRACED_FROM and path is not None:
        best = Fit(trace_of(measured, path.absolute()), 0.0, len(measured))
    return Quantity(name, slot, measured, best, families)


def trace_of(seconds: Sequence[float], run: Path) -> Duration:
    """The durations themselves, each as likely as the others.

    Args:
        run: that they are of.
    """
    return Duration((Term(Measured(tuple(seconds))),), f"{TRACE}{run}")


# ------------------------------------------------------------------ transfer and evaluation


def fit_service(run: RunTimings, world: World) -> Quantity:
    """How long a shard takes for each gradient that it takes in, and for each hand-out of weights.

    How often that is, and who waits for whom at a shard, depends on mode and load: so the service is looked for by
    simulating the run until its transfer takes as long as it did. It is constant, unless waiting at the shards does not
    explain how much transfer differs from one iteration to the next: then it is log-normal, with a spread that has its
    limit.

    Args:
        world: how long computing takes.
    """
    measured = tuple(each.transfer_s for each in run.warm)
    target = usual_transfer(run.warm) if measured else 0.0
    if target < RESOLUTION_S:
        return Quantity("service", None, measured, Fit(NONE, 0.0, len(measured)))
    part = replace(run, job=shorten(run.job, PROBED))
    sigma, variance = 0.0, _log_variance(run.warm)
    found = _as_long(part, world, target, sigma)
    for _ in range(ROUNDS):
        unexplained = variance - _log_variance(_simulated(part, world, found))
        if unexplained <= max(EXPLAINED * variance, CONSTANT_SPREAD**2) or sigma == MOST_SPREAD:
            break
        sigma = min(math.sqrt(sigma**2 + unexplained), MOST_SPREAD)
        found = _as_long(part, world, target, sigma)
    return Quantity("service", None, measured, Fit(found, math.nan, len(measured)))


def _as_long(run: RunTimings, world: World, target: float, sigma: float) -> Duration:
    """The service with which the run's usual transfer is the target.

    Args:
        sigma: the standard deviation of its logarithm.
    """

    def too_long(logarithm: float) -> float:
        taken = usual_transfer(_simulated(run, world, _service(math.exp(logarithm), sigma)))
        return math.log(max(taken, 1e-12) / target)

    # Every transfer has one service at least; all slots' services, twice, and nobody waits longer.
    least, most = math.log(target / (8 * run.job.rules.slots)) - 2 * sigma, math.log(1.5 * target)
    found, result = optimize.brentq(too_long, least, most, xtol=0.005, full_output=True)
    if not result.converged:
        raise InternalError(f"no service makes transfer take {target} s")
    return _service(math.exp(found), sigma)


def _service(median: float, sigma: float) -> Duration:
    return _rounded(median) if sigma == 0 else parse_duration(f"lognormal:{median:.4g}:{sigma:.4g}")


def _simulated(run: RunTimings, world: World, service: Duration) -> list[Iteration]:
    """The warm iterations of the run in the world."""
    return replace(run, iterations=tuple(simulate(run.job, replace(world, service=service)))).warm


def usual_transfer(iterations: Sequence[Iteration]) -> float:
    """The mean of what iterations spend on transfer, without hiccups."""
    ordered = sorted(each.transfer_s for each in iterations)
    return statistics.fmean(ordered[: math.ceil((1 - HICCUPS) * len(ordered))])


def _log_variance(iterations: Sequence[Iteration]) -> float:
    """Of what iterations spend on transfer: how much that differs, whatever its unit."""
    return statistics.pvariance(math.log(max(each.transfer_s, RESOLUTION_S)) for each in iterations)


def fit_evaluation(seconds: Sequence[float]) -> Quantity:
    """How long the evaluator takes: the median."""
    median = statistics.median(seconds)
    return Quantity("evaluation", None, tuple(seconds), Fit(_rounded(median), math.nan, len(seconds)))


def _rounded(seconds: float) -> Duration:
    return constant(float(f"{seconds:.4g}"))


def shorten(job: TimingJob, iterations: int) -> TimingJob:
    """The job with so many iterations at most, though several of each slot."""
    steps = min(job.rules.steps or iterations, max(iterations // job.rules.slots, 10))
    return replace(job, rules=replace(job.rules, steps=steps))
