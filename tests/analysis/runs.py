"""Folders of runs that nobody has made, for tests of whoever reads them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from psgd.analysis.comparison import ArmRuns, ComparisonFigures, Rate
from psgd.analysis.curves import Curve
from psgd.analysis.run_figures import TRAIN_METRICS_NAME, RunFigures
from psgd.runlog import FILE_NAME, Footer, Header, Record, encode
from tests.records import EVALUATION, iteration

SETTINGS: dict[str, Any] = {"slots": 2, "batch_size": 4, "steps": 4, "seed": 0}
FIGURES: dict[str, Any] = {
    "train_loss": 0.5,
    "samples": 32,
    "steps": 4,
    "seconds": 20.0,
    "samples_per_s": 1.6,
    "dropped_samples": 0,
}


def evaluation(step: int, **metrics: float) -> Record:
    """One of a test loss of 0.25, unless said otherwise."""
    named = {f"test_{name}": value for name, value in ({"loss": 0.25} | metrics).items()}
    return replace(EVALUATION, step=step, metrics=named)


def write_run(
    folder: Path,
    records: Sequence[Record] = (),
    *,
    train: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    footer: bool = True,
    **figures: Any,
) -> Path:
    """A log of these records, and what was measured on the training set."""
    folder.mkdir(parents=True)
    lines: list[Record] = [Header(SETTINGS | (settings or {}), {"psgd": "0.1"}, "2026-01-01T00:00:00+00:00"), *records]
    lines += [Footer(FIGURES | figures)] if footer else []
    (folder / FILE_NAME).write_text("".join(encode(line) + "\n" for line in lines))
    if train is not None:
        (folder / TRAIN_METRICS_NAME).write_text(json.dumps(train))
    return folder


def losses(*values: float | None, slot: int = 0) -> list[Record]:
    """A slot's iterations, one a step."""
    return [iteration(slot=slot, step=step, loss=loss) for step, loss in enumerate(values)]


def run_of(
    end: float | None,
    *,
    metric: str = "accuracy",
    seed: int = 0,
    seconds: float = 20.0,
    before: float = 0.5,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> RunFigures:
    """A run that ends with this value of the metric, and with 0.9 on the training set; with None, one that diverged.

    It has been evaluated twice: with 0.5 before it was over, by this part of it, and at its end.
    """
    times = (seconds * before, seconds)
    at = (float(int(32 * before)), 32.0), times
    measured = Curve() if end is None else Curve(*at, (0.5, end))
    run = RunFigures(
        settings=SETTINGS | {"seed": seed} | (settings or {}),
        versions={"psgd": "0.1"},
        figures=FIGURES
        | {"seconds": seconds, "samples_per_s": 32 / seconds, "train_loss": None if end is None else 0.5},
        test={"loss": Curve(*at, (0.25, None if end is None else 0.25)), metric: measured},
        final_test={} if end is None else {metric: end, "loss": 0.25},
        train_loss=Curve((16.0, 32.0), times, (1.0, 0.25 if end is None else 0.5)),
        final_train={} if end is None else {metric: 0.9, "loss": 0.5},
        folder=Path(f"runs/{seed}"),
    )
    return replace(run, **changes)


def curve_of(*points: tuple[float, float], every_s: float = 1.0) -> Curve:
    """(samples, value) points, so many seconds apart."""
    times = tuple(every_s * number for number in range(1, len(points) + 1))
    return Curve(tuple(samples for samples, _ in points), times, tuple(value for _, value in points))


def arm_of(optimizer: str, mode: str, rates: dict[float, Sequence[float | None]], metric: str = "accuracy") -> ArmRuns:
    """An arm whose runs end with these values of the metric, one a seed."""
    return ArmRuns(
        optimizer,
        mode,
        tuple(
            Rate(lr, tuple(run_of(end, metric=metric, seed=seed) for seed, end in enumerate(ends)))
            for lr, ends in rates.items()
        ),
        about_mode(optimizer, mode),
    )


def arm_in(mode: str, *runs: RunFigures | None) -> ArmRuns:
    """An arm of SGD with one learning rate, and these runs."""
    return ArmRuns("sgd", mode, (Rate(0.1, runs),), about_mode("sgd", mode))


def about_mode(optimizer: str, mode: str) -> dict[str, Any]:
    gate = mode.partition("/")[0]
    _, _, staleness = gate.partition(":")
    name, _, backups = gate.partition("+")
    return {
        "arm": f"{optimizer}, {mode}",
        "mode": name.partition(":")[0],
        "staleness": int(staleness) if staleness else None,
        "backups": int(backups or 0),
    }


def comparison_of(*arms: ArmRuns, **more: Any) -> ComparisonFigures:
    return ComparisonFigures(tuple(range(len(arms[0].rates[0].runs))), arms, **more)
