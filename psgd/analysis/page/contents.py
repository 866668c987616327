"""What the page says, in the order in which it says it; the template only lays it out."""

from collections.abc import Iterator, Mapping
from typing import Any

from psgd.analysis.numbers import duration, label, lr, metric_words, share
from psgd.analysis.page.plots import Runs
from psgd.analysis.page.table import Report, cards, groups, has_intervals, setting
from psgd.analysis.recommendation import BEWARE

COLOURS = 8
"""Of which the style has one a mode; further modes begin again, with a dashed line."""
SHARES = (("compute_share", "compute"), ("transfer_share", "transfer"), ("wait_share", "wait"))

WHOLE = 99.0
"""Percent; what is missing to it is worth a word."""

Json = dict[str, Any]


def page_contents(report: Report, runs: Runs, plots: Json) -> Json:
    """The template's variables.

    Args:
        report: as ``report.json`` has it.
        plots: as `psgd.analysis.page.plots.plot_data` returns it.
    """
    modes = report["modes"]
    comparisons = report.get("comparisons") or []
    reasons = (report.get("recommendation") or {}).get("reasons") or []
    settings = dict(report.get("settings") or {})
    options = settings.pop("options", None) or {}
    return {
        "title": report.get("title") or "psgd report",
        "simulated": bool(report.get("simulated")),
        "seeds": report.get("seeds") or [],
        "budget": _budget(report),
        "headline": _headline(report),
        "recommended": (report.get("recommendation") or {}).get("mode"),
        "reasons": [reason for reason in reasons if not reason.startswith(BEWARE)],
        "caveats": [reason.removeprefix(BEWARE) for reason in reasons if reason.startswith(BEWARE)],
        "modes": [_mode(index, mode, len(report.get("seeds") or [])) for index, mode in enumerate(modes)],
        "cards": cards(report),
        "groups": groups(report),
        "has_intervals": has_intervals(report),
        "statements": report.get("statements") or [],
        "told": [each["words"] for each in comparisons if each.get("told")],
        "untold": [each["words"] for each in comparisons if not each.get("told")],
        "metrics": plots["metrics"],
        "metric_choices": [(each["key"], each["label"]) for each in plots["metrics"][:-1]],
        "some_diverged": _diverged(runs),
        "shares": _shares(report),
        "shares_leave_rest": any(sum(part["width"] for part in each["parts"]) < WHOLE for each in _shares(report)),
        "has_timeline": any(plots["timelines"]),
        "has_throughput": any(each["x"] for each in plots["throughput"]),
        "lagging": [i for i, each in enumerate(plots["lags"]["modes"]) if each["max"]],
        "fresh": [i for i, each in enumerate(plots["lags"]["modes"]) if each["max"] == 0],
        "lag_width": plots["lags"]["width"],
        "lr_varies": plots["lr"] is not None,
        "constant_lr": "" if report.get("equal") else _constant_lr(runs),
        "tried": plots["tried"] is not None,
        "equal": report.get("equal") or [],
        "differing": report.get("differing") or [],
        "notes": report.get("notes") or [],
        "settings": list(_flat(settings)),
        "options": list(_flat(options)),
        "versions": [_version(each) for each in report.get("versions") or []],
    }


def _headline(report: Report) -> str:
    advice = report.get("recommendation") or {}
    if advice.get("words"):
        reasons = advice.get("reasons") or [""]  # which the words may repeat, and the page has below
        return str(advice["words"].partition(reasons[0])[0].strip() if reasons[0] else advice["words"])
    modes = report["modes"]
    if len(modes) != 1:
        return f"{len(modes)} modes beside each other"
    metric, figures = report.get("metric") or "", modes[0].get("figures") or {}
    reached, seconds = ((figures.get(name) or {}).get("median") for name in (metric, "seconds"))
    end = "" if reached is None else f" ends at {metric_words(metric)(reached)} {label(metric).lower()}"
    time = "" if seconds is None else f" after {duration(seconds)}" if end else f" runs for {duration(seconds)}"
    return f"{modes[0]['name']}{end}{time}"


def _budget(report: Report) -> str:
    budget = report.get("budget") or {}
    amount = budget.get("amount")
    match budget.get("kind"):
        case "samples" if amount is not None:
            return f"{amount:,.0f} samples each"
        case "samples":
            return "equally many samples drawn"
        case "seconds" if amount is not None:
            return f"{amount:g} s each"
        case "seconds":
            return "equally long each"
        case "target":
            return "until the target is reached"
        case _:
            return ""


def _mode(index: int, mode: Mapping[str, Any], seeds: int) -> Json:
    """What heads its column; how many runs it has, where that is not to be expected."""
    runs, failed, diverged = mode.get("runs") or 0, mode.get("failed") or 0, mode.get("diverged") or 0
    remarks = [f"{failed} failed"] if failed else []
    remarks += [f"{diverged} diverged"] if diverged else []
    return {
        "name": mode["name"],
        "colour": index % COLOURS,
        "dashed": index >= COLOURS,
        "remarks": [f"{runs} run{'' if runs == 1 else 's'}", *remarks] if remarks or runs != seeds else [],
        "folders": [folder for folder in mode.get("folders") or [] if folder],
    }


def _diverged(runs: Runs) -> bool:
    return any(run.diverged for each in runs.values() for run in each)


def _shares(report: Report) -> list[Json]:
    """Of the modes of which it is known where their time went."""
    found = []
    for index, mode in enumerate(report["modes"]):
        figures = mode.get("figures") or {}
        parts = [(kind, (figures.get(key) or {}).get("mean")) for key, kind in SHARES]
        if all(value is None for _, value in parts):
            continue
        told = [(kind, max(0.0, value or 0.0)) for kind, value in parts]
        whole = max(1.0, sum(value for _, value in told))
        found.append(
            {
                "mode": index,
                "parts": [
                    {"kind": kind, "width": round(100 * value / whole, 2), "words": share(value)}
                    for kind, value in told
                ],
            }
        )
    return found


def _constant_lr(runs: Runs) -> str:
    """The learning rate that all runs have had throughout, if there is one."""
    values = {value for each in runs.values() for run in each for value in run.lr.values if value is not None}
    return lr(next(iter(values))) if len({lr(value) for value in values}) == 1 else ""


def _flat(settings: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """One row a setting, however deep it lies; what is not set is left out."""
    for key, value in settings.items():
        name = f"{within}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif value not in (None, [], ()):
            yield name, setting(value)


def _version(each: Any) -> str:
    if isinstance(each, Mapping):
        return ", ".join(f"{name} {version}" for name, version in each.items())
    return str(each)
