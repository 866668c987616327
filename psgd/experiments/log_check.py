"""Whether a log says what timings are computed from, beyond what makes it a log: else it is refused."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psgd.core.modes import Async, Sync
from psgd.data.sampler import SEED_LIMIT
from psgd.errors import ConfigurationError
from psgd.runlog import NAMED, NUMBER, Evaluation, Footer, Header, Iteration, Record, Rule

LONGEST_S = 1e100
"""Seconds are squared and added up."""


def check_log(records: Sequence[Record], run: Path) -> dict[str, Any]:
    """Refuse what can not be computed with.

    Args:
        records: all of the log, a line each.
        run: that they are of.

    Returns:
        The settings of the header.

    Raises:
        ConfigurationError: names the line, the value, and what it must be.
    """
    if not records or not isinstance(records[0], Header):
        raise ConfigurationError(f"RUN must be a log that begins with its header, got {run}")
    settings = records[0].settings
    if settings.get("own_loop"):
        raise ConfigurationError(
            f"RUN must be of the built-in loop, got {run}: nobody has measured what a loop of one's own computes"
        )
    _check(settings, SETTINGS, 1, run)
    _check(settings, OF_MODE[settings["mode"]], 1, run)
    _check(settings, _of_those(settings, OPTIONAL), 1, run)
    of_iterations = ITERATION | {"slot": _one_of(range(settings["slots"]))}
    for line, record in enumerate(records, start=1):
        match record:
            case Iteration():
                _check({name: getattr(record, name) for name in of_iterations}, of_iterations, line, run)
            case Evaluation():
                _check({"seconds": record.seconds}, {"seconds": SECONDS}, line, run)
            case Footer():
                _check(record.figures, _of_those(record.figures, FIGURES), line, run)
    return settings


def _check(values: Mapping[str, Any], rules: Mapping[str, Rule], line: int, run: Path) -> None:
    for name, (holds, words) in rules.items():
        if name not in values or not holds(values[name]):
            got = json.dumps(values[name])[:80] if name in values else "none"
            raise ConfigurationError(
                f"RUN must be a log as psgd writes it: {name} must be {words}, got {got} on line {line} of {run}; "
                "the log is damaged or of something else, take another run"
            )


def _of_those(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rules of the values that are there."""
    return {name: rule for name, rule in rules.items() if name in values}


# ------------------------------------------------------------------ rules


def _whole(least: int) -> Rule:
    return lambda value: type(value) is int and least <= value < SEED_LIMIT, f"a whole number >= {least} of 64 bits"


def _one_of(allowed: range) -> Rule:
    return lambda value: type(value) is int and value in allowed, f"in 0 … {allowed.stop - 1}"


def _or_null(rule: Rule) -> Rule:
    holds, words = rule
    return lambda value: value is None or holds(value), f"{words} or null"


def _object(fields: Mapping[str, Rule]) -> Rule:
    def holds(value: Any) -> bool:
        return isinstance(value, dict) and all(name in value and rule[0](value[name]) for name, rule in fields.items())

    return holds, f"an object with {', '.join(f'{name} ({words})' for name, (_, words) in fields.items())}"


def _list_of(rule: Rule) -> Rule:
    return lambda value: isinstance(value, list) and all(map(rule[0], value)), f"a list, each {rule[1]}"


TEXT: Rule = (lambda value: isinstance(value, str), "text")
SECONDS: Rule = (lambda value: NUMBER[0](value) and 0 <= value <= LONGEST_S, f"a number in 0 … {LONGEST_S:g}")
STRAGGLER = _object({"slot": _or_null(_whole(0)), "delay": TEXT, "factor": NUMBER})
LOCAL_STEPS = _object({"steps": _whole(1), "lr": NUMBER, "momentum": NUMBER})
SETTINGS: Mapping[str, Rule] = {
    "mode": (lambda value: value in (Sync.name, Async.name), f"{Sync.name} or {Async.name}"),
    **dict.fromkeys(("slots", "shards", "workers", "batch_size"), _whole(1)),
    "seed": _whole(0),
    "stragglers": _list_of(STRAGGLER),
}
OF_MODE: Mapping[str, Mapping[str, Rule]] = {
    Sync.name: {"backups": _whole(0)},
    Async.name: {"staleness": _or_null(_whole(0))},
}
OPTIONAL: Mapping[str, Rule] = {
    "gather": _whole(1),
    "bytes": _whole(0),
    "clip_norm": _or_null(NUMBER),
    "local_steps": _or_null(LOCAL_STEPS),
    "options": _or_null(NAMED),
}
"""Settings that a log has or not, by its age and origin."""
FIGURES: Mapping[str, Rule] = {"steps": _whole(0)}
ITERATION: dict[str, Rule] = {
    **dict.fromkeys(("time_s", "compute_s", "wait_s", "transfer_s"), SECONDS),
    "lag": _whole(0),
}
