"""What the user sees of a search while it goes on: a line a trial, below them a bar on a terminal; on stderr."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from psgd.runlog import Goal
from psgd.tuning.results import in_words
from psgd.tuning.space import Space, values_of
from psgd.tuning.trials import Trial, best


class Score:
    """How the search stands.

    Args:
        made: trials that were there before.
        size: trials of the whole search.
    """

    def __init__(self, space: Space, metric: str, goal: Goal, made: Sequence[Trial], size: int) -> None:
        self._space = space
        self._metric = metric
        self._goal = goal
        self._trials = list(made)
        self.size = size

    @property
    def ended(self) -> int:
        """Trials so far."""
        return len(self._trials)

    def line(self, trial: Trial) -> str:
        """What a trial has come to; it counts from now on."""
        self._trials.append(trial)
        settings = ", ".join(f"{name} {in_words(each)}" for name, each in values_of(self._space, trial.point).items())
        value = trial.value(self._metric)
        if value is None:
            return f"trial {trial.number}: {settings}: {trial.status}: {trial.reason}"
        end = "" if trial.status == "done" else f", {trial.status} {trial.reason}"
        return f"trial {trial.number}: {settings}: {self._metric} {value:.4f}, {trial.seconds:.1f} s{end}"

    def __str__(self) -> str:
        first = best(self._trials, self._metric, self._goal)
        value = None if first is None else first.value(self._metric)
        return "" if first is None or value is None else f"best {self._metric} {value:.4f} (trial {first.number})"


class SearchDisplay(Protocol):
    """Shows how a search goes on."""

    def __enter__(self) -> Self:
        """Begin."""

    def __call__(self, trial: Trial, /) -> None:
        """A trial has ended."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Let go of the terminal."""


class SearchLines:
    """A line a trial.

    Args:
        stream: where they go.
    """

    def __init__(self, score: Score, stream: TextIO) -> None:
        self._score = score
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __call__(self, trial: Trial) -> None:
        """Print it, with how many are made, and the best of them."""
        line = self._score.line(trial)
        score = f"; {self._score}" if str(self._score) else ""
        print(f"[{self._score.ended}/{self._score.size}] {line}{score}", file=self._stream, flush=True)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Every line has been printed already."""


class SearchBar:
    """A bar of the trials, below a line for each of them.

    Args:
        console: of the terminal.
    """

    def __init__(self, score: Score, console: Console) -> None:
        self._score = score
        self._progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("trials  {task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self._task: TaskID = self._progress.add_task(str(score), total=score.size, completed=score.ended)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __call__(self, trial: Trial) -> None:
        """Print it above the bar, and move that."""
        self._progress.console.print(self._score.line(trial), markup=False, highlight=False)
        self._progress.update(self._task, completed=self._score.ended, description=str(self._score))

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Leave the bar's last state on the terminal."""
        self._progress.stop()


def search_display(score: Score) -> SearchDisplay:
    """The display that fits to what stderr is."""
    console = Console(stderr=True)
    return SearchBar(score, console) if console.is_terminal else SearchLines(score, sys.stderr)
