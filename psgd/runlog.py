"""The schema of a run's log: JSON lines, one record each, told apart by ``kind``.

``run.jsonl`` begins with a `Header`, ends with a `Footer`; between them lie records in the order in which the driver
heard of them. Whoever reads a log (tables, plots, reports) needs this module and nothing else of psgd.
"""

import dataclasses
import json
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

from psgd.errors import DataError

FILE_NAME = "run.jsonl"
DISTRIBUTIONS = ("psgd", "torch", "numpy", "ray")
"""Whose versions a run's bits and speed depend on, besides Python's."""


Goal = Literal["min", "max"]

FALLING = ("loss", "rmse", "mse", "mae")
"""How the names of metrics end of which less is better."""


def goal_of(metric: str) -> Goal:
    """Whether a metric is to fall or to rise, by its name.

    >>> goal_of("test_rmse"), goal_of("test_accuracy")
    ('min', 'max')
    """
    return "min" if metric.endswith(FALLING) else "max"


@dataclass(frozen=True, slots=True)
class Header:
    """What was run: settings and versions."""

    settings: dict[str, Any]
    versions: dict[str, str]
    started_at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """One iteration of one slot, with its final answer.

    Args:
        time_s: seconds since the driver started the run.
        step: in rounds the step, on arrival the slot's own clock.
        loss: mean over the slot's batch, with local steps over all of its batches; None in an own loop whose ``step()``
            got no closure.
        status: the lead's verdict over the push, see `psgd.core.messages.Status`.
        lag: at the lead.
        lr: learning rates of the update, one a parameter group; with local steps the outer optimizer's.
        clip_scale: what the gradient that was applied was multiplied by for its global norm.
        compute_s: forward and backward, with what was injected.
        wait_s: for others, since the slot's previous iteration: for the grant, at the barrier, for the slots that share
            the worker.
        transfer_s: all else since then: pull and push on their way and in the shards' queues, and the update.
        bytes: of weights and gradients that the worker received and sent for it; weights that it reads in place, where
            the shard has them, count for nothing.
        inner_lr: learning rates of its local steps, one a parameter group; empty without such.
    """

    time_s: float
    worker: int
    slot: int
    step: int
    loss: float | None
    samples: int
    status: str
    lag: int
    version: int
    lr: tuple[float, ...]
    compute_s: float
    wait_s: float
    clip_scale: float = 1.0
    transfer_s: float = 0.0
    bytes: int = 0
    inner_lr: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the evaluator measured on a snapshot.

    Args:
        step: the boundary's step.
        versions: of the snapshot, indexed by shard.
        metrics: ``test_loss``, ``test_accuracy``, …
        decision: what follows from it, and why; takes effect at step ``effective_step``.
        lr_factor: of the schedule's learning rate, from then on.
        arrays: metrics that are more than one number: a value a class, a confusion matrix by rows.
    """

    time_s: float
    boundary: int
    step: int
    versions: tuple[int, ...]
    metrics: dict[str, float]
    seconds: float
    decision: str
    effective_step: int
    lr_factor: float = 1.0
    arrays: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reported:
    """What a user's own loop told with `psgd.report`."""

    time_s: float
    slot: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the user should know: a worker replaced, a deadline missed."""

    time_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Footer:
    """How the run ended: the figures that ``psgd train --json`` prints."""

    figures: dict[str, Any] = field(default_factory=dict)


Timed = Iteration | Evaluation | Reported | Notice
Record = Header | Timed | Footer


class Observer(Protocol):
    """Is told every record of a run, in the driver, as it comes in."""

    def __call__(self, record: Record, /) -> None:
        """Take the record."""

    def close(self) -> None:
        """The run has ended, well or not: let go of files and the terminal."""


KINDS: dict[str, Callable[..., Record]] = {
    kind.__name__.lower(): kind for kind in (Header, Iteration, Evaluation, Reported, Notice, Footer)
}


def versions() -> dict[str, str]:
    """The versions of Python and of the installed `DISTRIBUTIONS`, for the header."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # psgd run from its source tree
            found[name] = "unknown"
    return found


def encode(record: Record) -> str:
    """One line of JSON, without the line's end; a number that is NaN or Inf becomes null.

    >>> encode(Notice(1.5, "worker 1 replaced"))
    '{"kind": "notice", "time_s": 1.5, "text": "worker 1 replaced"}'
    """
    fields = {"kind": type(record).__name__.lower()}
    fields |= {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    try:
        return json.dumps(fields, allow_nan=False)
    except ValueError:  # it happens to few records, and to look for it takes longer than to write
        return json.dumps(finite(fields), allow_nan=False)


def finite(value: Any) -> Any:
    """The value with None for NaN and Inf, which JSON has not, however deep they lie."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decode(line: str) -> Record:
    """The record of one line.

    Raises:
        DataError: if the line is no record of this schema.
    """
    try:
        fields = json.loads(line)
        kind = KINDS[fields.pop("kind")]
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not a record of a run log: {line[:80]!r} ({error})") from error


def read(path: Path) -> Iterator[Record]:
    """The records of a log file, or of the folder that holds it.

    A last line without its end (the writer was killed) is left out.

    Raises:
        DataError: if there is no log, or a line is no record.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"no run log at {file}: expected a {FILE_NAME} that psgd train --out wrote")
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield decode(line)
