"""From options to a Trainer: every name is looked up, every text read, and nothing is started."""

import dataclasses
import re
import sys
from collections.abc import Mapping
from functools import lru_cache, partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from psgd.cli.train_config import EPOCHS, TrainConfig
from psgd.cli.values import Entries, convert, parse_metric_value
from psgd.config import Clip, ModelFactory, Placement, Straggler
from psgd.core.local_steps import NUMBER
from psgd.data.datasets import ArrayDataset, Split, load
from psgd.durations import parse_duration
from psgd.errors import ConfigurationError
from psgd.trainer import Trainer
from psgd.training.callbacks import Callback
from psgd.training.groups import Groups, spare, undecayed
from psgd.training.losses import resolve_loss
from psgd.training.models import resolve_model
from psgd.training.names import unknown_argument
from psgd.training.optimizers import ConfiguredOptimizer, resolve_optimizer
from psgd.training.policies import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau, StopAfter, StopAtTarget
from psgd.training.schedules import resolve_schedule

STRAGGLER = re.compile(r"(?P<slot>\d+|\*):(?:(?P<factor>\d+(?:\.\d+)?)x|(?P<delay>.+))")
EVERY_SLOT = "*"


def build_trainer(config: TrainConfig) -> Trainer:
    """The run that the options stand for.

    Raises:
        ConfigurationError: if a name is unknown or a value can not be run.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # a model of the user's own lies where psgd is called
    data_dir = _absolute(config.data_dir)
    split = _split(config.data, data_dir)
    model = resolve_model(config.model, split.shape, split.outputs)
    return Trainer(
        model=model,
        optimizer=build_optimizer(config, model),
        lr_scheduler=resolve_schedule(config.schedule, config.schedule_args, config.warmup_steps),
        train_data=partial(load_train, config.data, data_dir, config.limit, config.seed),
        val_data=partial(load_test, config.data, data_dir),
        loss=resolve_loss(config.loss or ("mse" if split.regression else "cross-entropy"), config.loss_args),
        metrics=list(config.metrics) or None,
        clip=_clip(config),
        on_nonfinite=config.on_nonfinite,
        mode=config.choose_mode(),
        correction=config.choose_correction(),
        local_steps=config.choose_local_steps(),
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
        layout=config.layout,
        overlap=config.overlap,
        stragglers=[parse_straggler(text) for text in config.straggler],
        callbacks=_callbacks(config),
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


def usual_metric(config: TrainConfig) -> str:
    """What tells most about a run on the data, as evaluations name it.

    Raises:
        ConfigurationError: if there is no such data.
    """
    return "test_rmse" if _split(config.data, _absolute(config.data_dir)).regression else "test_accuracy"


def build_optimizer(config: TrainConfig, model: ModelFactory) -> ConfiguredOptimizer:
    """The optimizer with its parameter groups and regularization.

    Raises:
        ConfigurationError: if it is unknown, or does not take what it is given.
    """
    groups = read_groups(config.groups)
    resolve = partial(
        resolve_optimizer,
        config.optimizer,
        config.lr,
        config.optimizer_args,
        l1=config.l1,
        l2=config.l2,
        decay=config.decay,
    )
    if config.decay_biases:
        return resolve(groups=groups)
    with torch.random.fork_rng():
        made = model()
    spared = {option: 0.0 for option in ("weight_decay", "l2", "decay") if option in _options(resolve(groups=groups))}
    names = [name for name, parameter in made.named_parameters() if parameter.requires_grad]
    return resolve(groups=spare(groups, names, [name for name in undecayed(made) if name in names], spared))


def _options(optimizer: ConfiguredOptimizer) -> Mapping[str, Any]:
    """What groups of the optimizer may differ in."""
    return optimizer([("weight", nn.Parameter(torch.zeros(2, 2)))]).defaults


def read_groups(entries: Entries) -> Groups:
    """Patterns and the options of what they match, from the command line or from YAML.

    Raises:
        ConfigurationError: if the options are none.

    Example:
        >>> read_groups(Entries({"*bias": "weight_decay=0,lr=0.5"}))
        {'*bias': {'weight_decay': 0, 'lr': 0.5}}
    """
    return {pattern: convert(f"groups {pattern}", dict[str, Any], options) for pattern, options in entries.items()}


def _clip(config: TrainConfig) -> Clip | None:
    limits = (config.clip_norm, config.clip_value, config.clip_tensor_norm)
    return None if limits == (None, None, None) else Clip(*limits)


def _callbacks(config: TrainConfig) -> list[Callback]:
    monitor, mode = config.monitor or "test_loss", config.monitor_mode
    callbacks: list[Callback] = []
    if config.patience is not None:
        callbacks.append(EarlyStopping(monitor, config.patience, mode))
    if config.until is not None:
        callbacks.append(StopAtTarget(*parse_metric_value("until", config.until)))
    if config.max_seconds is not None:
        callbacks.append(StopAfter(config.max_seconds))
    if config.plateau is not None:
        known = [name for name in signature(ReduceLROnPlateau).parameters if name not in ("monitor", "mode")]
        for name in config.plateau:
            if name not in known:
                raise unknown_argument("plateau", name, known)
        callbacks.append(ReduceLROnPlateau(monitor, mode, **config.plateau))
    if config.keep_best:
        callbacks.append(ModelCheckpoint(monitor, mode))
    return callbacks


def _absolute(folder: str | None) -> str | None:
    """The folder as other processes find it, too."""
    return None if folder is None else str(Path(folder).absolute())


@lru_cache(maxsize=1)
def _split(data: str, data_dir: str | None) -> Split:
    return load(data, data_dir)


def load_train(data: str, data_dir: str | None, limit: int | None, seed: int) -> ArrayDataset:
    """The samples to train with; read once a process.

    Args:
        limit: so many of them, drawn with the seed; None: all.

    Raises:
        ConfigurationError: if there are not so many.
    """
    samples = _split(data, data_dir).train
    if limit is None:
        return samples
    if limit > len(samples):
        raise ConfigurationError(f"limit must be <= {len(samples)}, the training samples of {data}, got {limit}")
    drawn = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[:limit]
    return samples.subset(drawn)


def load_test(data: str, data_dir: str | None) -> ArrayDataset:
    """The samples to test with; read once a process."""
    return _split(data, data_dir).test


def parse_straggler(text: str) -> Straggler:
    """A slot, or each of them, and how much it is slowed: ``1:3x``, ``1:50ms``, ``*:exp:50ms``.

    Raises:
        ConfigurationError: if the text says something else; a number without its unit might be either.

    Example:
        >>> parse_straggler("*:exp:50ms").delay.mean
        0.05
    """
    match = STRAGGLER.fullmatch(text)
    if match is None or re.fullmatch(NUMBER, match["delay"] or ""):
        raise ConfigurationError(
            f"straggler must be SLOT:3x, SLOT:50ms or at random SLOT:exp:50ms, with * for every slot; got {text!r}"
        )
    slot = None if match["slot"] == EVERY_SLOT else int(match["slot"])
    if match["factor"]:
        return Straggler(slot, factor=float(match["factor"]))
    try:
        return Straggler(slot, parse_duration(match["delay"]))
    except ConfigurationError as error:
        raise ConfigurationError(f"straggler {text!r}: {error}") from None
