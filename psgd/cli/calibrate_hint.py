"""What can be done with a calibrated world: the options of its run beside it, and a command that is not refused."""

import dataclasses
import math
import re
import shlex
from pathlib import Path
from typing import Any

from psgd.cli.building import EVERY_SLOT, load_train
from psgd.cli.compare_config import CompareConfig
from psgd.cli.train_config import TrainConfig
from psgd.cli.world_config import default_of
from psgd.config import Straggler
from psgd.core.local_steps import NUMBER
from psgd.core.modes import Async, Sync
from psgd.durations import NONE
from psgd.errors import ConfigurationError, DataError
from psgd.experiments.timings import RunTimings
from psgd.simulation.timing import ITEM_BYTES
from psgd.simulation.world import World

OF_THE_CALL = ("out", "json", "dry_run", "plot", "plane")
"""Options of a training that say how it was called, or how tensors travelled: a simulation has its own."""
NODES = 64
"""Of the simulation that is suggested, if the run had not nearly as many and the data allow."""
MODES = "sync,async:4,async"


def run_options(run: RunTimings) -> dict[str, Any]:
    """The options that the run was made with, as its log tells them; none if it was made by a program."""
    if run.settings.get("gradients") == "none":
        return _without_gradients(run)
    said = run.settings.get("options") or {}
    known = [each.name for each in dataclasses.fields(TrainConfig) if each.name not in OF_THE_CALL]
    return {name: said[name] for name in known if name in said}


def _without_gradients(run: RunTimings) -> dict[str, Any]:
    """Of ``psgd simulate --gradients none``, whose log tells the job rather than options."""
    job, rules = run.job, run.job.rules
    told: dict[str, Any] = {"gradients": "none", "mode": rules.mode.name}
    match rules.mode:
        case Sync(backups=backups):
            told["backups"] = backups or None
        case Async(staleness=staleness, gather=gather):
            told |= {"staleness": staleness, "gather": gather if gather > 1 else None}
    if rules.local_steps is not None:
        local = rules.local_steps
        told |= {"local_steps": local.steps, "outer_lr": local.lr, "outer_momentum": local.momentum}
    return told | {
        "workers": job.workers,
        "slots": None if rules.slots == job.workers else rules.slots,
        "shards": rules.shards,
        "parameters": run.settings.get("bytes", 0) // ITEM_BYTES,
        "clip_norm": run.settings.get("clip_norm"),
        "batch_size": job.batch_size,
        "steps": rules.steps,
        "seed": job.seed,
        "straggler": [text for each in job.stragglers for text in _as_texts(each)],
    }


def _as_texts(straggler: Straggler) -> list[str]:
    """A straggler as `psgd.cli.building.parse_straggler` reads it, once for each way in which it is slowed."""
    slot = EVERY_SLOT if straggler.slot is None else str(straggler.slot)
    texts = [] if straggler.factor == 1 else [f"{slot}:{straggler.factor}x"]
    if straggler.delay != NONE:
        delay = str(straggler.delay)
        texts.append(f"{slot}:{delay}{'s' if re.fullmatch(NUMBER, delay) else ''}")
    return texts


def hint(target: Path, world: World, slots: int, options: dict[str, Any], world_only: bool, trusted: bool) -> str:
    """A command for the file, and what it is good for: the same on more nodes, with a slot on each, or all modes.

    Args:
        slots: of the run.
        options: of the run that are in the file.
        world_only: whether the file is for comparisons.
        trusted: whether the world's simulation of the run is about right.
    """
    named = 1 + max((slot for slot, _ in world.slots), default=-1)
    file = shlex.quote(str(target))
    if world_only:
        usual: int = default_of(CompareConfig, "workers")
        size = f" {_size(named, named, options)[1]}" if named > usual else ""
        return f"psgd compare --simulate --config {file} --modes {MODES}{size} compares modes in {_world(trusted)}"
    nodes, size = _size(max(NODES, 2 * slots), slots if options else max(named, 1), options)
    many = "" if options.get("slots") is None else f" --slots {nodes}"
    does = f"says what {nodes} nodes would do" if trusted else f"simulates {nodes} nodes in {_world(trusted)}"
    return f"psgd simulate --config {file} {size}{many} {does}"


def _world(trusted: bool) -> str:
    return "it" if trusted else "it, which is not to be trusted"


def _size(wanted: int, least: int, options: dict[str, Any]) -> tuple[int, str]:
    """How many nodes, and the words for that: as many as the data have batches for, else as few with smaller ones."""
    samples, batch_size = _samples(options), options.get("batch_size", default_of(TrainConfig, "batch_size"))
    nodes = int(min(wanted, samples / batch_size))
    if nodes >= least:
        return nodes, f"--workers {nodes}"
    return least, f"--workers {least} --batch-size {max(int(samples // least), 1)}"


def _samples(options: dict[str, Any]) -> float:
    """To train with; no limit where nothing is trained, or the data are not here."""
    if options.get("gradients") == "none":
        return math.inf
    data, data_dir, limit, seed = (
        options.get(name, default_of(TrainConfig, name)) for name in ("data", "data_dir", "limit", "seed")
    )
    try:
        return len(load_train(data, data_dir, limit, seed))
    except (ConfigurationError, DataError):
        return math.inf
