"""The figures of all modes in words: the cards on top, and the table with the spread over the seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psgd.analysis.numbers import (
    DASH,
    Words,
    count,
    duration,
    interval,
    label,
    lr,
    metric_words,
    rate,
    share,
    significant,
    size,
)

MOST_CARDS = 4
SETTINGS = {"lr": "Learning rate", "optimizer": "Optimizer", "correction": "Correction", "local_steps": "Local steps"}

Mode = Mapping[str, Any]
Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table.

    Args:
        key: in the ``figures`` of a mode.
        label: for people.
        words: of a value.
        hint: what it means, where that needs saying.
        from_zero: whether a bar as long as the value makes sense.
        to_target: whether only runs that reached the target have it.
    """

    key: str
    label: str
    words: Words
    hint: str = ""
    from_zero: bool = True
    to_target: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """Of one mode.

    Args:
        median: over the seeds.
        spread: from the least to the greatest; empty with one seed.
        mean: over the seeds.
        ci: the 95 % interval of the mean; empty if none can be told.
        remark: that runs are missing from it.
    """

    median: str
    spread: str = ""
    mean: str = ""
    ci: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table, in words."""

    label: str
    hint: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """A mode's bar on a card; positions in percent of the card's width.

    Args:
        mode: index of the mode.
        at: of the median.
    """

    mode: int
    value: str
    at: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Card:
    """A key figure.

    Args:
        big: of the recommended mode; without one, from the least to the greatest.
        whose: the mode that it is of; empty if of all.
        bars: whether strips are bars from zero; else points between the ends of the scale.
    """

    label: str
    big: str
    whose: str
    bars: bool
    strips: tuple[Strip, ...]


def groups(report: Report) -> list[tuple[str, list[Line]]]:
    """The table: headings with their rows; a figure that no mode has is left out."""
    found = []
    for heading, figures in _catalogue(report):
        lines = [_line(report, figure) for figure in figures if _told(report, figure)]
        if lines:
            found.append((heading, lines))
    settings = _settings_lines(report)
    return [*found, ("Setting", settings)] if settings else found


def has_intervals(report: Report) -> bool:
    """Whether any figure has an interval of its mean."""
    return any(_figure(mode, key).get("ci") for mode in report["modes"] for key in mode.get("figures", {}))


def cards(report: Report) -> list[Card]:
    """The first few figures that say most."""
    by_key = {figure.key: figure for _, figures in _catalogue(report) for figure in figures}
    keys = ["seconds_to_target", report.get("metric"), "seconds", "samples_per_s", "idle_share", "lag_mean", "bytes"]
    if report.get("target"):
        keys.remove("seconds")  # says the same less well
    found = [_card(report, by_key[key]) for key in keys if key in by_key and _told(report, by_key[key])]
    return found[:MOST_CARDS]


# ------------------------------------------------------------------ which figures, and how


def _catalogue(report: Report) -> list[tuple[str, list[Figure]]]:
    metric = report.get("metric") or "test_loss"
    trained = metric.replace("test_", "train_", 1)
    goal = _target_words(report)
    quality = dict.fromkeys((metric, trained, "test_loss", "train_loss"))
    return [
        (
            "To the target",
            [
                Figure("seconds_to_target", f"Time to {goal}", duration, to_target=True),
                Figure("samples_to_target", f"Samples to {goal}", count, "drawn by all slots", to_target=True),
            ],
        ),
        ("At the end", [Figure(key, label(key), metric_words(key), from_zero=False) for key in quality]),
        (
            "Pace",
            [
                Figure("seconds", "Duration", duration, "of the whole run"),
                Figure("samples_per_s", "Samples per second", rate, "that went into an update"),
                Figure("samples", "Samples used", count),
                Figure("updates", "Updates", count),
                Figure("idle_share", "Idle", share, "of the workers' time"),
            ],
        ),
        (
            "Staleness",
            [
                Figure("lag_mean", "Lag, mean", significant, "from pull to push, in updates"),
                Figure("lag_max", "Lag, greatest", count),
                Figure("effective_lr", "Effective learning rate", lr, "that updates used, on average"),
            ],
        ),
        (
            "Cost",
            [
                Figure("dropped_samples", "Samples dropped", count, "drawn, but not used"),
                Figure("bytes", "Data moved", size, "weights and gradients"),
            ],
        ),
    ]


def _target_words(report: Report) -> str:
    target = report.get("target")
    if not target or target.get("value") is None:
        return "the target"
    name = label(target["metric"]).lower()
    return f"{metric_words(target['metric'])(target['value']).replace('.00 %', ' %')} {name}"


def _settings_lines(report: Report) -> list[Line]:
    """What modes differ in besides the mode itself."""
    found = []
    for key, name in SETTINGS.items():
        values = [setting(mode.get(key)) for mode in report["modes"]]
        if len(set(values)) > 1:
            found.append(Line(name, "", tuple(map(Cell, values))))
    return found


def setting(value: Any) -> str:
    """A setting in a few words.

    Example:
        >>> setting([{"slot": 0, "factor": 3.0, "delay": None}]), setting(True), setting(None)
        ('slot 0, factor 3', 'yes', '–')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {setting(each)}" for key, each in value.items() if each is not None) or DASH
    if isinstance(value, list | tuple):
        return "; ".join(map(setting, value)) or DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return DASH if value is None else f"{value:g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------ cells


def _figure(mode: Mode, key: str) -> Mapping[str, Any]:
    return (mode.get("figures") or {}).get(key) or {}


def _told(report: Report, figure: Figure) -> bool:
    if figure.to_target and report.get("target"):
        return True  # that nobody reached it is worth a row
    return any(_figure(mode, figure.key).get("low") is not None for mode in report["modes"])


def _line(report: Report, figure: Figure) -> Line:
    return Line(figure.label, figure.hint, tuple(_cell(mode, figure) for mode in report["modes"]))


def _cell(mode: Mode, figure: Figure) -> Cell:
    values = _figure(mode, figure.key)
    median, low, high = (values.get(key) for key in ("median", "low", "high"))
    missing = _missing(mode, figure)
    if low is None or high is None:
        return Cell(missing or DASH, mean=missing or DASH)
    mean, ci = values.get("mean"), values.get("ci")
    middle, spread = DASH if median is None else figure.words(median), interval(low, high, figure.words)
    return Cell(
        median=middle,
        spread="" if spread == middle else spread,
        mean=DASH if mean is None else figure.words(mean),
        ci=interval(ci[0], ci[1], figure.words) if ci and ci[0] < ci[1] else "",
        remark=missing,
    )


def _missing(mode: Mode, figure: Figure) -> str:
    """Which of the runs have no such figure, and why."""
    runs, diverged = mode.get("runs") or 0, mode.get("diverged") or 0
    if figure.to_target and (share := _reached(mode)) is not None:
        return f"{share} reached it" if share else "not reached"
    if not figure.from_zero and diverged:
        return f"{diverged} of {runs} diverged" if diverged < runs else "diverged"
    return "" if runs else "no run"


def _reached(mode: Mode) -> str | None:
    """How many of the runs reached the target, in words; empty if none did, None if all did or there is no target."""
    runs, reached = mode.get("runs") or 0, mode.get("reached")
    if reached is None or reached >= runs:
        return None
    return f"{reached} of {runs}" if reached else ""


# ------------------------------------------------------------------ cards


def _card(report: Report, figure: Figure) -> Card:
    modes = report["modes"]
    values = [_figure(mode, figure.key) for mode in modes]
    low, high = _scale(values, figure.from_zero)
    strips = tuple(
        Strip(
            index,
            _value(mode, figure),
            None if each.get("median") is None else _at(each["median"], low, high),
            _at(each["low"], low, high) if each.get("low") is not None else 0.0,
            _at(each["high"], low, high) if each.get("high") is not None else 0.0,
        )
        for index, (mode, each) in enumerate(zip(modes, values, strict=True))
    )
    best = (report.get("recommendation") or {}).get("mode")
    told = next((mode for mode in modes if mode["name"] == best or len(modes) == 1), None)
    medians = [each["median"] for each in values if each.get("median") is not None]
    if told is not None:
        big, whose = _value(told, figure), told["name"]
    else:
        big, whose = (interval(min(medians), max(medians), figure.words) if medians else "not reached"), ""
    return Card(figure.label, big, whose, figure.from_zero, strips)


def _value(mode: Mode, figure: Figure) -> str:
    """The median, with how many runs have it where that is not all: the median of the lucky ones says less."""
    cell = _cell(mode, figure)
    if cell.median == DASH:
        return cell.remark or DASH
    share = _reached(mode) if figure.to_target else None
    return f"{cell.median} ({share})" if share else cell.median


def _scale(values: Sequence[Mapping[str, Any]], from_zero: bool) -> tuple[float, float]:
    """What the ends of the strips stand for."""
    ends = [each[end] for each in values for end in ("low", "high") if each.get(end) is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = 0.0 if from_zero else 0.08 * (high - low) or 0.5 * abs(high) or 1.0
    low, high = (min(low, 0.0) if from_zero else low - room), high + room
    return (low, high) if high > low else (low, low + 1.0)


def _at(value: float, low: float, high: float) -> float:
    return round(100 * (value - low) / (high - low), 2)
