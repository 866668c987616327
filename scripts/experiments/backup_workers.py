"""Backup workers: a few slots that a step does not wait for save most of what stragglers cost.

    python -m scripts.experiments.backup_workers

Published: Chen, Pan, Monga, Bengio, Jozefowicz 2016, "Revisiting Distributed Synchronous SGD" (ICLR workshop; arXiv
1604.00981): of 100 machines a few are very slow in each step. A step that goes on without the last few is almost as
fast as one that goes on without many more, and drops fewer gradients.

Simulated: 100 slots whose compute time is 1 + 0.1·z² (z standard normal) plus, with probability 2 %, an exponential of
mean 5, in seconds; no communication, no gradients. A slot that is late finishes what it computes and then joins the
step that is open, so that it may be late again. Beside it, drawn at random: what a step takes if all begin it at once.

Must come out: 4 backups capture more than 85 % of the speed-up of 10, that is of the seconds that 10 save a step.
"""

import sys
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import psgd
from psgd.core.modes import Rules
from psgd.simulation.timing import TimingJob, run_timing
from psgd.simulation.world import World
from scripts.experiments.results import Claim, Findings, parser_of, publish, tell

NAME = "backup_workers"
MACHINES = 100
BACKUPS, QUICK_BACKUPS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20), (0, 2, 4, 10)
STEPS, QUICK_STEPS = 300, 30
WORLD = World(compute=psgd.parse_duration("1+chi2:0.1+2%exp:5"))
FEW, MANY = 4, 10
CAPTURED_ABOVE = 0.85
DRAWS = 1000
"""Steps that are drawn for `fresh_seconds`."""

Seconds = Mapping[int, float] | Sequence[float]
"""Of a step, by the number of backups."""


def step_seconds(backups: int, steps: int, seed: int) -> float:
    """Time one run.

    Returns:
        Seconds a step.
    """
    job = TimingJob(Rules(psgd.Sync(backups), MACHINES, shards=1, steps=steps), workers=MACHINES, seed=seed)
    return run_timing(job, WORLD, lambda record: None).seconds / steps


def fresh_seconds() -> list[float]:
    """What a step takes, on average, if all machines begin it at once: by the number of backups."""
    generator = np.random.default_rng(0)
    steps = [sorted(WORLD.compute.draw(generator) for _ in range(MACHINES)) for _ in range(DRAWS)]
    return [fmean(took) for took in zip(*steps, strict=True)][::-1]


def captured(seconds: Seconds) -> float:
    """The share of what many backups save that few save, too."""
    return (seconds[0] - seconds[FEW]) / (seconds[0] - seconds[MANY])


def gradients_per_s(seconds: Seconds, backups: int) -> float:
    """Those that are applied, of all machines together."""
    return (MACHINES - backups) / seconds[backups]


def claims_of(by_seed: Mapping[int, Sequence[float]]) -> list[Claim]:
    """What must come out, of the means; how far single seeds are from each other stands beside it.

    Args:
        by_seed: seconds of a step by the number of backups, one a seed.
    """
    seconds = {backups: fmean(took) for backups, took in by_seed.items()}
    share = captured(seconds)
    each = [captured(dict(zip(by_seed, one, strict=True))) for one in zip(*by_seed.values(), strict=True)]
    words = f"{FEW} backups capture > {CAPTURED_ABOVE:.0%} of the speed-up of {MANY}"
    found = (
        f"{share:.1%} (by seed {min(each):.1%} to {max(each):.1%}): {seconds[0]:.2f} s a step without, "
        f"{seconds[FEW]:.2f} s and {seconds[MANY]:.2f} s with them"
    )
    return [Claim(words, found, share > CAPTURED_ABOVE)]


def draw(seconds: Mapping[int, float], fresh: Seconds) -> Figure:
    """Step time and useful throughput against the number of backups."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    every = list(seconds)
    _draw(left, every, [seconds[b] for b in every], [fresh[b] for b in every])
    left.set(ylabel="seconds a step", title=f"{FEW} backups save {captured(seconds):.1%} of what {MANY} save")
    for backups in (0, FEW, MANY):
        left.annotate(f"{seconds[backups]:.2f} s", (backups, seconds[backups]), (7, 5), textcoords="offset points")
    _draw(right, every, *([gradients_per_s(of, b) for b in every] for of in (seconds, fresh)))
    right.set(ylabel="gradients applied a second", title="useful throughput")
    return figure


def _draw(axes: Axes, backups: Sequence[int], simulated: Sequence[float], fresh: Sequence[float]) -> None:
    axes.plot(backups, simulated, marker="o", label="simulated")
    axes.plot(backups, fresh, color="grey", linestyle="--", label="if all began each step at once")
    axes.set(xlabel=f"backups, of {MACHINES} machines", xlim=(-1, max(backups) + 2))
    axes.set_ylim(0, 1.15 * max(*simulated, *fresh))
    axes.grid(alpha=0.3)
    axes.legend()


def main(argv: Sequence[str]) -> int:
    """Time all runs, write the page."""
    options = parser_of(__doc__, NAME, seeds=3).parse_args(argv)
    every, steps = (QUICK_BACKUPS, QUICK_STEPS) if options.quick else (BACKUPS, STEPS)
    by_seed: dict[int, list[float]] = {}
    for backups in every:
        by_seed[backups] = [step_seconds(backups, steps, seed) for seed in range(options.seeds)]
        tell(f"{backups} backups: {fmean(by_seed[backups]):.3f} s a step")
    seconds = {backups: fmean(took) for backups, took in by_seed.items()}
    fresh = fresh_seconds()
    findings = Findings(
        title="Backup workers",
        about=f"{MACHINES} machines, compute times {WORLD.compute}, no communication, {steps} steps, means over "
        f"{options.seeds} seeds. Chen et al. 2016 (arXiv 1604.00981).",
        claims=claims_of(by_seed),
        rows=[
            ("backups", "seconds a step", "speed-up", "gradients applied a second", "seconds, all beginning at once"),
            *(
                (
                    str(b),
                    f"{took:.3f}",
                    f"{seconds[0] / took:.2f}",
                    f"{gradients_per_s(seconds, b):.1f}",
                    f"{fresh[b]:.3f}",
                )
                for b, took in seconds.items()
            ),
        ],
        words=(),
        figure=draw(seconds, fresh),
        notes=[
            f"Captured is the share of the seconds a step that {MANY} backups save. As factors, {FEW} backups are "
            f"{seconds[0] / seconds[FEW]:.2f} times and {MANY} backups {seconds[0] / seconds[MANY]:.2f} times as fast "
            "as none.",
            "A slot that is late finishes what it computes, and is missing in the steps meanwhile. If all began each "
            f"step at once, {FEW} backups would capture {captured(fresh):.1%}.",
        ],
    )
    return publish(findings, options.out, f"python -m scripts.experiments.{NAME}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
