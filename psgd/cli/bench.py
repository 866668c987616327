"""``psgd bench``: options in, measurements, figures out; how far it is goes to stderr."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from psgd.analysis.drawing import check_drawable
from psgd.bench.case import StepCase
from psgd.bench.plane import measure_plane
from psgd.bench.scale import grow
from psgd.bench.scale_picture import draw
from psgd.bench.step import compare
from psgd.bench.training import TrainingCase, compare_throughput
from psgd.cli.bench_config import PlaneConfig, ScaleConfig, StepConfig, ThroughputConfig, steps_for
from psgd.cli.figures import print_figures
from psgd.data.datasets import load
from psgd.training.models import resolve_model
from psgd.training.optimizers import resolve_optimizer


def run(config: StepConfig | ThroughputConfig | PlaneConfig | ScaleConfig) -> None:
    """Measure what the options say.

    Raises:
        ConfigurationError: if they can not be run.
        PsgdError: if a measurement has failed.
    """
    print_figures(_measure(config), config.json)


def _measure(config: StepConfig | ThroughputConfig | PlaneConfig | ScaleConfig) -> dict[str, Any]:
    match config:
        case StepConfig():
            return compare(_step_case(config), config.peers or (), config.rounds, tell)
        case ThroughputConfig():
            return compare_throughput(_training_case(config), config.rounds, tell)
        case PlaneConfig():
            return measure_plane(config.plane, config.mbytes, config.rounds, config.warmup, tell)
        case ScaleConfig():
            return _grow(config)


def _grow(config: ScaleConfig) -> dict[str, Any]:
    """Measure the series, and draw them."""
    target = None if config.draw is None else Path(config.draw)
    if target is not None:
        check_drawable(target)
    figures = grow(_series(config), tell)
    if target is not None:
        draw(figures, target)
        tell(f"the picture is {target}")
    return figures


def _step_case(config: StepConfig) -> StepCase:
    return StepCase(
        params=config.params,
        tensors=config.tensors,
        workers=config.workers,
        shards=config.shards,
        warmup=config.warmup,
        steps=steps_for(config.steps, config.params),
        mode=config.mode,
        use_gpu=config.use_gpu,
        shard_device=config.shard_device,
        trainer_options=config.trainer_options,
    )


def _series(config: ScaleConfig) -> dict[str, list[StepCase]]:
    base = StepCase(
        params=config.base_params,
        tensors=config.tensors,
        workers=config.base_workers,
        shards=config.base_shards,
        warmup=config.warmup,
        steps=steps_for(config.steps, config.base_params),
        trainer_options=config.trainer_options,
    )
    return {
        "workers": [replace(base, workers=number) for number in config.numbers("workers")],
        "shards": [replace(base, shards=number) for number in config.numbers("shards")],
        "params": [
            replace(base, params=number, steps=steps_for(config.steps, number)) for number in config.numbers("params")
        ],
    }


def _training_case(config: ThroughputConfig) -> TrainingCase:
    split = load(config.data, config.data_dir)
    return TrainingCase(
        data=config.data,
        data_dir=config.data_dir,
        model=resolve_model(config.model, split.shape, split.outputs),
        optimizer=resolve_optimizer(config.optimizer, config.lr, {}),
        workers=config.workers,
        shards=config.shards,
        batch_size=config.batch_size,
        warmup=config.warmup,
        steps=config.steps,
        trainer_options=config.trainer_options,
    )


def tell(line: str) -> None:
    """Say how far we are."""
    print("psgd bench:", line, file=sys.stderr, flush=True)
