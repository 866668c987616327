"""The bars of a comparison: how fast the arms are, where their time goes, and how stale their gradients are."""

from collections import Counter
from typing import TYPE_CHECKING

from psgd.analysis.comparison import ComparisonFigures, Rate
from psgd.analysis.numbers import count, share, spread
from psgd.analysis.picture_style import finish, look

if TYPE_CHECKING:  # psgd runs without it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARES = {"compute_share": "#2a7f62", "wait_share": "#d98f2b", "transfer_share": "#5b6ea8"}
"""Where a slot's time goes, and its colour."""
MOST_LAGS = 24
"""Bars of a histogram; with more lags, several share one."""
MOST_COLUMNS = 3


def draw_throughput(figures: ComparisonFigures) -> "Figure":
    """The median samples a second, with a line from the least to the greatest seed."""
    picture, axes = _rows(figures)
    longest = 0.0
    for place, (_, arm, rate) in enumerate(figures.shown):
        found = rate.spread(lambda run: run.figure("samples_per_s"))
        if found.median is None or found.low is None or found.high is None:
            continue
        axes.barh(place, found.median, height=0.6, color=look(figures, arm)[0])
        axes.plot([found.low, found.high], [place, place], color="black", linewidth=1.5, marker="|", markersize=10)
        longest = max(longest, found.high)
        words = spread(found.median, found.low, found.high, count)
        axes.annotate(words, (found.high, place), (8, 0), textcoords="offset points", va="center")
    axes.set(xlabel="samples/s", xlim=(0, longest * 1.3 or 1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    finish(picture, [axes], figures, "median, and from the least to the greatest", grid="x")
    return picture


def draw_shares(figures: ComparisonFigures) -> "Figure":
    """Where the slots' time goes: computing, waiting for others, on the wire and in the shards."""
    picture, axes = _rows(figures)
    for place, (_, _, rate) in enumerate(figures.shown):
        left = 0.0
        for name, colour in SHARES.items():
            part = _mean(rate, name)
            axes.barh(place, part, left=left, height=0.6, color=colour, label=None if place else _word(name))
            if part > 0.06:
                axes.text(left + part / 2, place, share(part), ha="center", va="center", color="white")
            left += part
    axes.set(xlabel="share of the slots' time", xlim=(0, 1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    finish(picture, [axes], figures, "their mean", grid="x")
    return picture


def _word(name: str) -> str:
    return name.removesuffix("_share")


def _mean(rate: Rate, name: str) -> float:
    parts = [run.measured.get(name, 0.0) for run in rate.complete]
    return sum(parts) / len(parts) if parts else 0.0


def draw_lags(figures: ComparisonFigures) -> "Figure":
    """For each arm whose gradients have a lag: the share of the accepted pushes that had each, over all seeds."""
    from matplotlib.figure import Figure

    lags = {name: (arm, rate.lags) for name, arm, rate in figures.shown}
    stale = {name: each for name, each in lags.items() if any(each[1])}
    columns = min(len(stale), MOST_COLUMNS)
    rows = -(-len(stale) // columns)
    picture = Figure(figsize=(max(3.7 * columns, 5), 3.2 * rows + 0.6), layout="constrained")
    panels = picture.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten().tolist()
    width = -(-(max(max(counts) for _, counts in stale.values()) + 1) // MOST_LAGS)
    for axes, (name, (arm, counts)) in zip(panels, stale.items(), strict=False):
        _histogram(axes, counts, width, look(figures, arm)[0])
        mean = sum(lag * count for lag, count in counts.items()) / sum(counts.values())
        axes.axvline(mean, color="black", linewidth=1, linestyle="--")
        axes.tick_params(labelbottom=True)  # also above a place that is left empty
        axes.set_title(f"{name}: mean {mean:.1f}, max {max(counts)}", fontsize="medium")
    for axes in panels[len(stale) :]:
        axes.set_visible(False)
    picture.supxlabel("lag: updates between pull and push (dashed: the mean)", fontsize="medium")
    picture.supylabel("accepted pushes", fontsize="medium")
    finish(picture, panels, figures, "all of them together")
    return picture


def _histogram(axes: "Axes", counts: Counter[int], width: int, colour: str) -> None:
    """Bars of so many lags each."""
    from matplotlib.ticker import MaxNLocator

    bars: Counter[int] = Counter()
    for lag, pushes in counts.items():
        bars[lag // width] += pushes
    total = sum(counts.values())
    places = sorted(bars)
    middles = [place * width + (width - 1) / 2 for place in places]
    axes.bar(middles, [bars[place] / total for place in places], width=0.9 * width, color=colour)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def _rows(figures: ComparisonFigures) -> "tuple[Figure, Axes]":
    """A row an arm, the first on top."""
    from matplotlib.figure import Figure

    names = [name for name, _, _ in figures.shown]
    picture = Figure(figsize=(9, 1.8 + 0.55 * len(names)), layout="constrained")
    axes = picture.subplots()
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    return picture, axes
