"""Draws what ``psgd bench scale --json`` has printed: python scripts/bench/draw_scale.py scale.json scale.png."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display is needed to write a file
import matplotlib.pyplot as plt  # after the choice above
from matplotlib.axes import Axes


def draw_time(axes: Axes, name: str, points: list[dict[str, Any]]) -> None:
    """The median step, and the band in which eight of ten steps lie."""
    numbers = [point[name] for point in points]
    low, high = zip(*(point["p10_p90_ms"] for point in points), strict=True)
    axes.plot(numbers, [point["psgd_ms"] for point in points], marker="o")
    axes.fill_between(numbers, low, high, alpha=0.2)
    axes.set(ylabel="step (ms)")
    scale(axes, name, numbers)


def draw_memory(axes: Axes, name: str, points: list[dict[str, Any]]) -> None:
    """The largest shard's memory above an idle one's, beside weights and momentum."""
    numbers = [point[name] for point in points]
    above_idle = [max(point["shard_pss_mb"]) - point["idle_shard_pss_mb"] for point in points]
    axes.plot(numbers, above_idle, marker="o", label="measured, above an idle shard")
    axes.plot(numbers, [2 * point["weights_mb"] for point in points], "k:", label="weights and momentum")
    axes.set(ylabel="memory of a shard (MB)")
    scale(axes, name, numbers)
    axes.legend()


def scale(axes: Axes, name: str, numbers: list[int]) -> None:
    """Parameters grow by powers of ten, and everything with them; processes are few enough to be named."""
    if name == "params":
        axes.set(xscale="log", yscale="log")
    else:
        axes.set(xscale="log", ylim=(0, None))
        axes.set_xticks(numbers, map(str, numbers))
        axes.minorticks_off()
    axes.set(xlabel=name)
    axes.grid(alpha=0.3)


def draw(figures: dict[str, Any], target: Path) -> None:
    """Write the picture: a column for each series."""
    series = figures["series"]
    picture, rows = plt.subplots(2, len(series), figsize=(4 * len(series), 6), layout="constrained", squeeze=False)
    for column, (name, points) in enumerate(series.items()):
        draw_time(rows[0][column], name, points)
        draw_memory(rows[1][column], name, points)
    machine = figures["machine"]
    picture.suptitle(f"psgd {machine['psgd']} on {machine['cpu']}, {machine['cores']} cores")
    picture.savefig(target, dpi=144)
    plt.close(picture)


def main() -> None:
    """Read the last line of JSON, write the picture."""
    source, target = map(Path, sys.argv[1:])
    draw(json.loads(source.read_text(encoding="utf-8").splitlines()[-1]), target)


if __name__ == "__main__":
    main()
