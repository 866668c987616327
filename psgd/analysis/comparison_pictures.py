"""The pictures of a comparison: curves of the arms at their best, and how much the learning rate matters."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from psgd.analysis.comparison import ArmRuns, ComparisonFigures, Metric
from psgd.analysis.drawing import check_drawable

if TYPE_CHECKING:  # psgd runs without it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

CURVES_NAME, SENSITIVITY_NAME = "curves.png", "sensitivity.png"
DPI = 144
STYLES = ("-", "--", ":", "-.")
LEAST_ERROR = 1e-4
"""Where the axis of the accuracy ends, as its scale has no place for none."""
TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
FEWEST_TICKS = 4
MOST_NAMED = 10
DECADE = 10.0

Points = Mapping[float, Sequence[float]]
"""x to the values of the seeds there."""


def draw(figures: ComparisonFigures, folder: Path) -> list[str]:
    """Write the pictures that make sense: without several learning rates there is no sensitivity to show.

    Returns:
        The names of the files.

    Raises:
        ConfigurationError: if matplotlib is missing.
    """
    check_drawable(folder / CURVES_NAME)
    drawn = []
    if figures.runs():
        draw_curves(figures).savefig(folder / CURVES_NAME, dpi=DPI)
        drawn.append(CURVES_NAME)
    if figures.runs() and figures.searched:
        draw_sensitivity(figures).savefig(folder / SENSITIVITY_NAME, dpi=DPI)
        drawn.append(SENSITIVITY_NAME)
    return drawn


def draw_curves(figures: ComparisonFigures) -> "Figure":
    """Test metric and training loss against the samples drawn; bands reach from the least to the greatest seed."""
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    metric = figures.metric
    picture = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = picture.subplots(1, 2, sharex=True)
    tested: list[float] = []
    trained: list[float] = []
    for arm in figures.arms:
        runs = [run for run in arm.best(metric).complete if not run.diverged]
        label = f"{figures.name(arm)} (lr {arm.best(metric).lr:g})"
        tests, losses = [run.test.get(metric.name, ()) for run in runs], [run.train_loss for run in runs]
        tested += _line(left, _points(tests), label, *_look(figures, arm), marker=".")
        trained += _line(right, _points(losses), label, *_look(figures, arm))
    _scale_metric(left, metric, tested)
    left.set(xlabel="samples", ylabel=f"test {metric.name}")
    right.set(xlabel="samples", ylabel="training loss (mini-batches)", xlim=(0, None))
    if min(trained, default=0) > 0:
        _scale_by_logarithm(right)
    right.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    _finish(picture, [left, right], figures)
    return picture


def draw_sensitivity(figures: ComparisonFigures) -> "Figure":
    """The final test metric against the learning rate; a cross is one at which runs diverged, a ring the best."""
    from matplotlib.figure import Figure

    metric = figures.metric
    picture = Figure(figsize=(8, 5), layout="constrained")
    axes = picture.subplots()
    worst_end = 0.03 if metric.goal == "max" else 0.97  # of the axis' height
    tested: list[float] = []
    for arm in figures.arms:
        colour, style = _look(figures, arm)
        ends = ((rate.lr, run) for rate in arm.rates for run in rate.complete if not run.diverged)
        points = _points([((lr, run.final_test[metric.name]),) for lr, run in ends if metric.name in run.final_test])
        tested += _line(axes, points, figures.name(arm), colour, style, marker="o")
        best = arm.best(metric)
        if (height := best.test(metric).median) is not None:
            axes.plot(best.lr, height, "o", markersize=12, fillstyle="none", color=colour)
        spoilt = [rate.lr for rate in arm.rates if rate.diverged]
        axes.plot(spoilt, [worst_end] * len(spoilt), "x", color=colour, transform=axes.get_xaxis_transform())
    _scale_metric(axes, metric, tested)
    axes.set(xscale="log", xlabel="learning rate (ring: best, cross: diverged)", ylabel=f"final test {metric.name}")
    _name_rates(axes, sorted({rate.lr for arm in figures.arms for rate in arm.rates}))
    _finish(picture, [axes], figures)
    return picture


def _name_rates(axes: "Axes", rates: Sequence[float]) -> None:
    """The learning rates that were tried, as long as they fit."""
    if len(rates) <= MOST_NAMED:
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()


def _points(curves: Iterable[Iterable[tuple[float, float]]]) -> Points:
    """The seeds' curves put together."""
    points: dict[float, list[float]] = {}
    for curve in curves:
        for x, value in curve:
            points.setdefault(x, []).append(value)
    return dict(sorted(points.items()))


def _line(axes: "Axes", points: Points, label: str, colour: str, style: str, marker: str = "") -> list[float]:
    """The median over the seeds, in a band from the least to the greatest; returns all values."""
    xs, seeds = list(points), list(points.values())
    medians = [statistics.median(values) for values in seeds]
    axes.plot(xs, medians, color=colour, linestyle=style, marker=marker, label=label)
    axes.fill_between(xs, list(map(min, seeds)), list(map(max, seeds)), color=colour, alpha=0.12, linewidth=0)
    return [value for values in seeds for value in values]


def _look(figures: ComparisonFigures, arm: ArmRuns) -> tuple[str, str]:
    """Colour and style of an arm: where both differ, optimizers have colours and modes have styles."""
    optimizers = list(dict.fromkeys(each.optimizer for each in figures.arms))
    modes = list(dict.fromkeys(each.mode for each in figures.arms))
    if len(optimizers) == 1:
        return f"C{modes.index(arm.mode) % 10}", STYLES[0]
    return f"C{optimizers.index(arm.optimizer) % 10}", STYLES[modes.index(arm.mode) % len(STYLES)]


def _scale_metric(axes: "Axes", metric: Metric, values: Sequence[float]) -> None:
    """Accuracy by the logarithm of what is missing to 1, so that 98 and 99 % are as far apart as 80 and 90 %."""
    if metric.name == "accuracy":
        _scale_accuracy(axes, min(values, default=0.0), max(values, default=1.0))
    elif values and min(values) > 0 and max(values) / min(values) > DECADE:
        _scale_by_logarithm(axes)


def _scale_by_logarithm(axes: "Axes") -> None:
    """With plain numbers on it, not powers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _scale_accuracy(axes: "Axes", low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    nines = _nines(np.array([low, high]))
    room = max(0.06 * float(nines[1] - nines[0]), 0.02)
    low, high = map(float, _accuracy(nines + np.array([-room, room])))
    axes.set_yscale("function", functions=(_nines, _accuracy))
    axes.set_ylim(low, high)
    marks = [tick for tick in TICKS if low <= tick <= high]
    axes.yaxis.set_major_locator(FixedLocator(marks) if len(marks) >= FEWEST_TICKS else MaxNLocator(6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def _nines(accuracy: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """0.9 to 1, 0.99 to 2, and so on."""
    return -np.log10(np.maximum(1 - np.asarray(accuracy), LEAST_ERROR))


def _accuracy(nines: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """The inverse."""
    return 1 - 10 ** -np.asarray(nines)


def _finish(picture: "Figure", panels: "Sequence[Axes]", figures: ComparisonFigures) -> None:
    """Grid, title, and a legend below everything, where it covers no curve."""
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    bands = f"; bands: least to greatest of {len(figures.seeds)} seeds" if len(figures.seeds) > 1 else ""
    picture.suptitle(f"{figures.title}{bands}", fontsize="medium")
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3), frameon=False)
