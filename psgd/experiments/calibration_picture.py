"""The picture of a calibration: compute times beside the model that was fitted, the run beside its simulation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from psgd.analysis.drawing import check_drawable
from psgd.experiments.calibration import Calibration, Quantity

if TYPE_CHECKING:  # psgd runs without it
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

DPI = 144
BINS, DRAWS = 40, 100_000
MOST_SHOWN = 4
"""Slots of their own: with more, nothing can be seen."""
TAIL = 99.0
"""Per cent of the compute times that the axis reaches to; the longest would leave the others no room."""
CHECKED = {
    "samples_per_s": "samples/s",
    "idle_share": "idle share",
    "wait_share": "wait share",
    "lag": "mean lag",
    "seconds": "seconds",
}
MEASURED_COLOUR, SIMULATED_COLOUR = "C0", "C1"


def draw_calibration(calibration: Calibration, target: Path) -> None:
    """Write the picture.

    Raises:
        ConfigurationError: if matplotlib is missing, or knows no such file.
    """
    check_drawable(target)
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    computing = [each for each in calibration.quantities if each.name.startswith("compute")][: 1 + MOST_SHOWN]
    picture = Figure(figsize=(9, 6), layout="constrained")
    grid = picture.add_gridspec(2, 1, height_ratios=(1.25, 1))
    above, below = (picture.add_subfigure(grid[row]) for row in range(2))
    for axes, quantity in zip(above.subplots(1, len(computing), squeeze=False)[0], computing, strict=True):
        _draw_times(axes, quantity, len(computing) == 1, calibration.run.job.rules.mini_batches)
    for axes, (name, words) in zip(below.subplots(1, len(CHECKED)), CHECKED.items(), strict=True):
        _draw_pair(axes, words, getattr(calibration.measured, name), getattr(calibration.simulated, name))
    below.suptitle("the same run, measured and simulated", fontsize="medium")
    picture.savefig(target, dpi=DPI)


def _draw_times(axes: "Axes", quantity: Quantity, whole: bool, averaged: int) -> None:
    """A histogram of what was measured, and the fitted density in the same bins."""
    scale, unit = _unit(quantity.seconds)
    times = np.asarray(quantity.seconds) * scale
    generator = np.random.default_rng(0)
    drawn = np.asarray([quantity.fit.duration.draw(generator) for _ in range(DRAWS)]) * scale
    least, end = min(float(times.min()), float(drawn.min())), float(np.percentile(times, TAIL))
    least_room = 0.02 * end + 1e-9  # a constant is a bar in the middle
    if end - least < least_room:
        least, end = least - least_room, end + least_room
    edges = np.linspace(least, end, BINS + 1)
    axes.hist(times, edges.tolist(), weights=_weights(times, edges), color=MEASURED_COLOUR, alpha=0.5, label="measured")
    axes.hist(
        drawn,
        edges.tolist(),
        weights=_weights(drawn, edges),
        histtype="step",
        linewidth=1.5,
        color=SIMULATED_COLOUR,
        label=f"fitted: {_short(str(quantity.fit.duration))}",
    )
    who = "all slots" if whole else "the other slots" if quantity.slot is None else f"slot {quantity.slot}"
    what = "mini-batches" if averaged == 1 else f"means of {averaged} mini-batches, spread"
    axes.set_title(f"{who}: {quantity.fit.measured} {what}", fontsize="medium")
    axes.set(xlabel=f"compute time, {unit}", ylabel="density", ylim=(0, None))
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)


def _unit(seconds: Sequence[float]) -> tuple[float, str]:
    """What to multiply seconds with, so that they are easily read."""
    return (1.0, "s") if float(np.median(seconds)) >= 1 else (1e3, "ms")


def _weights(values: "NDArray[np.float64]", edges: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """So that areas are shares of all values, also of those that the axis does not reach to."""
    return np.full(values.size, 1 / (values.size * float(edges[1] - edges[0])))


def _short(text: str) -> str:
    """A trace names a folder that may be long."""
    return text if len(text) <= 30 else f"{text[:6]}…{text[-22:]}"


def _draw_pair(axes: "Axes", words: str, measured: float, simulated: float) -> None:
    bars = axes.bar(["measured", "simulated"], [measured, simulated], color=[MEASURED_COLOUR, SIMULATED_COLOUR])
    axes.bar_label(bars, [f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for value in (measured, simulated)])
    axes.set_title(words, fontsize="medium")
    axes.set_ylim(0, 1 if words.endswith("share") else 1.2 * max(measured, simulated) or 1)
    axes.set_yticks([])
    axes.tick_params(axis="x", labelsize="small")
    axes.spines[["top", "right", "left"]].set_visible(False)
