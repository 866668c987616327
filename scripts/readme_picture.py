"""The picture in the README: three modes on digits with one slow slot, from real runs on a local Ray.

Usage: python scripts/readme_picture.py scripts/readme_picture.png
"""

import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

import psgd
from psgd.data.datasets import load

SLOTS = 4
STEPS = 220
SLOW_SLOT = psgd.Straggler(slot=3, delay=psgd.parse_duration("40ms"))
MODES: dict[str, psgd.Sync | psgd.Async] = {
    "sync": psgd.Sync(),
    "sync, 1 backup": psgd.Sync(backups=1),
    "async, staleness 4": psgd.Async(staleness=4),
}


def make_mlp() -> torch.nn.Module:
    """64 pixels, 10 digits."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))


def train(mode: psgd.Sync | psgd.Async) -> psgd.Result:
    """The same weights, data order and number of iterations for every mode."""
    digits = load("digits", None)
    return psgd.Trainer(
        model=make_mlp,
        optimizer=partial(torch.optim.SGD, lr=0.05),
        train_data=digits.train,
        val_data=digits.test,
        mode=mode,
        workers=SLOTS,
        shards=2,
        steps=STEPS,
        evaluate_every=STEPS // 20,
        stragglers=[SLOW_SLOT],
        out=None,
    ).fit()


def draw_accuracy(axes: Axes, results: dict[str, psgd.Result]) -> None:
    """Test accuracy against the seconds that had passed."""
    for name, result in results.items():
        axes.plot(result.evaluations["time_s"], result.evaluations["test_accuracy"], marker=".", label=name)
    axes.set(xlabel="seconds", ylabel="test accuracy", title="digits, 4 slots, one 40 ms slower", ylim=(0.5, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")


def draw_lag(axes: Axes, results: dict[str, psgd.Result]) -> None:
    """How stale the gradients were that async mode applied."""
    lags = results["async, staleness 4"].staleness_histogram
    axes.bar([int(lag) for lag in lags], list(lags.values()), color="C2")
    axes.set(xlabel="lag (updates between pull and push)", ylabel="pushes", title="async, staleness 4")


def main() -> None:
    """Run the modes one after another and write the picture."""
    target = Path(sys.argv[1])
    results = {name: train(mode) for name, mode in MODES.items()}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=(2, 1), layout="constrained")
    draw_accuracy(left, results)
    draw_lag(right, results)
    figure.savefig(target, dpi=144)


if __name__ == "__main__":
    main()
