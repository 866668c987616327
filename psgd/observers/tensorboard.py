"""The run's curves for TensorBoard."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from psgd.runlog import Evaluation, Iteration, Notice, Record, Reported

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FOLDER_NAME = "tensorboard"


class TensorBoardWriter:
    """Writes one point a step (``slots`` iterations) and one an evaluation.

    Args:
        folder: the run's; the event files go to ``tensorboard`` below it, with the first record.
        slots: of the job.
    """

    def __init__(self, folder: Path, slots: int) -> None:
        self._folder = folder / FOLDER_NAME
        self._slots = slots
        self._iterations = 0
        self._step: list[Iteration] = []  # the iterations since the last point
        self._opened: SummaryWriter | None = None

    def __call__(self, record: Record) -> None:
        """Add the record to its curves."""
        match record:
            case Iteration():
                self._iterations += 1
                self._step.append(record)
                if len(self._step) == self._slots:
                    self._add_step()
            case Evaluation():
                for name, value in record.metrics.items():
                    self._add(f"evaluation/{name}", value, record.step)
            case Reported():
                for name, value in record.metrics.items():
                    self._add(f"slot_{record.slot}/{name}", value, self._iterations // self._slots)
            case Notice():
                self._writer.add_text("notices", record.text, self._iterations // self._slots)

    def close(self) -> None:
        """Write out what is buffered."""
        if self._opened is not None:
            self._opened.close()

    def _add(self, name: str, value: float, step: int) -> None:
        """A point of a curve, where there is one to draw."""
        if math.isfinite(value):
            self._writer.add_scalar(name, value, step)

    def _add_step(self) -> None:
        """One point, the mean over as many iterations as there are slots."""
        count, step = len(self._step), self._iterations // self._slots
        losses = [i.loss for i in self._step if i.loss is not None]
        if losses:
            self._add("train/loss", sum(losses) / len(losses), step)
        self._add("train/lag", sum(i.lag for i in self._step) / count, step)
        self._add("train/compute_s", sum(i.compute_s for i in self._step) / count, step)
        self._add("train/wait_s", sum(i.wait_s for i in self._step) / count, step)
        self._add("train/clip_scale", self._step[-1].clip_scale, step)
        for group, lr in enumerate(self._step[-1].lr):
            self._add(f"train/lr/{group}", lr, step)
        for group, lr in enumerate(self._step[-1].inner_lr):
            self._add(f"train/inner_lr/{group}", lr, step)
        self._step.clear()

    @property
    def _writer(self) -> "SummaryWriter":
        if self._opened is None:
            from tensorboardX import SummaryWriter  # only here: its import takes longer than a small run

            self._opened = SummaryWriter(str(self._folder))
        return self._opened
