"""The pictures of a search: its history, its settings side by side, and which of them matter."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psgd.analysis.drawing import check_drawable
from psgd.errors import ConfigurationError
from psgd.runlog import Goal
from psgd.tuning.algorithms import optuna_space
from psgd.tuning.results import in_words
from psgd.tuning.space import Choices, Domain, Space
from psgd.tuning.trials import Trial

if TYPE_CHECKING:  # psgd runs without it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HISTORY_NAME, PARALLEL_NAME, IMPORTANCE_NAME = "history.png", "parallel.png", "importance.png"
DPI = 144
FEWEST_FOR_IMPORTANCE = 5
"""Trials with a metric: of fewer, chance says which setting matters."""

FAR_OFF = 3.0
"""What is worse than the best by more than this multiple of what half of the trials are would flatten all others."""

SPREAD = 0.03
"""Lines through the same choice are drawn apart, over this share of the axis."""


def draw(space: Space, trials: Sequence[Trial], metric: str, goal: Goal, folder: Path) -> list[str]:
    """Write the pictures that there is something to show in.

    Returns:
        Why pictures are left out, each in a line.
    """
    measured = [trial for trial in trials if trial.value(metric) is not None]
    if not measured:
        return []
    try:
        check_drawable(folder / HISTORY_NAME)
    except ConfigurationError as error:
        return [f"no pictures: {error}"]
    draw_history(trials, metric, goal).savefig(folder / HISTORY_NAME, dpi=DPI)
    draw_parallel(space, measured, metric, goal).savefig(folder / PARALLEL_NAME, dpi=DPI)
    try:
        shares = importances(space, measured, metric)
    except ConfigurationError as error:
        return [f"no {IMPORTANCE_NAME}: {error}"]
    draw_importance(shares, metric).savefig(folder / IMPORTANCE_NAME, dpi=DPI)
    return []


def draw_history(trials: Sequence[Trial], metric: str, goal: Goal) -> "Figure":
    """The metric of each trial, and the best until then."""
    picture, axes = _picture(7.5, 4.2)
    values = {trial.number: value for trial in trials if (value := trial.value(metric)) is not None}
    low, high = _limits(list(values.values()), goal)
    shown = [trial for trial in trials if low <= values.get(trial.number, math.nan) <= high]
    for status, label, fill in (("done", "trained to its end", "full"), ("stopped", "stopped early", "none")):
        numbers = [trial.number for trial in shown if trial.status == status]
        _mark(axes, numbers, [values[n] for n in numbers], label, marker="o", color="C0", fillstyle=fill)
    # What has no place on the axis stands at its bad end.
    end, arrow = (0.0, 7) if goal == "max" else (1.0, 6)
    along = {"transform": axes.get_xaxis_transform(), "clip_on": False, "linestyle": ""}
    far = [number for number, value in values.items() if not low <= value <= high]
    without = [trial.number for trial in trials if trial.number not in values]
    _mark(axes, far, [end] * len(far), "far off", marker=arrow, color="C0", **along)
    _mark(axes, without, [end] * len(without), "refused, failed or diverged", marker="x", color="0.4", **along)
    ordered = sorted(values)
    best = _best_so_far([values[number] for number in ordered], goal)
    last = max(trial.number for trial in trials)
    axes.plot([*ordered, last], [*best, best[-1]], color="C3", drawstyle="steps-post", label="best so far")
    axes.set(xlabel="trial", ylabel=metric, ylim=(low, high), xlim=(-0.5, last + 0.5))
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    picture.legend(loc="outside lower center", ncols=3, frameon=False)
    return picture


def _mark(axes: "Axes", numbers: Sequence[int], heights: Sequence[float], label: str, **look: Any) -> None:
    """One mark a trial, if there is any."""
    if numbers:
        axes.plot(numbers, heights, label=label, **{"linestyle": "", **look})


def _best_so_far(values: Sequence[float], goal: Goal) -> list[float]:
    choose = min if goal == "min" else max
    return [choose(values[: count + 1]) for count in range(len(values))]


def _limits(values: Sequence[float], goal: Goal) -> tuple[float, float]:
    """The axis of the metric: from the best to the worst that does not flatten all others, with a margin."""
    ordered = sorted(values, reverse=goal == "max")
    first, middle, last = ordered[0], ordered[len(ordered) // 2], ordered[-1]
    reach = FAR_OFF * abs(middle - first)
    if reach > 0 and abs(last - first) > reach:
        last = next(value for value in reversed(ordered) if abs(value - first) <= reach)
    margin = 0.08 * abs(last - first) or 0.05 * abs(first) or 0.05
    return min(first, last) - margin, max(first, last) + margin


def draw_parallel(space: Space, trials: Sequence[Trial], metric: str, goal: Goal) -> "Figure":
    """A line a trial, through its settings to its metric; the better, the darker.

    Args:
        trials: that have the metric.
    """
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    names = list(space)
    picture, axes = _picture(max(5.0, 2.0 * (len(names) + 1)), 4.4)
    values = [value for trial in trials if (value := trial.value(metric)) is not None]
    low, high = _limits(values, goal)
    shades = [_share(min(max(value, low), high), low, high) for value in values]
    quality = shades if goal == "max" else [1 - shade for shade in shades]
    columns = [_column(domain, [trial.point[name] for trial in trials]) for name, domain in space.items()]
    lines = [list(enumerate([*heights, shade])) for *heights, shade in zip(*columns, shades, strict=True)]
    order = sorted(range(len(lines)), key=quality.__getitem__)  # the best on top
    colors = [(*colormaps["viridis_r"](quality[k])[:3], 0.35 + 0.65 * quality[k] ** 2) for k in order]
    widths = [1.0 + 1.6 * quality[k] ** 2 for k in order]
    axes.add_collection(LineCollection([lines[k] for k in order], colors=colors, linewidths=widths))
    for place, name in enumerate(names):
        _draw_axis(axes, place, _ticks(space[name]))
    metric_ticks = [(f"{low + (high - low) * share:.4g}", share) for share in (0.05, 0.275, 0.5, 0.725, 0.95)]
    if any(not low <= value <= high for value in values):
        metric_ticks[0 if goal == "max" else -1] = ("far off", 0.0 if goal == "max" else 1.0)
    _draw_axis(axes, len(names), metric_ticks)
    axes.set(xlim=(-0.25, len(names) + 0.45), ylim=(-0.04, 1.04), yticks=[])
    axes.set_xticks(range(len(names) + 1), [*(name.replace(".", ".\n", 1) for name in names), metric])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
    return picture


def _draw_axis(axes: "Axes", place: int, ticks: Sequence[tuple[str, float]]) -> None:
    axes.axvline(place, color="0.3", linewidth=1, zorder=3)
    for words, height in ticks:
        axes.plot([place, place + 0.03], [height, height], color="0.3", linewidth=1, zorder=3)
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
        axes.text(place + 0.05, height, words, va="center", fontsize=8.5, zorder=4, bbox=box)


def _column(domain: Domain, labels: Sequence[Any]) -> list[float]:
    """Where the lines cross a setting's axis; those through the same choice lie beside each other."""
    heights = [_height(domain, label) for label in labels]
    if not isinstance(domain, Choices):
        return heights
    seen: dict[float, int] = {}
    column = []
    for height in heights:
        seen[height] = seen.get(height, 0) + 1
        column.append(height + SPREAD * ((seen[height] / (heights.count(height) + 1)) - 0.5))
    return column


def _height(domain: Domain, label: Any) -> float:
    if isinstance(domain, Choices):
        order = _ordered(domain)
        return (order.index(label) + 0.5) / len(order)
    scale: Callable[[float], float] = math.log if domain.log else float
    return _share(scale(label), scale(domain.low), scale(domain.high))


def _ordered(domain: Choices) -> list[Any]:
    """The choices from below: numbers ascend, all else is as the user has listed it."""
    labels = list(domain.labels)
    numbers = all(isinstance(label, int | float) and not isinstance(label, bool) for label in labels)
    return sorted(labels) if numbers else labels[::-1]


def _ticks(domain: Domain) -> list[tuple[str, float]]:
    if isinstance(domain, Choices):
        return [(in_words(domain.value_of(label)), _height(domain, label)) for label in _ordered(domain)]
    if domain.log:
        decades = range(math.ceil(math.log10(domain.low) - 1e-9), math.floor(math.log10(domain.high) + 1e-9) + 1)
        marks = [10.0**exponent for exponent in decades] if len(decades) > 1 else [domain.low, domain.high]
    else:
        marks = [domain.low + (domain.high - domain.low) * share for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return [(f"{mark:.3g}", _height(domain, mark)) for mark in marks]


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low)


def importances(space: Space, trials: Sequence[Trial], metric: str) -> dict[str, float]:
    """The share of each setting in the variance of the metric, the greatest first.

    By fANOVA (Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html), as Optuna computes it.

    Args:
        trials: that have the metric.

    Raises:
        ConfigurationError: if there are too few trials to tell, or what computes it is missing.
    """
    varied = [name for name in space if len({str(trial.point[name]) for trial in trials}) > 1]
    values = [value for trial in trials if (value := trial.value(metric)) is not None]
    if len(trials) < FEWEST_FOR_IMPORTANCE or len(varied) < 2 or len(set(values)) < 2:
        raise ConfigurationError(
            f"it takes {FEWEST_FOR_IMPORTANCE} trials that differ in two settings and in {metric}, got {len(trials)} "
            f"that differ in {len(varied)}"
        )
    try:
        import optuna

        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)  # needs scikit-learn
    except ImportError:
        raise ConfigurationError("it takes Optuna and scikit-learn: pip install 'psgd[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    distributions = optuna_space({name: space[name] for name in varied})
    for trial, value in zip(trials, values, strict=True):
        params = {name: trial.point[name] for name in varied}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items()}


def draw_importance(shares: Mapping[str, float], metric: str) -> "Figure":
    """A bar a setting, the most important one on top."""
    picture, axes = _picture(6.5, 1.4 + 0.45 * len(shares))
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color="C0", height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=4)
    axes.set(xlabel=f"share of the variance of {metric}", xlim=(0, 1.08 * max(shares.values())))
    axes.grid(alpha=0.3, axis="x")
    return picture


def _picture(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    picture = Figure(figsize=(width, height), layout="constrained")
    axes = picture.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return picture, axes
