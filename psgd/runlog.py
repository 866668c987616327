"""The schema of a run's log: JSON lines, one record each, told apart by ``kind``.

``run.jsonl`` begins with a `Header`, ends with a `Footer`; between them lie records in the order in which the driver
heard of them. Whoever reads a log (tables, plots, reports) needs this module and nothing else of psgd.
"""

import dataclasses
import json
import math
import platform
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

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
        clip_scale: what the gradient that was applied was multiplied by for its global norm; 1 with local steps, where
            slots clip the gradients of the inner ones.
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


def _is_number(value: Any) -> bool:
    return type(value) in (float, int)  # isinstance takes longer, and takes true for one


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_named(value: Any) -> bool:
    return isinstance(value, dict)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_number_or_none, value))


def _are_numbers_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number_or_none, value.values()))


Rule = tuple[Callable[[Any], bool], str]
"""Whether a value is what it must be, and that in words."""
NUMBER: Rule = _is_number, "a number"
COUNT: Rule = _is_count, "a whole number >= 0"
NAMED: Rule = _is_named, "values by name"
TIMES_AND_AMOUNTS = ("time_s", "samples", "lag", "version", "compute_s", "wait_s", "transfer_s", "bytes")
RULES: Mapping[type[Record], Mapping[str, Rule]] = {
    Header: {"settings": NAMED},
    Iteration: {
        **dict.fromkeys(TIMES_AND_AMOUNTS, NUMBER),
        **dict.fromkeys(("slot", "step"), COUNT),
        "loss": (_is_number_or_none, "a number or null"),
        **dict.fromkeys(("lr", "inner_lr"), (_are_numbers, "a list of numbers")),
    },
    Evaluation: {
        **dict.fromkeys(("time_s", "seconds"), NUMBER),
        "step": COUNT,
        "metrics": (_are_numbers_by_name, "numbers by name"),
    },
    Footer: {"figures": NAMED},
}
"""What readers compute with, and what it must be for that; what was NaN or Inf is None."""


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"a log has null for {constant}")


DECODER = json.JSONDecoder(parse_constant=_refuse)


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
        fields = DECODER.decode(line)
        kind = KINDS[fields.pop("kind")]
        record = kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
        _check(record)
        return record
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not a record of a run log: {line[:80]!r} ({error})") from error


def _check(record: Record) -> None:
    for name, (fits, wanted) in RULES.get(type(record), {}).items():
        value = getattr(record, name)
        if not fits(value):
            raise ValueError(f"{name} must be {wanted}, got {reprlib.repr(value)}")


def decode_line(file: Path, number: int, line: bytes) -> Record | None:
    """The record of a line of a log file; None if the line has no end, as its writer was killed.

    Args:
        number: of the line, from 1.

    Raises:
        DataError: if the line is no record; the message names file and line.
    """
    if not line.endswith(b"\n"):
        return None
    try:
        return decode(line.decode())
    except UnicodeDecodeError as error:
        words = f"not a record of a run log: {line[:80].decode(errors='replace')!r} ({error})"
        raise DataError(f"{file}, line {number}: {words}") from error
    except DataError as error:
        raise DataError(f"{file}, line {number}: {error}") from error


def read(path: Path) -> Iterator[Record]:
    """The records of a log file, or of the folder that holds it.

    A last line without its end (the writer was killed) is left out.

    Raises:
        DataError: if there is no log, or a line is no record.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"no run log at {file}: expected a {FILE_NAME} that psgd train --out wrote")
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            record = decode_line(file, number, line)
            if record is not None:
                yield record
