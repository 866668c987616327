"""Staleness-aware learning rates: async SGD diverges at the synchronous learning rate, unless divided by the lag.

    python -m scripts.experiments.staleness_aware --data-dir MNIST

Published: Zhang, Gupta, Lian, Liu 2016, "Staleness-aware Async-SGD for Distributed Deep Learning" (IJCAI; arXiv
1511.05950), where 30 learners train with n-softsync: an update averages 30/n gradients, whose mean lag is then about n.
At the learning rate that suits synchronous SGD, training diverges with large n; with the learning rate divided by the
lag it comes to the error of synchronous SGD.

Simulated, with real gradients at truly stale weights: 30 slots with mini-batches of 4, an MLP 784-64-10 on MNIST, SGD
with momentum 0.9, 24,000 gradients, log-normal compute times with σ = 0.3, no communication.

Hidden units are rectified, or with --units tanh smooth. Momentum 0.9 and a lag leave a quadratic a thirtieth of the
steps that are stable without a lag (αL < 0.12 instead of 3.8), and dividing by the lag gives no more than that back:
with the best synchronous rate weights swing at first, which kills rectified units for good; smooth ones come back.

Must come out, as medians over the seeds, at the learning rate of 0.02, 0.05, 0.1 and 0.2 that is best for synchronous
SGD: softsync with n = 15 and n = 30 ends with more than 50 % test error; divided by the lag, it comes within 2 points
of synchronous SGD.

Takes half an hour on one core. Interrupted, the same command goes on where it was.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import psgd
from psgd.data.datasets import Split
from psgd.simulation.world import World
from scripts.experiments.mnist import load_if_there, make_mlp
from scripts.experiments.results import Claim, Findings, Runs, add_runs, parser_of, publish, tell

NAME = "staleness_aware"
SLOTS, BATCH_SIZE, MOMENTUM = 30, 4, 0.9
STEPS, QUICK_STEPS = 800, 8
RATES, QUICK_RATES = (0.02, 0.05, 0.1, 0.2), (0.05,)
UNITS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
SPLITS = (15, 30)
"""n of n-softsync."""
WORLD = World(compute=psgd.parse_duration("lognormal:1:0.3"))
DIVERGED_ABOVE, WITHIN = 0.5, 0.02
POINTS = 40
"""Of a run's curve."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How one run is made.

    Args:
        split: n of n-softsync; 0: synchronous.
        corrected: the learning rate is divided by the lag.
        steps: iterations a slot.
        units: of the hidden layer.
    """

    split: int
    corrected: bool
    lr: float
    seed: int
    steps: int
    units: str = "relu"

    @property
    def mode(self) -> psgd.Sync | psgd.Async:
        """What psgd calls it."""
        return psgd.Async(gather=SLOTS // self.split) if self.split else psgd.Sync()

    @property
    def words(self) -> str:
        """For people."""
        if not self.split:
            return "sync"
        return f"{self.split}-softsync{', divided by the lag' if self.corrected else ''}"


Figures = Mapping[str, Any]
Errors = Mapping[float, Sequence[float]]
"""By learning rate, one a seed."""


def train(data: Split, setting: Setting) -> dict[str, Any]:
    """Make one run.

    Returns:
        Its test error, its lag, and the mean training loss of each of `POINTS` parts of its gradients.
    """
    result = psgd.Trainer(
        model=partial(make_mlp, UNITS[setting.units]),
        optimizer=partial(torch.optim.SGD, lr=setting.lr, momentum=MOMENTUM),
        train_data=data.train,
        val_data=data.test,
        mode=setting.mode,
        correction=psgd.LagRate() if setting.corrected else None,
        workers=SLOTS,
        batch_size=BATCH_SIZE,
        steps=setting.steps,
        evaluate_every=setting.steps,
        seed=setting.seed,
        world=WORLD,
        out=None,
        progress=False,
    ).fit()
    losses = result.history["loss"].tolist()
    part = len(losses) // POINTS
    return {
        "error": 1 - result.figures["test_accuracy"],
        "lag": result.figures["lag"]["mean"],
        "updates": result.figures["updates"],
        "curve": [sum(losses[at : at + part]) / part for at in range(0, part * POINTS, part)],
    }


def kept(runs: Runs, data: Split, setting: Setting) -> Figures:
    """The figures of a run, made unless they are there."""
    begun = time.monotonic()
    figures = runs.of(asdict(setting), partial(train, data, setting))
    took = time.monotonic() - begun
    tell(
        f"{setting.words}, lr {setting.lr:g}, seed {setting.seed}: error {100 * figures['error']:.2f} % ({took:.0f} s)"
    )
    return figures


def best_rate(errors: Errors) -> float:
    """The learning rate with the least median."""
    return min(errors, key=lambda lr: median(errors[lr]))


def claims_of(
    sync: Sequence[float], plain: Mapping[int, Sequence[float]], corrected: Mapping[int, Sequence[float]]
) -> list[Claim]:
    """What must come out.

    Args:
        sync: test errors at its best learning rate, one a seed.
        plain: those of n-softsync by n.
        corrected: the same, divided by the lag.
    """
    return [*_diverge(plain), *_come_close(median(sync), corrected)]


def _diverge(plain: Mapping[int, Sequence[float]]) -> Iterator[Claim]:
    for split, errors in plain.items():
        found = median(errors)
        words = f"{split}-softsync at the best synchronous learning rate diverges: > {DIVERGED_ABOVE:.0%} error"
        yield Claim(words, f"{100 * found:.2f} %", found > DIVERGED_ABOVE)


def _come_close(sync: float, corrected: Mapping[int, Sequence[float]]) -> Iterator[Claim]:
    for split, errors in corrected.items():
        found = median(errors)
        words = f"{split}-softsync divided by the lag comes within {100 * WITHIN:g} points of sync"
        yield Claim(
            words,
            f"{100 * found:.2f} % against {100 * sync:.2f} %, {100 * (found - sync):+.2f} points",
            found - sync <= WITHIN,
        )


def draw(groups: Mapping[str, Sequence[Figures]], gradients: int, lr: float) -> Figure:
    """Loss against gradients, and the errors at the end."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_curves(left, groups, gradients)
    _draw_errors(right, groups)
    figure.suptitle(f"MNIST, 30 learners, momentum 0.9, learning rate {lr:g}")
    return figure


def _draw_curves(axes: Axes, groups: Mapping[str, Sequence[Figures]], gradients: int) -> None:
    places = [(point + 0.5) * gradients / POINTS for point in range(POINTS)]
    for color, runs in enumerate(groups.values()):
        for run in runs:
            losses = [float("nan") if loss is None else loss for loss in run["curve"]]
            axes.plot(places, losses, color=f"C{color}", linewidth=1)
    axes.set(xlabel="gradients", ylabel="training loss, colours as on the right", yscale="log")
    axes.grid(alpha=0.3)


def _draw_errors(axes: Axes, groups: Mapping[str, Sequence[Figures]]) -> None:
    for row, runs in enumerate(groups.values()):
        errors = [100 * run["error"] for run in runs]
        axes.barh(row, median(errors), color=f"C{row}", alpha=0.4)
        axes.plot(errors, [row] * len(errors), "o", color=f"C{row}", markersize=4)
        axes.annotate(f"{median(errors):.1f} %", (max(errors), row), (6, 0), textcoords="offset points", va="center")
    axes.set(xlabel="test error at the end, %: median and seeds", xlim=(0, 120))
    axes.set_yticks(range(len(groups)), [name.replace(", ", ",\n") for name in groups])
    axes.invert_yaxis()


def main(argv: Sequence[str]) -> int:
    """Make the runs that are missing, and the page."""
    parser = parser_of(__doc__, NAME, seeds=3)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with MNIST's original IDX files")
    parser.add_argument("--units", choices=UNITS, default="relu", help="of the hidden layer (default: relu)")
    add_runs(parser, NAME)
    options = parser.parse_args(argv)
    data = load_if_there(options.data_dir, NAME)
    if data is None:
        return 0
    runs, seeds = Runs(options.runs), range(options.seeds)
    steps, rates = (QUICK_STEPS, QUICK_RATES) if options.quick else (STEPS, RATES)

    def of(split: int, corrected: bool, lr: float) -> list[Figures]:
        return [kept(runs, data, Setting(split, corrected, lr, seed, steps, options.units)) for seed in seeds]

    sync = {lr: of(0, False, lr) for lr in rates}
    lr = best_rate({lr: _errors(found) for lr, found in sync.items()})
    plain, corrected = ({split: of(split, also, lr) for split in SPLITS} for also in (False, True))
    groups = {"sync": sync[lr]}
    groups |= {f"{split}-softsync": plain[split] for split in SPLITS}
    groups |= {f"{split}-softsync, divided by the lag": corrected[split] for split in SPLITS}
    findings = Findings(
        title="Learning rates divided by the lag",
        about=f"30 slots with mini-batches of 4, an MLP 784-64-10 ({options.units}) on MNIST, SGD with momentum 0.9, "
        f"{steps * SLOTS:,} gradients, compute times {WORLD.compute}. Zhang et al. 2016 (arXiv 1511.05950). Medians "
        f"over {options.seeds} seeds (least–greatest).",
        claims=claims_of(
            _errors(sync[lr]),
            {split: _errors(found) for split, found in plain.items()},
            {split: _errors(found) for split, found in corrected.items()},
        ),
        rows=[
            ("mode", "learning rate", "test error", "mean lag", "updates"),
            *(_row("sync", rate, found) for rate, found in sync.items()),
            *(_row(name, lr, found) for name, found in groups.items() if name != "sync"),
        ],
        words={0},
        figure=draw(groups, steps * SLOTS, lr),
    )
    command = f"python -m scripts.experiments.{NAME} --data-dir MNIST --units {options.units}"
    return publish(findings, options.out, command)


def _errors(runs: Sequence[Figures]) -> list[float]:
    return [run["error"] for run in runs]


def _row(name: str, lr: float, runs: Sequence[Figures]) -> tuple[str, ...]:
    errors = [100 * run["error"] for run in runs]
    spread = f"{median(errors):.2f} % ({min(errors):.2f}–{max(errors):.2f})"
    return (name, f"{lr:g}", spread, f"{median(run['lag'] for run in runs):.1f}", f"{runs[0]['updates']:,}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
