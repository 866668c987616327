"""``psgd train``: options in, a run, figures out."""

import dataclasses
import re
import sys
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from psgd.cli.figures import print_figures
from psgd.cli.train_config import EPOCHS, TrainConfig
from psgd.config import Placement, Straggler
from psgd.data.datasets import ArrayDataset, Split, load
from psgd.errors import ConfigurationError
from psgd.planning import Plan
from psgd.trainer import Trainer
from psgd.training.callbacks import EarlyStopping
from psgd.training.models import resolve_model
from psgd.training.optimizers import resolve_optimizer
from psgd.training.schedules import resolve_schedule

STRAGGLER = re.compile(r"(?P<slot>\d+):(?:(?P<factor>\d+(?:\.\d+)?)x|(?P<delay_ms>\d+(?:\.\d+)?)ms)")


def run(config: TrainConfig) -> None:
    """Train as the options say.

    Raises:
        ConfigurationError: if they can not be run; nothing has been started or written then.
        PsgdError: if the run has failed.
    """
    trainer = build_trainer(config)
    plan = trainer.plan()
    if config.dry_run:
        print_figures(describe_plan(plan), config.json)
        return
    try:
        print_figures(trainer.run(plan).figures, config.json)
    finally:
        if plan.out is not None and plan.out.exists():  # also what an interrupted run has logged
            print(f"psgd: the run is in {plan.out}", file=sys.stderr)


def build_trainer(config: TrainConfig) -> Trainer:
    """The run that the options stand for.

    Raises:
        ConfigurationError: if a name is unknown or a value can not be run.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # a model of the user's own lies where psgd is called
    data_dir = None if config.data_dir is None else str(Path(config.data_dir).absolute())
    split = _split(config.data, data_dir)
    return Trainer(
        model=resolve_model(config.model, split.shape, split.classes),
        optimizer=resolve_optimizer(config.optimizer, config.lr, config.optimizer_args),
        lr_scheduler=resolve_schedule(config.schedule, config.schedule_args),
        train_data=partial(load_train, config.data, data_dir),
        val_data=partial(load_test, config.data, data_dir),
        mode=config.choose_mode(),
        workers=config.workers,
        slots=config.slots,
        shards=config.shards,
        batch_size=config.batch_size,
        epochs=EPOCHS if config.epochs is None and config.steps is None else config.epochs,
        steps=config.steps,
        evaluate_every=config.evaluate_every,
        seed=config.seed,
        accumulate=config.accumulate,
        precision=config.precision,
        threads=config.threads,
        overlap=config.overlap,
        stragglers=[parse_straggler(text) for text in config.straggler],
        callbacks=[] if config.patience is None else [EarlyStopping(patience=config.patience)],
        warm_start=config.warm_start,
        plane=config.plane,
        wire=config.wire,
        shard_device=config.shard_device,
        placement=Placement(
            cpus_per_worker=config.cpus_per_worker,
            gpus_per_worker=(config.gpus_per_worker or 1.0) if config.use_gpu else 0.0,
            gpus_per_shard=config.gpus_per_shard or 0.0,
            strategy="PACK" if config.placement == "pack" else "SPREAD",
        ),
        out="auto" if config.out is None else config.out,
        labels={"options": dataclasses.asdict(config)},
    )


@lru_cache(maxsize=1)
def _split(data: str, data_dir: str | None) -> Split:
    return load(data, data_dir)


def load_train(data: str, data_dir: str | None) -> ArrayDataset:
    """The samples to train with; read once a process."""
    return _split(data, data_dir).train


def load_test(data: str, data_dir: str | None) -> ArrayDataset:
    """The samples to test with; read once a process."""
    return _split(data, data_dir).test


def parse_straggler(text: str) -> Straggler:
    """A slot and how much it is slowed.

    Raises:
        ConfigurationError: if the text says neither.

    Example:
        >>> parse_straggler("1:50ms")
        Straggler(slot=1, delay_s=0.05, factor=1.0)
    """
    match = STRAGGLER.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"straggler must be SLOT:3x or SLOT:50ms, got {text!r}")
    slot = int(match["slot"])
    if match["factor"]:
        return Straggler(slot, factor=float(match["factor"]))
    return Straggler(slot, delay_s=float(match["delay_ms"]) / 1000)


def describe_plan(plan: Plan) -> dict[str, Any]:
    """What a run would be."""
    job, rules = plan.job, plan.job.rules
    batch = job.training.batch_size * rules.slots
    return {
        "mode": plan.settings["mode"],
        "workers": job.workers,
        "slots": rules.slots,
        "steps": rules.steps,
        "samples": None if rules.steps is None else rules.steps * batch,
        "evaluate_every": rules.evaluate_every,
        "tensors": len(job.layout.tensors),
        "parameters": sum(spec.elements for spec in job.layout.tensors),
        "layout": plan.settings["layout"],
        "bytes_a_shard": [part.bytes for part in job.parts()],
        "plane": job.plane,
        "wire": job.wire,
        "shard_device": job.shard_device,
        "out": None if plan.out is None else str(plan.out),
    }
