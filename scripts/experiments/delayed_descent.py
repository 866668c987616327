"""Gradient descent with a delay: asynchronous SGD is stable exactly below the limit that is known for a quadratic.

    python -m scripts.experiments.delayed_descent

Published: x(t+1) = x(t) − α L x(t−τ), gradient descent on ½ L x² with gradients τ updates old, comes to 0 if and only
if 0 < α L < 2 sin(π / (2 (2τ + 1))): Levin and May 1976, "A note on difference-delay equations" (Theoretical Population
Biology 9, 178-187).

Simulated, with real gradients at truly stale weights: one weight, L = 1, τ + 1 slots that all take the same time, no
communication. The first round ramps up (lags 0, 1, …, τ), then every lag is τ: the log is checked for that.

Must come out, for τ = 0, 1, 3, 7 and 15: 3 % below the limit the weight comes to 0, 3 % above it diverges.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import psgd
from psgd.simulation.world import World
from scripts.experiments.results import Claim, Findings, parser_of, publish, tell

NAME = "delayed_descent"
DELAYS, QUICK_DELAYS = (0, 1, 3, 7, 15), (0, 1, 3)
MARGIN = 0.03
HALF_SWINGS = 200
"""Updates of a run, as a multiple of the 2τ + 1 that x takes from a peak to the next trough at the limit."""
TOLD_APART = 10.0
"""How many times smaller or larger the swings have to be at the end than at the beginning."""


@dataclass(frozen=True, slots=True)
class Course:
    """How one run went.

    Args:
        sizes: |x| at which each update's gradient was computed, in the order of the updates.
        lags: of each update.
    """

    delay: int
    rate: float
    sizes: tuple[float, ...]
    lags: tuple[int, ...]

    @property
    def growth(self) -> float:
        """The last swing, as a multiple of the first one behind the ramp."""
        swing = 2 * (2 * self.delay + 1)
        return max(self.sizes[-swing:]) / max(self.sizes[self.delay : self.delay + swing])

    @property
    def lags_are_exact(self) -> bool:
        """Whether each lag was τ, but for those of the first round, which are 0, 1, …, τ."""
        return self.lags == tuple(min(update, self.delay) for update in range(len(self.lags)))


def limit(delay: int) -> float:
    """The α L below which it is stable."""
    return 2 * math.sin(math.pi / (2 * (2 * delay + 1)))


class Number(nn.Module):
    """One weight, which begins at 1; (B, 1) of whatever to (B, 1) of it."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        """The weight, for every sample."""
        return self.x * torch.ones_like(inputs)


def half_square(outputs: Tensor, _targets: Tensor) -> Tensor:
    """½ x²: its L is 1."""
    return (outputs**2).mean() / 2


def descend(delay: int, rate: float) -> Course:
    """Make one run.

    Args:
        rate: α L.
    """
    slots = delay + 1
    nothing = torch.zeros(slots, 1)
    history = (
        psgd.Trainer(
            model=Number,
            optimizer=partial(torch.optim.SGD, lr=rate),
            train_data=TensorDataset(nothing, nothing),
            loss=half_square,
            mode=psgd.Async(),
            workers=slots,
            batch_size=1,
            steps=-(-HALF_SWINGS * (2 * delay + 1) // slots),
            world=World(),
            out=None,
            progress=False,
        )
        .fit()
        .history.sort_values("version")
    )
    return Course(delay, rate, tuple((2 * history["loss"]) ** 0.5), tuple(history["lag"]))


def claims_of(below: Sequence[Course], above: Sequence[Course]) -> list[Claim]:
    """What must come out, for each delay; a run with other lags shows nothing."""
    return [
        *(_claim(c, "below", "comes to 0", c.growth < 1 / TOLD_APART) for c in below),
        *(_claim(c, "above", "diverges", c.growth > TOLD_APART) for c in above),
    ]


def _claim(course: Course, side: str, becomes: str, told: bool) -> Claim:
    words = f"τ = {course.delay}: {MARGIN:.0%} {side} the limit {limit(course.delay):.4f} it {becomes}"
    found = f"swings × {course.growth:.2g} in {len(course.sizes):,} updates"
    if not course.lags_are_exact:
        found += f"; lags were not {course.delay} throughout"
    return Claim(words, found, told and course.lags_are_exact)


def draw(below: Sequence[Course], above: Sequence[Course]) -> Figure:
    """|x| over the updates at both sides, and the limit against τ."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_sizes(left, [*below, *above])
    most = max(course.delay for course in below)
    right.plot(range(most + 1), [limit(delay) for delay in range(most + 1)], color="grey", label="2 sin(π / (2(2τ+1)))")
    for courses, marker, label in ((below, "v", "3 % below: stable"), (above, "^", "3 % above: diverges")):
        right.plot([c.delay for c in courses], [c.rate for c in courses], marker, label=label, markersize=5)
    right.set(xlabel="τ, the lag", ylabel="α L", yscale="log", title="the limit")
    right.grid(alpha=0.3, which="both")
    right.legend()
    return figure


def _draw_sizes(axes: Axes, courses: Sequence[Course]) -> None:
    """The peaks of |x|, against updates as a multiple of 2τ + 1: each half swing has one."""
    colors = {delay: f"C{number}" for number, delay in enumerate(sorted({course.delay for course in courses}))}
    for course in courses:
        half = 2 * course.delay + 1
        peaks = [max(course.sizes[at : at + half]) for at in range(0, len(course.sizes) - half + 1, half)]
        stable = course.rate < limit(course.delay)
        label = f"τ = {course.delay}" if stable else None
        axes.plot(peaks, "-" if stable else "--", color=colors[course.delay], label=label)
    axes.set(xlabel="updates / (2τ + 1)", ylabel="peaks of |x|", yscale="log")
    axes.set_title("3 % below the limit (solid) and above it (dashed)")
    axes.grid(alpha=0.3)
    axes.legend()


def main(argv: Sequence[str]) -> int:
    """Make all runs, write the page."""
    options = parser_of(__doc__, NAME).parse_args(argv)
    below: list[Course] = []
    above: list[Course] = []
    for delay in QUICK_DELAYS if options.quick else DELAYS:
        for courses, factor in ((below, 1 - MARGIN), (above, 1 + MARGIN)):
            courses.append(descend(delay, limit(delay) * factor))
            tell(f"τ = {delay}, {factor:.2f} of the limit: swings × {courses[-1].growth:.2g}")
    findings = Findings(
        title="Gradient descent with a delay",
        about="½ x², α L 3 % below and above 2 sin(π / (2(2τ + 1))), τ + 1 slots that take the same time, async "
        "without a bound. Nothing is random: one run each.",
        claims=claims_of(below, above),
        rows=[
            ("τ", "limit of α L", "updates", "swings, 3 % below", "swings, 3 % above"),
            *(_row(lower, upper) for lower, upper in zip(below, above, strict=True)),
        ],
        words=(),
        figure=draw(below, above),
        notes=["Swings: the largest |x| of the last period, as a multiple of that of the first one."],
    )
    return publish(findings, options.out, f"python -m scripts.experiments.{NAME}")


def _row(below: Course, above: Course) -> tuple[str, ...]:
    growths = (f"× {course.growth:.2g}" for course in (below, above))
    return (str(below.delay), f"{limit(below.delay):.4f}", f"{len(below.sizes):,}", *growths)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
