"""The picture of ``psgd bench scale``: a column for each series, step time above memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # psgd runs without it
    from matplotlib.axes import Axes

_Points = Sequence[Mapping[str, Any]]


def draw(figures: Mapping[str, Any], target: Path) -> None:
    """Write the picture.

    Args:
        figures: as `psgd.bench.scale.grow` returns them.
        target: which `psgd.analysis.drawing.check_drawable` has let pass.
    """
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    series, machine = figures["series"], figures["machine"]
    picture = Figure(figsize=(4 * len(series), 6), layout="constrained")
    rows = picture.subplots(2, len(series), squeeze=False)
    for column, (name, points) in enumerate(series.items()):
        _draw_time(rows[0][column], name, points)
        _draw_memory(rows[1][column], name, points)
    picture.suptitle(f"psgd {machine['psgd']} on {machine['cpu']}, {machine['cores']} cores")
    picture.savefig(target, dpi=144)


def _draw_time(axes: "Axes", name: str, points: _Points) -> None:
    """The median step, and the band in which eight of ten steps lie."""
    numbers = [point[name] for point in points]
    low, high = zip(*(point["p10_p90_ms"] for point in points), strict=True)
    axes.plot(numbers, [point["psgd_ms"] for point in points], marker="o")
    axes.fill_between(numbers, low, high, alpha=0.2)
    axes.set(ylabel="step (ms)")
    _scale(axes, name, numbers)


def _draw_memory(axes: "Axes", name: str, points: _Points) -> None:
    """The largest shard's memory above an idle one's, beside weights and momentum."""
    numbers = [point[name] for point in points]
    above_idle = [max(point["shard_pss_mb"]) - point["idle_shard_pss_mb"] for point in points]
    axes.plot(numbers, above_idle, marker="o", label="measured, above an idle shard")
    axes.plot(numbers, [2 * point["weights_mb"] for point in points], "k:", label="weights and momentum")
    axes.set(ylabel="memory of a shard (MB)")
    _scale(axes, name, numbers)
    axes.legend()


def _scale(axes: "Axes", name: str, numbers: Sequence[int]) -> None:
    """Parameters grow by powers of ten, and everything with them; processes are few enough to be named."""
    if name == "params":
        axes.set(xscale="log", yscale="log")
    else:
        axes.set(xscale="log", ylim=(0, None))
        axes.set_xticks(numbers, map(str, numbers))
        axes.minorticks_off()
    axes.set(xlabel=name)
    axes.grid(alpha=0.3)
