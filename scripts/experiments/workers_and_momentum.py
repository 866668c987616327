"""More asynchronous workers, more error: at a fixed learning rate, and sooner with momentum.

    python -m scripts.experiments.workers_and_momentum --data-dir MNIST

Published: Mitliagkas, Zhang, Hadjis, Ré 2016, "Asynchrony begets Momentum" (Allerton; arXiv 1605.09774): asynchronous
workers act like momentum, on top of the optimizer's own; Hakimi, Barkai, Gabel, Schuster 2019, "Taming Momentum in a
Distributed Asynchronous Environment" (arXiv 1907.11612): with momentum, the final error grows with the number of
asynchronous workers until training diverges.

Simulated, with real gradients at truly stale weights: 1 to 32 slots with mini-batches of 32, an MLP 784-64-10 on
MNIST, 1,600 gradients in all however many slots there are, SGD with learning rate 0.05, with and without momentum 0.9;
log-normal compute times with σ = 0.3, no communication. Beside it, with no claim about it: momentum 0.9 with a tenth of
the learning rate, which comes to steps as long as those without momentum.

Must come out, as medians over the seeds: the test error grows monotonically with the number of workers, and has grown
by 5 points at fewer workers with momentum than without. Monotonically: it never falls by more than one point, as less
is not told apart by so few seeds; an error above 50 % counts as 50 %, as runs that diverged are equally bad.

Interrupted, the same command goes on where it was.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.figure import Figure

import psgd
from psgd.data.datasets import Split
from psgd.simulation.world import World
from scripts.experiments.mnist import load_if_there, make_mlp
from scripts.experiments.results import Claim, Findings, Runs, add_runs, parser_of, publish, tell

NAME = "workers_and_momentum"
WORKERS, QUICK_WORKERS = (1, 2, 4, 8, 16, 32), (1, 8)
GRADIENTS, QUICK_GRADIENTS = 1600, 160
BATCH_SIZE, LR, MOMENTUM = 32, 0.05, 0.9
WORLD = World(compute=psgd.parse_duration("lognormal:1:0.3"))
NOISE, RISE, DIVERGED = 0.01, 0.05, 0.5


@dataclass(frozen=True, slots=True)
class Setting:
    """How one run is made.

    Args:
        gradients: of all workers together.
    """

    workers: int
    lr: float
    momentum: float
    seed: int
    gradients: int


Errors = Mapping[int, Sequence[float]]
"""By the number of workers, one a seed."""


def train(data: Split, setting: Setting) -> dict[str, Any]:
    """Make one run.

    Returns:
        Its test error and its lag.
    """
    steps = setting.gradients // setting.workers
    figures = (
        psgd.Trainer(
            model=make_mlp,
            optimizer=partial(torch.optim.SGD, lr=setting.lr, momentum=setting.momentum),
            train_data=data.train,
            val_data=data.test,
            mode=psgd.Async(),
            workers=setting.workers,
            batch_size=BATCH_SIZE,
            steps=steps,
            evaluate_every=steps,
            seed=setting.seed,
            world=WORLD,
            out=None,
            progress=False,
        )
        .fit()
        .figures
    )
    return {"error": 1 - figures["test_accuracy"], "lag": figures["lag"]["mean"]}


def medians(errors: Errors) -> dict[int, float]:
    """Over the seeds, where what has diverged is equally bad."""
    return {workers: min(median(found), DIVERGED) for workers, found in errors.items()}


def largest_fall(errors: Errors) -> float:
    """By how much the error is at most below what it was with fewer workers."""
    found = list(medians(errors).values())
    return max(max(found[: at + 1]) - error for at, error in enumerate(found))


def risen_at(errors: Errors) -> float:
    """The fewest workers with which the error is well above that of one; infinite: none."""
    found = medians(errors)
    first = next(iter(found.values()))
    return next((workers for workers, error in found.items() if error >= first + RISE), float("inf"))


def claims_of(plain: Errors, momentum: Errors) -> list[Claim]:
    """What must come out, at one learning rate without and with momentum."""
    with_it, without = risen_at(momentum), risen_at(plain)
    return [
        _grows("without momentum", plain),
        _grows(f"with momentum {MOMENTUM}", momentum),
        Claim(
            f"it has grown by {100 * RISE:g} points at fewer workers with momentum than without",
            f"at {_workers(with_it)} with, at {_workers(without)} without",
            with_it < without,
        ),
    ]


def _grows(name: str, errors: Errors) -> Claim:
    fall, found = largest_fall(errors), medians(errors)
    first, last = (found[workers] for workers in (min(found), max(found)))
    words = f"{name}, the error grows with the number of workers, never falling by more than {100 * NOISE:g} point"
    return Claim(
        words,
        f"{_percent(first)} to {_percent(last)}, the largest fall {100 * fall:.2f} points",
        fall <= NOISE and last > first + NOISE,
    )


def _percent(error: float) -> str:
    return f"≥ {100 * DIVERGED:g} %" if error >= DIVERGED else f"{100 * error:.2f} %"


def _workers(number: float) -> str:
    return "none" if number == float("inf") else f"{number:g}"


def draw(series: Mapping[str, Errors]) -> Figure:
    """Error against the number of workers."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    for color, (name, errors) in enumerate(series.items()):
        every = list(errors)
        axes.plot(every, [100 * median(errors[w]) for w in every], f"C{color}", label=name)
        axes.plot(
            [w for w in every for _ in errors[w]],
            [100 * error for w in every for error in errors[w]],
            f"C{color}o",
            markersize=3,
        )
    axes.set(xlabel="asynchronous workers", ylabel="test error, %: median and seeds", xscale="log", yscale="log")
    axes.set_xticks(every, [str(workers) for workers in every], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_yticks((5, 10, 20, 50, 90), ("5", "10", "20", "50", "90"), minor=False)
    axes.set_yticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    return figure


def main(argv: Sequence[str]) -> int:
    """Make the runs that are missing, and the page."""
    parser = parser_of(__doc__, NAME, seeds=3)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with MNIST's original IDX files")
    add_runs(parser, NAME)
    options = parser.parse_args(argv)
    data = load_if_there(options.data_dir, NAME)
    if data is None:
        return 0
    runs = Runs(options.runs)
    every, gradients = (QUICK_WORKERS, QUICK_GRADIENTS) if options.quick else (WORKERS, GRADIENTS)

    def errors_of(lr: float, momentum: float) -> dict[int, list[float]]:
        errors: dict[int, list[float]] = {}
        for workers in every:
            settings = [Setting(workers, lr, momentum, seed, gradients) for seed in range(options.seeds)]
            errors[workers] = [runs.of(asdict(s), partial(train, data, s))["error"] for s in settings]
            found = 100 * median(errors[workers])
            tell(f"{workers} workers, learning rate {lr:g}, momentum {momentum:g}: error {found:.2f} %")
        return errors

    plain, momentum, tenth = errors_of(LR, 0.0), errors_of(LR, MOMENTUM), errors_of(LR * (1 - MOMENTUM), MOMENTUM)
    series = {
        f"learning rate {LR:g}": plain,
        f"learning rate {LR:g}, momentum {MOMENTUM:g}": momentum,
        f"learning rate {LR * (1 - MOMENTUM):g}, momentum {MOMENTUM:g}": tenth,
    }
    findings = Findings(
        title="Asynchronous workers and momentum",
        about=f"An MLP 784-64-10 on MNIST, mini-batches of {BATCH_SIZE}, {gradients:,} gradients of all workers "
        f"together, SGD, async without a bound, compute times {WORLD.compute}. Median of {options.seeds} seeds "
        "(least–greatest).",
        claims=claims_of(plain, momentum),
        rows=[("workers", *series), *([str(w), *(_spread(errors[w]) for errors in series.values())] for w in every)],
        words=(),
        figure=draw(series),
        notes=[
            "With momentum and a tenth of the learning rate, which comes to steps as long as those without momentum, "
            f"the error has grown by {100 * RISE:g} points at {_workers(risen_at(tenth))} workers, without momentum at "
            f"{_workers(risen_at(plain))}.",
        ],
    )
    return publish(findings, options.out, f"python -m scripts.experiments.{NAME} --data-dir MNIST")


def _spread(errors: Sequence[float]) -> str:
    low, middle, high = (100 * of(errors) for of in (min, median, max))
    return f"{middle:.2f} % ({low:.2f}–{high:.2f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
