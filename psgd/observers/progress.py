"""What the user sees of a run while it goes on: a bar on a terminal, else a line every few seconds; on stderr."""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from psgd.runlog import Evaluation, Iteration, Notice, Observer, Record

LINE_INTERVAL_S = 5.0
BAR_INTERVAL_S = 0.1
MOST_CLOCKS = 16
"""That are shown one by one."""
WINDOW = 64
"""Iterations a slot that the rate and the lag are measured over."""


class Meter:
    """The figures of the moment.

    Args:
        slots: of the job.
        steps: the budget; None if there is none.

    Attributes:
        clocks: finished iterations, indexed by slot.
    """

    def __init__(self, slots: int, steps: int | None) -> None:
        self.clocks = [0] * slots
        self._steps = steps
        self._recent: deque[Iteration] = deque(maxlen=WINDOW * slots)

    def see(self, iteration: Iteration) -> None:
        """Take an iteration into account."""
        self.clocks[iteration.slot] = iteration.step + 1
        self._recent.append(iteration)

    @property
    def step(self) -> int:
        """Steps done: a slot's iterations, averaged over the slots, rounded down."""
        return sum(self.clocks) // len(self.clocks)

    @property
    def loss(self) -> float | None:
        """Mean over the last iterations, as many as there are slots; None if they tell none."""
        last = list(self._recent)[-len(self.clocks) :]
        losses = [iteration.loss for iteration in last if iteration.loss is not None]
        return sum(losses) / len(losses) if losses else None

    @property
    def lag(self) -> float:
        """Mean over the window."""
        return sum(iteration.lag for iteration in self._recent) / len(self._recent) if self._recent else 0.0

    @property
    def samples_per_s(self) -> float:
        """Over the window; 0 until it spans any time."""
        times = [iteration.time_s for iteration in self._recent]
        span = max(times) - min(times) if times else 0.0
        if span == 0:
            return 0.0
        # The first iteration's samples were computed before the window begins.
        return (sum(iteration.samples for iteration in self._recent) - self._recent[0].samples) / span

    @property
    def clocks_in_words(self) -> str:
        """The clocks, or where there are too many their range."""
        if len(self.clocks) > MOST_CLOCKS:
            return f"clocks {min(self.clocks)} … {max(self.clocks)}"
        return f"clocks {' '.join(map(str, self.clocks))}"

    def __str__(self) -> str:
        of_steps = "" if self._steps is None else f"/{self._steps}"
        loss = "" if self.loss is None else f"loss {self.loss:.4f}  "
        return (
            f"step {self.step}{of_steps}  {loss}{self.samples_per_s:,.0f} samples/s  "
            f"lag {self.lag:.2f}  {self.clocks_in_words}"
        )


class LinePrinter:
    """Plain lines: the figures every few seconds, each evaluation, each notice.

    Args:
        stream: where they go.
        clock: seconds, monotonic: not the run's own, which may be virtual.
    """

    def __init__(self, meter: Meter, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._meter = meter
        self._stream = stream
        self._clock = clock
        self._printed_s = clock()

    def __call__(self, record: Record) -> None:
        """Print a line if it is time for one."""
        if isinstance(record, Iteration):
            self._meter.see(record)
            if self._clock() - self._printed_s >= LINE_INTERVAL_S:
                self._printed_s = self._clock()
                self._print(str(self._meter))
        elif (line := _line(record)) is not None:
            self._print(line)

    def close(self) -> None:
        """The last line has been printed already."""

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class ProgressBar:
    """A bar with the figures; evaluations and notices are printed above it.

    Args:
        console: of the terminal.
    """

    def __init__(self, meter: Meter, steps: int | None, console: Console) -> None:
        self._meter = meter
        self._steps = steps
        self._shown_s = float("-inf")
        self._task: TaskID | None = None
        self._progress = Progress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
        )

    def __call__(self, record: Record) -> None:
        """Move the bar."""
        if self._task is None:
            # Not before: whatever is refused at the start is told on a clean terminal.
            self._task = self._progress.add_task("", total=self._steps)
            self._progress.start()
        if isinstance(record, Iteration):
            self._meter.see(record)
            if time.monotonic() - self._shown_s >= BAR_INTERVAL_S:
                self._shown_s = time.monotonic()
                self._show(self._task)
        elif (line := _line(record)) is not None:
            self._progress.console.print(line, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the bar's last state on the terminal."""
        if self._task is not None:
            self._show(self._task)
            self._progress.stop()

    def _show(self, task: TaskID) -> None:
        self._progress.update(task, completed=self._meter.step, description=str(self._meter))


def progress_display(slots: int, steps: int | None) -> Observer:
    """The display that fits to what stderr is."""
    console = Console(stderr=True)
    meter = Meter(slots, steps)
    return ProgressBar(meter, steps, console) if console.is_terminal else LinePrinter(meter, sys.stderr)


def _line(record: Record) -> str | None:
    """What is worth a line of its own."""
    match record:
        case Evaluation():
            metrics = "  ".join(f"{name} {value:.4f}" for name, value in record.metrics.items())
            stop = f"  {record.decision}" if record.decision.startswith("stop") else ""
            return f"step {record.step}: {metrics}{stop}"
        case Notice():
            return f"note: {record.text}"
        case _:
            return None
