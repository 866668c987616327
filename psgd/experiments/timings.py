"""What a run's log says about time: how long its slots computed without what was injected, and how the run went."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psgd.config import Straggler
from psgd.core.local_steps import LocalSteps
from psgd.core.messages import Status
from psgd.core.modes import Async, Rules, Sync
from psgd.durations import parse_duration
from psgd.errors import ConfigurationError, DataError
from psgd.experiments.log_check import check_log
from psgd.runlog import Evaluation, Footer, Iteration, Record, read
from psgd.simulation.timing import TimingJob, run_timing
from psgd.simulation.world import World
from psgd.worker.straggling import without_lingering


@dataclass(frozen=True, slots=True)
class RunTimings:
    """A run of the built-in loop, real or simulated.

    Args:
        settings: the log's header.
        iterations: by the time at which they ended.
        evaluation_s: of each evaluation.
        job: the same run without a model, for the simulator.
    """

    settings: dict[str, Any]
    iterations: tuple[Iteration, ...]
    evaluation_s: tuple[float, ...]
    job: TimingJob

    @property
    def warm(self) -> list[Iteration]:
        """All iterations but each slot's first, in which much is made that stays."""
        first: dict[int, int] = {}
        for each in self.iterations:
            first[each.slot] = min(each.step, first.get(each.slot, each.step))
        return [each for each in self.iterations if each.step > first[each.slot]]

    def compute_s(self) -> dict[int, list[float]]:
        """How long a mini-batch took without what was injected, by slot: the mean of each warm iteration, in order."""
        taken: dict[int, list[float]] = {slot: [] for slot in range(self.job.rules.slots)}
        for each in self.warm:
            without = without_lingering(self.job.stragglers, each.compute_s, self.job.seed, each.step, each.slot)
            taken[each.slot].append(max(without, 0.0) / self.job.rules.mini_batches)
        return taken


def read_timings(run: Path) -> RunTimings:
    """What the log of a run says about time.

    Args:
        run: the folder of its log, or the log.

    Raises:
        ConfigurationError: if there is no log, it is damaged, it has too few iterations, or they are those of a loop of
            one's own.
    """
    try:
        records = list(read(run))
    except DataError as error:
        raise ConfigurationError(str(error)) from None
    settings = check_log(records, run)
    iterations = sorted((r for r in records if isinstance(r, Iteration)), key=lambda i: i.time_s)
    if not iterations:
        raise ConfigurationError(f"RUN must have iterations, got none in {run}")
    ended = Counter(slot for slot, _ in {(each.slot, each.step) for each in iterations})
    few = next((slot for slot in range(settings["slots"]) if ended[slot] < 2), None)
    if few is not None:
        raise ConfigurationError(
            f"RUN must have two iterations of every slot, as the first is left out; slot {few} has {ended[few]} "
            f"in {run}"
        )
    seconds = tuple(record.seconds for record in records if isinstance(record, Evaluation))
    try:
        job = _job(settings, _steps(records, iterations, settings))
    except ConfigurationError as error:
        raise ConfigurationError(f"RUN must be of a job that can be run, got line 1 of {run}: {error}") from None
    return RunTimings(settings, tuple(iterations), seconds, job)


def _steps(records: Sequence[Record], iterations: Sequence[Iteration], settings: dict[str, Any]) -> int:
    """How many the run has made, also if it was stopped or broken off: two at least, as every slot has."""
    last = records[-1]
    if isinstance(last, Footer) and "steps" in last.figures:
        return max(int(last.figures["steps"]), 2)
    if settings["mode"] == Sync.name:
        return max(each.step for each in iterations) + 1
    return len(iterations) // int(settings["slots"])


def _job(settings: dict[str, Any], steps: int) -> TimingJob:
    """The run without its model."""
    sync = settings["mode"] == Sync.name
    mode = Sync(settings["backups"]) if sync else Async(settings["staleness"], settings.get("gather", 1))
    local = settings.get("local_steps")
    return TimingJob(
        Rules(
            mode,
            settings["slots"],
            settings["shards"],
            steps,
            local_steps=None if local is None else LocalSteps(local["steps"], local["lr"], local["momentum"]),
        ),
        settings["workers"],
        settings["batch_size"],
        stragglers=tuple(
            Straggler(each["slot"], parse_duration(each["delay"]), each["factor"]) for each in settings["stragglers"]
        ),
        seed=settings["seed"],
    )


@dataclass(frozen=True, slots=True)
class Course:
    """How a run went from the moment at which every slot had ended its first iteration.

    Args:
        pushes_per_s: that were accepted.
        samples_per_s: of those pushes.
        idle_share: of the workers' time, without computing.
        wait_share: of the slots' time, for others.
        lag: mean of the accepted pushes.
        seconds: that it took.
    """

    pushes_per_s: float
    samples_per_s: float
    idle_share: float
    wait_share: float
    lag: float
    seconds: float


def course_of(job: TimingJob, iterations: Sequence[Iteration]) -> Course:
    """How the run went that these iterations, by the time at which they ended, are of."""
    first: dict[int, float] = {}
    for each in iterations:
        first.setdefault(each.slot, each.time_s)
    began, ended = max(first.values()), iterations[-1].time_s
    inside = [each for each in iterations if each.time_s > began]
    elapsed = math.fsum(each.compute_s + each.wait_s + each.transfer_s for each in inside)
    lags = [each.lag for each in inside if each.status == Status.ACCEPTED]
    rate = len(lags) / (ended - began) if ended > began else 0.0
    # The slots of a worker take turns: what is computing for one of them is waiting for the others.
    turns = job.rules.slots / job.workers
    return Course(
        pushes_per_s=rate,
        samples_per_s=rate * job.iteration_samples,
        idle_share=max(1 - turns * math.fsum(i.compute_s for i in inside) / elapsed, 0.0) if elapsed else 0.0,
        wait_share=math.fsum(i.wait_s for i in inside) / elapsed if elapsed else 0.0,
        lag=statistics.fmean(lags) if lags else 0.0,
        seconds=ended - began,
    )


def simulate(job: TimingJob, world: World) -> list[Iteration]:
    """The iterations of the job in a world, by the time at which they ended."""
    records: list[Record] = []
    observe: Callable[[Record], None] = records.append
    run_timing(job, world, observe)
    return sorted((record for record in records if isinstance(record, Iteration)), key=lambda i: i.time_s)
