"""How the pictures of a comparison look: an arm's colour, axes that show what matters, the legend below."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from psgd.analysis.comparison import ArmRuns, ComparisonFigures, Metric

if TYPE_CHECKING:  # psgd runs without it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

DPI = 144
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b3538c", "#b98200", "#45a5dd", "#5b4fa2", "#6b6f75")
"""Those of the page, where it is light."""
STYLES = ("-", "--", ":", "-.")
LEAST_ERROR = 1e-4
"""Where the axis of the accuracy ends, as its scale has no place for none."""
TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
FEWEST_TICKS = 4
DECADE = 10.0


def look(figures: ComparisonFigures, arm: ArmRuns) -> tuple[str, str]:
    """Colour and style of an arm: where both differ, optimizers have colours and modes have styles."""
    optimizers = list(dict.fromkeys(each.optimizer for each in figures.arms))
    modes = list(dict.fromkeys(each.mode for each in figures.arms))
    if len(optimizers) == 1:
        return COLOURS[modes.index(arm.mode) % len(COLOURS)], STYLES[0]
    return COLOURS[optimizers.index(arm.optimizer) % len(COLOURS)], STYLES[modes.index(arm.mode) % len(STYLES)]


def scale_metric(axes: "Axes", metric: Metric, values: Sequence[float]) -> None:
    """Accuracy by the logarithm of what is missing to 1, so that 98 and 99 % are as far apart as 80 and 90 %."""
    if metric.name == "accuracy":
        _scale_accuracy(axes, min(values, default=0.0), max(values, default=1.0))
    elif values and min(values) > 0 and max(values) / min(values) > DECADE:
        scale_by_logarithm(axes)


def scale_by_logarithm(axes: "Axes") -> None:
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


def finish(
    picture: "Figure",
    panels: "Sequence[Axes]",
    figures: ComparisonFigures,
    shown: str,
    grid: Literal["both", "x"] = "both",
) -> None:
    """Grid, title, and a legend below everything, where it covers no curve; none if nothing has a label.

    Args:
        shown: what of several seeds there is to see.
    """
    for axes in panels:
        axes.grid(alpha=0.3, axis=grid)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    seeds = f"; {len(figures.seeds)} seeds: {shown}" if len(figures.seeds) > 1 else ""
    picture.suptitle(f"{figures.title}{seeds}", fontsize="medium")
    handles, labels = panels[0].get_legend_handles_labels()
    if labels:
        picture.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
