"""The pictures of a comparison: curves of the arms at their best, and how much the learning rate matters."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psgd.analysis.bands import Band, band_of
from psgd.analysis.comparison import ArmRuns, ComparisonFigures, Metric, Rate
from psgd.analysis.comparison_bars import draw_lags, draw_shares, draw_throughput
from psgd.analysis.curves import NO_CURVE, Curve
from psgd.analysis.drawing import check_drawable
from psgd.analysis.picture_style import DPI, finish, look, scale_by_logarithm, scale_metric
from psgd.analysis.run_figures import RunFigures

if TYPE_CHECKING:  # psgd runs without it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_NAME = "curves.png"
BANDS = "median, in a band from the least to the greatest"
MOST_NAMED = 10


def draw(figures: ComparisonFigures, folder: Path) -> list[str]:
    """Write the pictures that make sense: without several learning rates there is no sensitivity to show, and so on.

    Returns:
        The names of the files.

    Raises:
        ConfigurationError: if matplotlib is missing.
    """
    check_drawable(folder / CURVES_NAME)
    runs = figures.runs()
    pictures: dict[str, tuple[bool, Callable[[ComparisonFigures], Figure]]] = {
        CURVES_NAME: (bool(figures.measured()), draw_curves),
        "loss.png": (any(run.train_loss.tells for run in runs), draw_losses),
        "sensitivity.png": (bool(figures.measured()) and figures.searched, draw_sensitivity),
        "throughput.png": (any(run.figure("samples_per_s") for run in runs), draw_throughput),
        "time_shares.png": (any("compute_share" in run.measured for run in runs), draw_shares),
        "lags.png": (any(lag for run in runs for lag in run.lags), draw_lags),
    }
    wanted = {name: make for name, (makes_sense, make) in pictures.items() if makes_sense}
    for name, make in wanted.items():
        make(figures).savefig(folder / name, dpi=DPI)
    return list(wanted)


def draw_curves(figures: ComparisonFigures) -> "Figure":
    """The test metric against samples drawn and against seconds; bands reach from the least to the greatest seed."""
    metric = figures.metric
    picture, (left, right) = _two_panels()
    tested: list[float] = []
    for _, arm, rate in figures.shown:
        label, looks = _label(figures, rate, figures.name(arm)), look(figures, arm)
        curves = [run.test.get(metric.name, NO_CURVE) for run in _sound(rate)]
        tested += _lines(left, right, curves, label, *looks)
    for axes in (left, right):
        if figures.target is not None:
            label = f"target: {figures.target.words}"
            axes.axhline(
                figures.target.value, color="black", alpha=0.6, linewidth=1, linestyle=(0, (2, 3)), label=label
            )
        scale_metric(axes, metric, tested)
    left.set(ylabel=f"test {metric.name}", xlim=(0, None))
    right.set(xlim=(0, None))
    finish(picture, [left, right], figures, BANDS)
    return picture


def draw_losses(figures: ComparisonFigures) -> "Figure":
    """The training loss, in the same way."""
    picture, (left, right) = _two_panels()
    trained: list[float] = []
    for _, arm, rate in figures.shown:
        label, looks = _label(figures, rate, figures.name(arm)), look(figures, arm)
        trained += _lines(left, right, [run.train_loss for run in _sound(rate)], label, *looks)
    if min(trained, default=0) > 0:
        for axes in (left, right):
            scale_by_logarithm(axes)
    left.set(ylabel="training loss (mini-batches)", xlim=(0, None))
    right.set(xlim=(0, None))
    finish(picture, [left, right], figures, BANDS)
    return picture


def _two_panels() -> "tuple[Figure, tuple[Axes, Axes]]":
    """Against samples, and beside it, on the same height, against seconds."""
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    picture = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = picture.subplots(1, 2, sharey=True)
    left.set(xlabel="samples")
    right.set(xlabel="seconds")
    left.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    return picture, (left, right)


def _sound(rate: Rate) -> list[RunFigures]:
    return [run for run in rate.complete if not run.diverged]


def _label(figures: ComparisonFigures, rate: Rate, name: str) -> str:
    """The arm's name, with its learning rate where arms differ in that."""
    one_rate = len({each.lr for _, _, each in figures.shown}) == 1
    return name if one_rate else f"{name} (lr {rate.lr:g})"


def draw_sensitivity(figures: ComparisonFigures) -> "Figure":
    """The final test metric against the learning rate; a cross is one at which runs diverged, a ring the best."""
    from matplotlib.figure import Figure

    metric = figures.metric
    picture = Figure(figsize=(8, 5), layout="constrained")
    axes = picture.subplots()
    worst_end = 0.03 if metric.goal == "max" else 0.97  # of the axis' height
    tested: list[float] = []
    for arm in figures.arms:
        colour, style = look(figures, arm)
        tested += _line(axes, _ends(arm, metric), figures.name(arm), colour, style, marker="o")
        best = figures.best(arm)
        if (height := best.test(metric).median) is not None:
            axes.plot(best.lr, height, "o", markersize=12, fillstyle="none", color=colour)
        spoilt = [rate.lr for rate in arm.rates if rate.diverged]
        axes.plot(spoilt, [worst_end] * len(spoilt), "x", color=colour, transform=axes.get_xaxis_transform())
    scale_metric(axes, metric, tested)
    axes.set(xscale="log", xlabel="learning rate (ring: best, cross: diverged)", ylabel=f"final test {metric.name}")
    _name_rates(axes, sorted({rate.lr for arm in figures.arms for rate in arm.rates}))
    finish(picture, [axes], figures, BANDS)
    return picture


def _name_rates(axes: "Axes", rates: Sequence[float]) -> None:
    """The learning rates that were tried, as long as they fit."""
    if len(rates) <= MOST_NAMED:
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()


def _ends(arm: ArmRuns, metric: Metric) -> Band:
    """The final test metric against the learning rate, of those with which it was measured."""
    values = {
        rate.lr: [run.final_test[metric.name] for run in _sound(rate) if metric.name in run.final_test]
        for rate in arm.rates
    }
    known = {lr: found for lr, found in values.items() if found}
    seeds = list(known.values())
    return Band(tuple(known), tuple(map(statistics.median, seeds)), tuple(map(min, seeds)), tuple(map(max, seeds)))


def _lines(left: "Axes", right: "Axes", curves: Sequence[Curve], label: str, colour: str, style: str) -> list[float]:
    """The seeds' curves put together, against samples and against seconds; returns their least and greatest values."""
    _line(right, band_of([(curve.seconds, curve.values) for curve in curves], hold=True), label, colour, style)
    return _line(left, band_of([(curve.samples, curve.values) for curve in curves], hold=True), label, colour, style)


def _line(axes: "Axes", band: Band, label: str, colour: str, style: str, marker: str = "") -> list[float]:
    """The median over the seeds, in a band from the least to the greatest; returns the ends of the band."""
    axes.plot(band.x, band.median, color=colour, linestyle=style, marker=marker, label=label)
    axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.12, linewidth=0)
    return [*band.low, *band.high]
