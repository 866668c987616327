"""The data of the page's pictures, as plain JSON for its script."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from psgd.analysis.bands import Band, band_of
from psgd.analysis.curves import NO_CURVE, Curve
from psgd.analysis.numbers import label
from psgd.analysis.run_figures import RunFigures
from psgd.analysis.timeline import Timeline
from psgd.runlog import goal_of

Runs = Mapping[str, Sequence[RunFigures]]
"""Of each mode, by the name that the report has for it."""
MOST_POINTS = 150
"""Of a seed's curve."""
DIGITS = 6
"""Of a number in the page: more than anybody sees."""
MOST_LAG_BARS = 60

Json = dict[str, Any]
Value = TypeVar("Value")


def plot_data(report: Mapping[str, Any], made: Runs) -> Json:
    """Everything that is drawn; lists are in the order of the report's modes."""
    runs = [made.get(mode["name"], ()) for mode in report["modes"]]
    return {
        "modes": [mode["name"] for mode in report["modes"]],
        "simulated": bool(report.get("simulated")),
        "metrics": _metrics(report, runs),
        "throughput": [_throughput(each) for each in runs],
        "lr": _learning_rates(runs),
        "lags": _lags(report, runs),
        "timelines": [_timeline(each) for each in runs],
        "tried": _tried(report),
    }


# ------------------------------------------------------------------ curves


def _metrics(report: Mapping[str, Any], runs: Sequence[Sequence[RunFigures]]) -> list[Json]:
    """The report's metric first, the training loss last; what no run has is left out."""
    target = report.get("target") or {}
    measured = sorted({name for each in runs for run in each for name, curve in run.test.items() if curve.tells})
    measured.sort(key=lambda name: f"test_{name}" != report.get("metric"))
    curves = {f"test_{name}": [[run.test.get(name, NO_CURVE) for run in each] for each in runs] for name in measured}
    if any(run.train_loss.tells for each in runs for run in each):
        curves["train_loss"] = [[run.train_loss for run in each] for each in runs]
    return [
        {
            "key": name,
            "label": label(name),
            "percent": name.endswith("accuracy"),
            "goal": goal_of(name),
            "target": target.get("value") if target.get("metric") == name else None,
            "modes": [_curves(found, each) for found, each in zip(of_modes, runs, strict=True)],
        }
        for name, of_modes in curves.items()
    ]


def _curves(curves: Sequence[Curve], runs: Sequence[RunFigures]) -> Json:
    """A mode's: the band of the seeds that did not diverge, and every seed's own.

    Weights that are NaN still have an accuracy, so a run that diverged has done so in every metric.
    """
    told = [(run, curve) for run, curve in zip(runs, curves, strict=True) if curve.tells]
    sound = [curve for run, curve in told if not run.diverged]
    return {
        "samples": _band(band_of([(curve.samples, curve.values) for curve in sound], hold=True)),
        "seconds": _band(band_of([(curve.seconds, curve.values) for curve in sound], hold=True)),
        "seeds": [
            {
                "seed": run.seed,
                "samples": _short(_thin(curve.samples)),
                "seconds": _short(_thin(curve.seconds)),
                "values": _short(_thin(curve.values)),
                "diverged": run.diverged,
            }
            for run, curve in told
        ],
    }


def _thin(values: Sequence[Value]) -> Sequence[Value]:
    """The first, the last, and evenly chosen ones between them."""
    if len(values) <= MOST_POINTS:
        return values
    return [values[int(index)] for index in np.linspace(0, len(values) - 1, MOST_POINTS)]


def _throughput(runs: Sequence[RunFigures]) -> Json:
    curves = [run.throughput for run in runs if run.throughput.tells]
    return _band(band_of([(curve.seconds, curve.values) for curve in curves], hold=False))


def _learning_rates(runs: Sequence[Sequence[RunFigures]]) -> list[Json] | None:
    """None where one learning rate says it all."""
    values = {round(value, 12) for each in runs for run in each for value in run.lr.values if value is not None}
    if len(values) < 2:
        return None
    return [
        {
            "samples": _band(band_of([(run.lr.samples, run.lr.values) for run in each], hold=False)),
            "seconds": _band(band_of([(run.lr.seconds, run.lr.values) for run in each], hold=False)),
        }
        for each in runs
    ]


def _band(band: Band) -> Json:
    spread = {} if band.low == band.high else {"low": _short(band.low), "high": _short(band.high)}
    return {"x": _short(band.x), "y": _short(band.median), **spread}


# ------------------------------------------------------------------ lags, time


def _lags(report: Mapping[str, Any], runs: Sequence[Sequence[RunFigures]]) -> Json:
    """Shares of the pushes of all seeds, by lag; neighbours share a bar where lags are many."""
    counted = [_histogram(mode, each) for mode, each in zip(report["modes"], runs, strict=True)]
    greatest = max((lag for each in counted for lag in each), default=0)
    width = math.ceil((greatest + 1) / MOST_LAG_BARS)
    return {"width": width, "modes": [_bars(each, width) for each in counted]}


def _histogram(mode: Mapping[str, Any], runs: Sequence[RunFigures]) -> dict[int, int]:
    told = mode.get("lag_histogram")
    if told:
        return {int(lag): int(count) for lag, count in told.items()}
    counted: dict[int, int] = {}
    for run in runs:
        for lag, count in run.lags.items():
            counted[lag] = counted.get(lag, 0) + count
    return counted


def _bars(histogram: Mapping[int, int], width: int) -> Json:
    pushes = sum(histogram.values())
    shares: dict[int, float] = {}
    for lag, count in sorted(histogram.items()):
        shares[lag // width] = shares.get(lag // width, 0.0) + count / pushes
    return {
        "from": [bar * width for bar in shares],
        "share": _short(list(shares.values())),
        "mean": _rounded(sum(lag * count for lag, count in histogram.items()) / pushes) if pushes else None,
        "max": max(histogram, default=None),
        "pushes": pushes,
    }


def _timeline(runs: Sequence[RunFigures]) -> Json | None:
    """Of the first seed that has one."""
    run = next((run for run in runs if run.timeline is not None), None)
    if run is None or run.timeline is None:
        return None
    timeline = run.timeline
    return {
        "seed": run.seed,
        "sync": run.settings.get("mode") != "async",
        "slots": timeline.slots,
        "start": _rounded(timeline.start_s),
        "end": _rounded(timeline.end_s),
        "rows": list(timeline.segments),
        **{kind: _segments(timeline, kind) for kind in ("compute", "transfer", "wait")},
    }


def _segments(timeline: Timeline, kind: str) -> Json:
    found = [
        (slot, start, end - start)
        for slot, segments in timeline.segments.items()
        for start, end, what in segments
        if what == kind
    ]
    return {
        "slot": [slot for slot, _, _ in found],
        "start": [round(start, 6) for _, start, _ in found],
        "length": _short([length for _, _, length in found]),
    }


# ------------------------------------------------------------------ learning rates that were tried


def _tried(report: Mapping[str, Any]) -> list[list[Json]] | None:
    """None where nothing was searched."""
    rates = [mode.get("lrs") or [] for mode in report["modes"]]
    if all(len(each) < 2 for each in rates):
        return None
    return [
        [
            {"lr": rate["lr"], **dict.fromkeys(("median", "low", "high")), **(rate.get(report.get("metric")) or {})}
            for rate in each
        ]
        for each in rates
    ]


def _short(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else _rounded(value) for value in values]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
