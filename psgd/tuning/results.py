"""What a search has found, as a table, and as files for spreadsheets and programs."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from psgd.analysis.tables import Row
from psgd.runlog import Goal
from psgd.tuning.space import Space, values_of
from psgd.tuning.trials import Trial, as_plain, best, ranked

CSV_NAME, JSON_NAME = "results.csv", "results.json"


def table(space: Space, trials: Iterable[Trial], metric: str, goal: Goal) -> list[Row]:
    """A row a trial, the best first; the first row is the heading, the last column is the status."""
    heading = ("trial", *space, metric, "steps", "seconds", "status")
    return [heading, *(_row(space, trial, metric) for trial in ranked(trials, metric, goal))]


def _row(space: Space, trial: Trial, metric: str) -> Row:
    value = trial.value(metric)
    settings = (in_words(each) for each in values_of(space, trial.point).values())
    measured = (str(trial.step), f"{trial.seconds:.1f}") if trial.evaluations else ("–", "–")
    return (str(trial.number), *settings, "–" if value is None else f"{value:.4f}", *measured, trial.status)


def reasons(trials: Iterable[Trial]) -> list[str]:
    """Why trials came to nothing, a line for each reason."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.status in ("refused", "failed", "diverged"):
            numbers.setdefault((trial.status, trial.reason or ""), []).append(trial.number)
    return [
        f"trial{'s' if len(those) > 1 else ''} {', '.join(map(str, those))} {status}: {reason}"
        for (status, reason), those in numbers.items()
    ]


def in_words(value: Any) -> str:
    """A setting as it is written on the command line, numbers shortened."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return f"[{','.join(value)}]"
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def write_csv(path: Path, space: Space, trials: Sequence[Trial], metric: str, goal: Goal) -> None:
    """One row a trial, the best first, with all of its final metrics.

    Raises:
        OSError: if the disk does not take it.
    """
    measured = [trial.evaluations[-1].metrics if trial.evaluations else {} for trial in trials]
    names = sorted({name for metrics in measured for name in metrics})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["trial", *space, *names, "step", "seconds", "status", "reason"], restval="")
        writer.writeheader()
        for trial in ranked(trials, metric, goal):
            metrics = trial.evaluations[-1].metrics if trial.evaluations else {}
            about = {"trial": trial.number, "step": trial.step, "seconds": trial.seconds}
            verdict = {"status": trial.status, "reason": trial.reason or ""}
            writer.writerow({**trial.point, **metrics, **about, **verdict})


def write_json(path: Path, space: Space, trials: Sequence[Trial], metric: str, goal: Goal) -> None:
    """Every trial with every evaluation, the best first; what is not finite is null.

    Raises:
        OSError: if the disk does not take it.
    """
    first = best(trials, metric, goal)
    content = {
        "objective": metric,
        "goal": goal,
        "best": None if first is None else first.number,
        "trials": [
            {**as_plain(trial), "point": values_of(space, trial.point)} for trial in ranked(trials, metric, goal)
        ],
    }
    path.write_text(json.dumps(content, allow_nan=False, indent=1) + "\n", encoding="utf-8")
