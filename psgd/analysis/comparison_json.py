"""A comparison for machines: ``report.json``."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from psgd.analysis.comparison import ArmRuns, ComparisonFigures, Metric, Rate, Spread
from psgd.analysis.figure import BY_NAME, KINDS, Figure, all_figures, of_metric
from psgd.analysis.findings import Findings
from psgd.analysis.pair_words import sentence, statements
from psgd.analysis.pairs import Pair
from psgd.analysis.run_figures import RunFigures
from psgd.analysis.statistics import estimate

MODE: Mapping[str, Any] = {
    **dict.fromkeys(("mode", "staleness", "correction", "local_steps")),
    **{"backups": 0, "gather": 1, "optimizer_args": {}},
}
"""What an arm has where nothing is said."""
OF_RATES = ("samples", "steps", "seconds", "samples_per_s", "dropped_samples")


def as_json(findings: Findings, out: Path) -> dict[str, Any]:
    """The report: ``modes`` has one entry an arm; plain JSON, None where there is no number.

    Args:
        out: the report's folder, which paths are relative to.
    """
    figures, advice = findings.figures, findings.advice
    metric, runs = figures.metric, figures.runs()
    return {
        "title": figures.title,
        "metric": f"test_{metric.name}",
        "goal": metric.goal,
        "budget": asdict(figures.budget),
        "target": None if figures.target is None else asdict(figures.target),
        "lr_chosen_by": _choice(figures),
        "seeds": list(figures.seeds),
        "simulated": bool(runs) and all(run.simulated for run in runs),
        "equal": list(findings.conditions.equal),
        "differing": list(findings.conditions.differing),
        "modes": [_mode(figures, name, arm, rate, out) for name, arm, rate in figures.shown],
        "comparisons": list(map(_pair, findings.pairs)),
        "statements": statements(figures, findings.pairs),
        "recommendation": {**asdict(advice), "reasons": list(advice.reasons)},
        "notes": list(findings.notes),
        "settings": _common([run.settings for run in runs]),
        "versions": list(figures.versions),
    }


def _choice(figures: ComparisonFigures) -> str | None:
    if not figures.searched:
        return None
    if figures.by_target is not None:
        return "runs that reach the target, then median seconds to it"
    return f"median test_{figures.metric.name}, on the test set"


def _mode(figures: ComparisonFigures, name: str, arm: ArmRuns, rate: Rate, out: Path) -> dict[str, Any]:
    target = figures.target
    return {
        "name": name,
        "optimizer": arm.optimizer,
        **MODE,
        **arm.about,
        "lr": rate.lr,
        "runs": len(rate.complete) + figures.lost(rate),
        "failed": figures.lost(rate),
        "diverged": rate.diverged,
        "reached": 0 if target is None else len(rate.reached(target)),
        "figures": {each.name: _figure(each, rate, figures) for each in all_figures(figures.metric)},
        "lag_histogram": {str(lag): count for lag, count in sorted(rate.lags.items())},
        "lrs": [{"lr": each.lr, **_rate(each, figures)} for each in arm.rates],
        "folders": [None if run is None else os.path.relpath(run.folder, out) for run in rate.runs],
    }


def _figure(figure: Figure, rate: Rate, figures: ComparisonFigures) -> dict[str, Any]:
    """A figure over the seeds; mean and interval only where every complete run has it."""
    read = partial(figure.of, target=figures.target)
    values, found = rate.values(read), [read(run) for run in rate.complete]
    known = [value for value in found if value is not None]
    mean, ci = None, None
    least, most = figure.bounds
    if known and len(known) == len(found):
        means = estimate(known, figure.scale if min(known) > 0 else "linear")
        mean = means.mean
        ci = None if means.ci is None else [max(means.ci[0], least), min(means.ci[1], most)]
    spread = Spread.of(found, figure.goal)
    return {**asdict(spread), "mean": mean, "ci": ci, "values": values}


def _rate(rate: Rate, figures: ComparisonFigures) -> dict[str, Any]:
    ends = (of_metric(each, kind) for each in dict.fromkeys((figures.metric, Metric("loss"))) for kind in KINDS)
    shown = (*ends, *(BY_NAME[name] for name in OF_RATES))
    return {
        **{each.name: asdict(rate.spread(partial(each.of, target=None), each.goal)) for each in shown},
        "diverged": rate.diverged,
        "failed": figures.lost(rate),
        "runs": [None if run is None else {"seed": run.settings["seed"], **_run(run)} for run in rate.runs],
    }


def _run(run: RunFigures) -> dict[str, Any]:
    return {
        **{f"test_{name}": value for name, value in run.final_test.items()},
        **{f"train_{name}": value for name, value in run.final_train.items()},
        "seconds": run.figures.get("seconds"),
        "diverged": run.diverged,
    }


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "figure": pair.contest.figure.name,
        "a": pair.a,
        "b": pair.b,
        "difference": pair.difference,
        "ratio": pair.ratio,
        "ci": None if pair.ci is None else list(pair.ci),
        "p": pair.p,
        "told": pair.told,
        "words": f"{sentence(pair)}.",
    }


def _common(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that all runs share, also within those that are mappings."""
    if not settings:
        return {}
    first, *others = settings
    found = {}
    for name, value in first.items():
        values = [each.get(name) for each in others]
        if isinstance(value, dict) and all(isinstance(each, dict) for each in values):
            found[name] = _common([value, *(each for each in values if isinstance(each, dict))])
        elif all(each == value for each in values):
            found[name] = value
    return found
