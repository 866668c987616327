"""One run, as its folder tells it: the settings, the figures, and the curves against the samples drawn."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psgd.errors import DataError
from psgd.runlog import FILE_NAME, Evaluation, Footer, Header, Iteration, read

TRAIN_METRICS_NAME = "train_metrics.json"
"""Beside the log: what the final weights reach on the training set, names as in evaluations without ``test_``."""
POINTS = 100
"""Of a curve of the training loss, at most."""

Curve = tuple[tuple[int, float], ...]
"""(samples drawn, value), ascending; values are finite."""


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A complete run.

    Args:
        settings: the log's header.
        versions: of the software.
        figures: the log's footer.
        test: the curves of the evaluations, by the metric's name without ``test_``.
        final_test: the last evaluation's metrics, without ``test_``; what was NaN or Inf is left out.
        train_loss: the mean loss of the mini-batches, as training went on.
        final_train: the final weights' metrics on the training set; empty if nobody has measured them.
    """

    settings: dict[str, Any]
    versions: dict[str, str]
    figures: dict[str, Any]
    test: dict[str, Curve] = field(default_factory=dict)
    final_test: dict[str, float] = field(default_factory=dict)
    train_loss: Curve = ()
    final_train: dict[str, float] = field(default_factory=dict)

    @property
    def diverged(self) -> bool:
        """Whether its losses have ended as NaN or Inf, which a log holds as null."""
        untold = "loss" in self.test and "loss" not in self.final_test
        return untold or self.figures.get("train_loss") is None


def read_run(folder: Path) -> RunFigures | None:
    """The figures of the run in a folder.

    Returns:
        None if there is no run, or one that has not come to its end.

    Raises:
        DataError: if a file is damaged.
    """
    if not (folder / FILE_NAME).is_file():
        return None
    records = list(read(folder))
    if not (records and isinstance(records[0], Header) and isinstance(records[-1], Footer)):
        return None
    header, footer = records[0], records[-1]
    drawn = samples_per_step(header.settings)
    evaluations = [record for record in records if isinstance(record, Evaluation)]
    return RunFigures(
        settings=header.settings,
        versions=header.versions,
        figures=footer.figures,
        test=_test_curves(evaluations, drawn),
        final_test=_finite(evaluations[-1].metrics) if evaluations else {},
        train_loss=_loss_curve([r for r in records if isinstance(r, Iteration)], drawn, header.settings.get("steps")),
        final_train=_read_train_metrics(folder),
    )


def samples_per_step(settings: dict[str, Any]) -> int:
    """How many samples the slots draw for one step, by the log's header: a mini-batch each, or several local steps.

    Example:
        >>> samples_per_step({"slots": 4, "batch_size": 32, "local_steps": {"steps": 8}})
        1024
    """
    local = settings.get("local_steps")
    mini_batches: int = 1 if local is None else local["steps"]
    each: int = settings["slots"] * settings["batch_size"]
    return mini_batches * each


def _test_curves(evaluations: Sequence[Evaluation], drawn: int) -> dict[str, Curve]:
    names = {name for evaluation in evaluations for name in evaluation.metrics}
    return {
        name.removeprefix("test_"): tuple(
            (evaluation.step * drawn, evaluation.metrics[name])
            for evaluation in evaluations
            if _is_finite(evaluation.metrics.get(name))
        )
        for name in sorted(names)
    }


def _loss_curve(iterations: Iterable[Iteration], drawn: int, budget: int | None) -> Curve:
    """Means over equally long pieces of the run, the same ones for every run of a budget.

    A slot's own clock tells which piece an iteration belongs to; on arrival a fast slot runs beyond the budget's steps
    as others stay behind them.
    """
    losses = [(record.step, record.loss) for record in iterations if record.loss is not None]
    steps = budget or max((step for step, _ in losses), default=-1) + 1
    pieces = min(POINTS, steps)
    sums = [[0.0, 0] for _ in range(pieces)]
    for step, loss in losses:
        piece = sums[min(step * pieces // steps, pieces - 1)]
        piece[0] += loss
        piece[1] += 1
    ends = (((piece + 1) * steps // pieces) * drawn for piece in range(pieces))
    return tuple((end, total / count) for end, (total, count) in zip(ends, sums, strict=True) if count)


def _read_train_metrics(folder: Path) -> dict[str, float]:
    file = folder / TRAIN_METRICS_NAME
    if not file.is_file():
        return {}
    try:
        return _finite(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, AttributeError) as error:
        raise DataError(
            f"{file}: expected metrics as JSON, got {error}; remove it to have them measured again"
        ) from None


def _finite(metrics: dict[str, Any]) -> dict[str, float]:
    return {name.removeprefix("test_"): value for name, value in metrics.items() if _is_finite(value)}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
