"""The picture of a schedule: the learning rate of each parameter group against the steps of the run."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # psgd runs without it
    import numpy as np
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

FEW_STEPS = 60
"""Up to so many, single steps can be seen."""
MOST_EPOCHS = 40
"""With more, the lines between them would hide the curve."""


def draw_schedule(
    rates: Sequence[Sequence[float]], target: Path, title: str, steps_per_epoch: int | None = None
) -> None:
    """Write the picture.

    Args:
        rates: for each step of the run, the learning rates, one a parameter group, as
            `psgd.training.schedules.learning_rates` gives them.
        target: which `psgd.analysis.drawing.check_drawable` has let pass.
        title: what the schedule is, in a line.
        steps_per_epoch: marks the epochs.
    """
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    picture = Figure(figsize=(8, 4.2), layout="constrained")
    axes = picture.subplots()
    lines = _lines(rates)
    for place, (label, values) in enumerate(lines):
        # A rate holds until the next step: stairs, not a slope.
        axes.plot(
            range(len(values) + 1),
            [*values, values[-1]],
            drawstyle="steps-post",
            linewidth=2,
            linestyle="-" if place == 0 else "--",
            marker="." if len(values) <= FEW_STEPS else "",
            markevery=slice(0, len(values)),
            label=label,
        )
    axes.set(xlabel="step", ylabel="learning rate", xlim=(0, len(rates)), ylim=(0, None))
    axes.set_title(title, loc="left", pad=12)
    axes.ticklabel_format(axis="y", scilimits=(-4, 4), useMathText=True)
    axes.grid(alpha=0.3, axis="both" if steps_per_epoch is None else "y")
    axes.spines[["top", "right"]].set_visible(False)
    if steps_per_epoch is not None:
        _mark_epochs(axes, len(rates), steps_per_epoch)
    if len(lines) > 1:
        picture.legend(loc="outside lower center", ncols=min(len(lines), 4), frameon=False)
    picture.savefig(target, dpi=144)


def _lines(rates: Sequence[Sequence[float]]) -> list[tuple[str, list[float]]]:
    """A label and the rates for each line; groups that have the same rates share one, which would hide the others."""
    curves: dict[tuple[float, ...], list[int]] = {}
    for group, curve in enumerate(zip(*rates, strict=True)):
        curves.setdefault(curve, []).append(group)
    return [
        (f"group{'s' if len(groups) > 1 else ''} {', '.join(map(str, groups))}", list(curve))
        for curve, groups in curves.items()
    ]


def _mark_epochs(axes: "Axes", steps: int, steps_per_epoch: int) -> None:
    """The epochs on an axis of their own above, and a line where each begins."""
    from matplotlib.ticker import MaxNLocator

    epochs = axes.secondary_xaxis(
        "top", functions=(partial(_scale, 1 / steps_per_epoch), partial(_scale, steps_per_epoch))
    )
    epochs.set_xlabel("epoch")
    epochs.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    if steps / steps_per_epoch <= MOST_EPOCHS:
        for step in range(steps_per_epoch, steps, steps_per_epoch):
            axes.axvline(step, color="black", alpha=0.1, linewidth=1)


def _scale(factor: float, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
    return values * factor
