"""``psgd simulate``: options in, a run in virtual time, figures out."""

import dataclasses
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psgd.cli.building import build_trainer, parse_straggler
from psgd.cli.figures import print_figures
from psgd.cli.simulate_config import SimulateConfig
from psgd.cli.train import describe_plan
from psgd.cli.world import build_world
from psgd.core.modes import Rules
from psgd.errors import ConfigurationError
from psgd.planning import check_folder, describe_timing, new_folder
from psgd.running import run_without_gradients
from psgd.simulation.timing import TimingJob

STEPS = 100
"""Iterations a slot where nothing is said, without gradients."""


def run(config: SimulateConfig) -> None:
    """Simulate as the options say.

    Raises:
        ConfigurationError: if they can not be run; nothing has been started or written then.
        PsgdError: if the run has failed.
    """
    out = new_folder("simulate", datetime.now(UTC)) if config.out is None else Path(config.out)
    figures = _train(config, out) if config.gradients == "real" else _time(config, out)
    print_figures(figures, config.json)
    if not config.dry_run:
        print(f"psgd: the run is in {out}; psgd report {out} draws it", file=sys.stderr)


def _train(config: SimulateConfig, out: Path) -> dict[str, Any]:
    """With real gradients: a training like any other, in another world."""
    steps = config.steps if config.iterations is None else config.iterations
    trainer = build_trainer(dataclasses.replace(config, steps=steps, iterations=None))
    trainer = dataclasses.replace(trainer, world=build_world(config), out=out)
    plan = trainer.plan()
    if config.dry_run:
        return {**describe_plan(plan), "plane": "simulated", "world": _in_words(plan.settings["world"])}
    return _as_virtual(trainer.run(plan).figures)


def _time(config: SimulateConfig, out: Path) -> dict[str, Any]:
    """Without gradients."""
    if config.workers < 1:  # said before slots, which follow from it, are refused
        raise ConfigurationError(f"workers must be >= 1, got {config.workers}")
    slots = config.workers if config.slots is None else config.slots
    steps = next(length for length in (config.iterations, config.steps, STEPS) if length is not None)
    rules = Rules(
        config.choose_mode(),
        slots,
        config.shards,
        steps,
        clip_norm=config.clip_norm,
        local_steps=config.choose_local_steps(),
    )
    job = TimingJob(
        rules,
        config.workers,
        config.batch_size,
        config.parameters,
        tuple(parse_straggler(text) for text in config.straggler),
        config.seed,
    )
    world = build_world(config)
    check_folder(out)
    if config.dry_run:
        return {**describe_timing(job, world), "world": _in_words(world.describe())}
    with _rare_collections():
        return _as_virtual(run_without_gradients(job, world, out, progress=True))


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Hundreds of thousands of records stay, and make no cycles: looking for some costs a few per cent of the time."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _as_virtual(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures, with their seconds named for what they are."""
    return {("virtual_seconds" if name == "seconds" else name): value for name, value in figures.items()}


def _in_words(world: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in world.items() if value not in (None, "0", {}))
