"""Throughput of asynchronous SGD where compute times are exponential: ahead of the barrier by the harmonic number.

    python -m scripts.experiments.throughput

Published: a barrier waits for the slowest of N machines, on average H_N = 1 + 1/2 + … + 1/N times as long as for one,
if their compute times are exponential; without a barrier nobody waits (Dutta, Joshi, Ghosh, Dube, Nagpurkar 2018, "Slow
and Stale Gradients Can Win the Race", AISTATS; arXiv 1803.01113, section 3). While one slot computes, each of
the N − 1 others pushes once, on average: that is the lag.

Simulated: compute times with mean 1 s, no communication, no gradients.

Must come out: async/sync throughput is H_N within 3 %, the mean lag N − 1 within 5 %, for N = 4, 8 and 16.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import psgd
from psgd.core.modes import Rules
from psgd.result import lags
from psgd.runlog import Iteration, Record
from psgd.simulation.timing import TimingJob, run_timing
from psgd.simulation.world import World
from scripts.experiments.results import Claim, Findings, parser_of, publish, tell

NAME = "throughput"
SLOTS = (4, 8, 16)
STEPS, QUICK_STEPS = 1000, 200
WORLD = World(compute=psgd.parse_duration("exp:1"))
RATIO_WITHIN, LAG_WITHIN = 0.03, 0.05


@dataclass(frozen=True, slots=True)
class Measured:
    """What came out for so many slots, as means over the seeds.

    Args:
        sync: pushes a second.
        free: the same without a barrier.
        histogram: without a barrier, the share of pushes that had each lag.
    """

    slots: int
    sync: float
    free: float
    histogram: dict[int, float]

    @property
    def ratio(self) -> float:
        """How far async is ahead."""
        return self.free / self.sync

    @property
    def lag(self) -> float:
        """The mean."""
        return math.fsum(lag * share for lag, share in self.histogram.items())


def harmonic(slots: int) -> float:
    """1 + 1/2 + … + 1/slots."""
    return math.fsum(1 / k for k in range(1, slots + 1))


def run(mode: psgd.Sync | psgd.Async, slots: int, steps: int, seed: int) -> tuple[float, dict[int, int]]:
    """Time one run.

    Returns:
        Pushes a second, and how many had each lag.
    """
    records: list[Record] = []
    job = TimingJob(Rules(mode, slots, shards=1, steps=steps), workers=slots, seed=seed)
    timing = run_timing(job, WORLD, records.append)
    iterations = [record for record in records if isinstance(record, Iteration)]
    return timing.figures.accepted / timing.seconds, lags(iterations)


def measure(slots: int, steps: int, seeds: int) -> Measured:
    """Time both modes with every seed."""
    sync = fmean(run(psgd.Sync(), slots, steps, seed)[0] for seed in range(seeds))
    free = [run(psgd.Async(), slots, steps, seed) for seed in range(seeds)]
    pushes = steps * slots * seeds
    seen = sorted({lag for _, histogram in free for lag in histogram})
    shares = {lag: sum(histogram.get(lag, 0) for _, histogram in free) / pushes for lag in seen}
    return Measured(slots, sync, fmean(rate for rate, _ in free), shares)


def claims_of(found: Sequence[Measured]) -> list[Claim]:
    """What must come out, for each number of slots."""
    return [claim for measured in found for claim in (_ahead(measured), _stale(measured))]


def _ahead(measured: Measured) -> Claim:
    wanted = harmonic(measured.slots)
    off = measured.ratio / wanted - 1
    words = f"N = {measured.slots}: async/sync throughput is H_N = {wanted:.3f} within {RATIO_WITHIN:.0%}"
    return Claim(words, f"{measured.ratio:.3f}, {off:+.1%}", abs(off) <= RATIO_WITHIN)


def _stale(measured: Measured) -> Claim:
    wanted = measured.slots - 1
    off = measured.lag / wanted - 1
    words = f"N = {measured.slots}: mean lag of async is N − 1 = {wanted} within {LAG_WITHIN:.0%}"
    return Claim(words, f"{measured.lag:.2f}, {off:+.1%}", abs(off) <= LAG_WITHIN)


def draw(found: Sequence[Measured]) -> Figure:
    """How far async is ahead, and how stale it is."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_ratios(left, found)
    for measured in found:
        lag, share = zip(*measured.histogram.items(), strict=True)
        right.plot(lag, [100 * part for part in share], label=f"N = {measured.slots}, mean {measured.lag:.2f}")
    right.set(xlabel="lag of a push", ylabel="% of pushes", xlim=(0, 3 * max(m.slots for m in found)), ylim=0)
    right.set_title("lag of async: on average the number of others")
    right.grid(alpha=0.3)
    right.legend()
    return figure


def _draw_ratios(axes: Axes, found: Sequence[Measured]) -> None:
    every = range(1, max(measured.slots for measured in found) + 3)
    axes.plot(every, [harmonic(slots) for slots in every], color="grey", label="H_N", zorder=0)
    axes.plot([m.slots for m in found], [m.ratio for m in found], "o", label="simulated")
    for measured in found:
        axes.annotate(f"{measured.ratio:.2f}", (measured.slots, measured.ratio), (6, -12), textcoords="offset points")
    axes.set(
        xlabel="N, slots",
        xticks=range(0, max(every) + 1, 2),
        ylabel="throughput, async / sync",
        title="exponential compute times",
        ylim=0,
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")


def main(argv: Sequence[str]) -> int:
    """Time all runs, write the page."""
    options = parser_of(__doc__, NAME, seeds=3).parse_args(argv)
    steps = QUICK_STEPS if options.quick else STEPS
    found = []
    for slots in SLOTS:
        measured = measure(slots, steps, options.seeds)
        tell(f"N = {slots}: async/sync {measured.ratio:.3f}, mean lag {measured.lag:.2f}")
        found.append(measured)
    heading = ("N", "sync, pushes/s", "async, pushes/s", "async/sync", "H_N", "mean lag", "N − 1")
    findings = Findings(
        title="Throughput and lag where compute times are exponential",
        about=f"Compute times {WORLD.compute}, no communication, {steps:,} steps, means over {options.seeds} seeds.",
        claims=claims_of(found),
        rows=[heading, *map(_row, found)],
        words=(),
        figure=draw(found),
    )
    return publish(findings, options.out, f"python -m scripts.experiments.{NAME}")


def _row(measured: Measured) -> tuple[str, ...]:
    numbers = (measured.sync, measured.free, measured.ratio, harmonic(measured.slots), measured.lag)
    return (str(measured.slots), *(f"{number:.3f}" for number in numbers), str(measured.slots - 1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
