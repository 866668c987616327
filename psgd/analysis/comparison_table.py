"""The table of a comparison: a row an arm, the columns that matter, as many as fit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from psgd.analysis import numbers
from psgd.analysis.comparison import ComparisonFigures, Metric, Rate, Spread
from psgd.analysis.figure import BY_NAME, SAMPLES_PER_S, TO_TARGET, Figure, of_metric
from psgd.analysis.tables import Row

NOTHING = numbers.DASH
REST = ("seconds", "samples", "steps", "updates")
"""Figures that are shown last."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Args:
        cells: one an arm.
        decides: it is shown even where all arms have the same.
    """

    heading: str
    cells: tuple[str, ...]
    decides: bool = False

    @property
    def empty(self) -> bool:
        """Whether no arm has anything in it."""
        return all(cell == NOTHING for cell in self.cells)

    @property
    def common(self) -> bool:
        """Whether all arms, if they are several, have the same in it, so that it can be said once."""
        return not self.decides and len(self.cells) > 1 and len(set(self.cells)) == 1

    @property
    def width(self) -> int:
        """Of its longest text, in characters."""
        return max(map(len, (self.heading, *self.cells)))


@dataclass(frozen=True, slots=True)
class Table:
    """All that there is to show of the arms.

    Args:
        naming: columns that tell the arms apart.
        columns: of figures, the weightiest first.
        common: what is the same for all arms, heading and value.
    """

    naming: tuple[Column, ...]
    columns: tuple[Column, ...]
    common: tuple[tuple[str, str], ...]

    def rows(self, width: int) -> list[list[Row]]:
        """The table in pieces that are no wider, each with its heading and the columns that name the arms."""
        pieces: list[list[Column]] = [[]]
        named = sum(column.width + 2 for column in self.naming)
        room = width - named
        for column in self.columns:
            if pieces[-1] and column.width > room:
                pieces.append([])
                room = width - named
            pieces[-1].append(column)
            room -= column.width + 2
        return [_as_rows([*self.naming, *piece]) for piece in pieces]


def _as_rows(columns: Sequence[Column]) -> list[Row]:
    return [tuple(column.heading for column in columns), *zip(*(column.cells for column in columns), strict=True)]


def arms_table(figures: ComparisonFigures) -> Table:
    """Each arm at the learning rate at which it is shown."""
    shown = figures.shown
    naming = (
        Column("optimizer", tuple(arm.optimizer if _trained(rate) else NOTHING for _, arm, rate in shown)),
        Column("mode", tuple(arm.mode for _, arm, _ in shown), decides=True),
        Column("lr", tuple(f"{rate.lr:g}" if rate.lr else NOTHING for _, _, rate in shown)),
    )
    columns = [
        Column(heading, tuple(cell(rate) for _, _, rate in shown), decides)
        for heading, cell, decides in _columns(figures)
    ]
    return Table(
        tuple(column for column in naming if not (column.empty or column.common)),
        tuple(column for column in columns if not (column.empty or column.common)),
        tuple((each.heading, each.cells[0]) for each in (*naming, *columns) if each.common and not each.empty),
    )


def _trained(rate: Rate) -> bool:
    """Whether there was anything to optimize, as far as is known."""
    return all(run.has_gradients for run in rate.complete)


def _columns(figures: ComparisonFigures) -> list[tuple[str, Callable[[Rate], str], bool]]:
    """Heading and cell of each column that there may be, and whether it decides."""
    metric, target = figures.metric, figures.target

    def plain(name: str, spread: bool = False) -> tuple[str, Callable[[Rate], str], bool]:
        figure = BY_NAME[name]
        return figure.heading, lambda rate: _plain_cell(rate, figure, spread), False

    reaching: list[tuple[str, Callable[[Rate], str], bool]] = []
    if target is not None:
        time, samples = TO_TARGET
        reaching = [
            (f"time to {target.words}", lambda rate: _reached_cell(rate, time, figures), True),
            ("samples drawn to it", lambda rate: _reached_cell(rate, samples, figures), True),
        ]
    ends: list[tuple[str, Callable[[Rate], str], bool]] = [
        (of_metric(metric, "test").heading, lambda rate: metric_cell(rate, metric, "test"), True),
        (of_metric(metric, "train").heading, lambda rate: metric_cell(rate, metric, "train"), True),
    ]
    details = [plain("idle_share"), ("lag mean/max", _lag_cell, False), plain("effective_lr")]
    moved = [plain("dropped_samples"), plain("bytes")]
    return [*reaching, *ends, plain(SAMPLES_PER_S.name, spread=True), *details, *moved, *map(plain, REST)]


def metric_cell(rate: Rate, metric: Metric, kind: str) -> str:
    """A final metric over the seeds."""
    if rate.complete and rate.diverged * 2 > len(rate.complete):
        return "diverged"
    figure = of_metric(metric, "test" if kind == "test" else "train")
    return _spread(rate.spread(partial(figure.of, target=None), figure.goal), metric.words)


def _reached_cell(rate: Rate, figure: Figure, figures: ComparisonFigures) -> str:
    """Over the seeds; a target that was never reached has no time, and says so."""
    runs = len(rate.complete)
    spread = rate.spread(partial(figure.of, target=figures.target))
    reached = 0 if figures.target is None else len(rate.reached(figures.target))
    if not runs:
        return NOTHING
    if reached == 0:
        return "not reached"
    if reached == runs:
        return _spread(spread, figure.words)
    if spread.low is None or spread.high is None or spread.median is not None:
        return f"{reached} of {runs}: {_spread(spread, figure.words)}"
    return f"{reached} of {runs}: {numbers.interval(spread.low, spread.high, figure.words)}"


def _plain_cell(rate: Rate, figure: Figure, with_spread: bool) -> str:
    spread = rate.spread(partial(figure.of, target=None))
    if spread.median is None:
        return NOTHING
    return _spread(spread, figure.words) if with_spread else figure.words(spread.median)


def _lag_cell(rate: Rate) -> str:
    mean = rate.spread(lambda run: run.figure("lag_mean"))
    most = rate.spread(lambda run: run.figure("lag_max"))
    return NOTHING if mean.median is None or most.high is None else f"{mean.median:.1f}/{most.high:.0f}"


def _spread(spread: Spread, words: Callable[[float], str]) -> str:
    """The same in words; nothing where half of the runs or more have no such figure."""
    if spread.median is None or spread.low is None or spread.high is None:
        return NOTHING
    return numbers.spread(spread.median, spread.low, spread.high, words)
