"""A `Trainer` as what a ``ray.tune.Tuner`` runs: trials that report each evaluation and reserve all they need."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, NoReturn, cast

import ray
from ray import tune

from psgd.cluster.resources import Bundle, Need
from psgd.errors import InternalError
from psgd.result import Result
from psgd.runlog import Evaluation
from psgd.trainer import Trainer
from psgd.training.callbacks import Callback
from psgd.training.names import unknown

MakeTrainer = Callable[[dict[str, Any]], Trainer]
"""From what a search has chosen to the run that it stands for."""

Report = Callable[[dict[str, Any]], None]

SCALE = ("workers", "shards", "threads", "plane", "shard_device", "placement", "scaling_config")
"""The fields of a Trainer that say what it reserves."""

ROUNDING = 1e-6
"""Ten tenths of a CPU are one."""

LEAST: Bundle = {"CPU": 1.0}
"""What a trial holds that can not be run, and is going to say why."""


def as_trainable(trainer: Trainer | MakeTrainer) -> Callable[[dict[str, Any]], None]:
    """What a ``ray.tune.Tuner`` takes, with the resources of each trial attached.

    A trial reserves the room of all its shards and workers before it starts, so trials that run at the same time never
    wait for each other's half; with plane ``memory`` it computes in its own process, on ``threads`` CPUs. It reports at
    every evaluation, and once more at its end, where ``final`` is true: the metrics, ``step``, ``evaluation`` (counted
    from 1) and ``seconds``.
    Trials show no progress, and write nothing unless ``out`` or ``run_config`` names a folder.

    Args:
        trainer: one whose fields a trial's config replaces, or a function from the config to one.

    Raises:
        ConfigurationError: in a trial whose config names what is no field of the Trainer, or can not be run.

    Example:
        >>> import psgd, torch
        >>> from ray import tune
        >>> data = torch.utils.data.TensorDataset(torch.eye(8, 2), torch.arange(8) % 2)
        >>> def make(config):
        ...     return psgd.Trainer(
        ...         model=lambda: torch.nn.Linear(2, 2),
        ...         optimizer=lambda params: torch.optim.SGD(params, lr=config["lr"]),
        ...         train_data=data, val_data=data, batch_size=4, epochs=2, plane="memory",
        ...     )
        >>> tuner = tune.Tuner(
        ...     psgd.as_trainable(make),
        ...     param_space={"lr": tune.loguniform(1e-3, 1.0)},
        ...     tune_config=tune.TuneConfig(metric="test_loss", mode="min", num_samples=8),
        ... )
        >>> tuner.fit().get_best_result().config["lr"]  # doctest: +SKIP
        0.8
    """
    make = partial(_override, trainer) if isinstance(trainer, Trainer) else trainer
    scale = partial(_override_scale, _of_scale(trainer)) if isinstance(trainer, Trainer) else trainer
    # Whatever holds the data set is for the object store; what is reserved is asked of a trainer without it.
    trainable = tune.with_parameters(_train, make=make)
    return cast(Callable[[dict[str, Any]], None], tune.with_resources(trainable, partial(reservation, scale)))


def _train(config: dict[str, Any], make: MakeTrainer) -> None:
    attended(make(config), tune.report).fit()


def attended(trainer: Trainer, report: Report) -> Trainer:
    """The trainer as a trial runs it: it reports, is silent, and has no folder but one of the user's."""
    silent = replace(trainer, progress=False, callbacks=[*trainer.callbacks, Reporting(report)])
    return replace(silent, out=None) if trainer.out == "auto" and trainer.run_config is None else silent


class Reporting(Callback):
    """Reports each evaluation, and the end.

    Args:
        report: takes a flat dictionary; may end the run by raising.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._evaluations = 0

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Report it."""
        self._evaluations += 1
        self._tell(evaluation.metrics, evaluation.step, evaluation.time_s, final=False)

    def on_end(self, result: object) -> None:
        """Report the final metrics: those of the last evaluation, and the loss in training."""
        if not isinstance(result, Result):
            raise InternalError(f"a run ended with {type(result).__name__}")
        self._tell(result.metrics, result.figures["steps"], result.figures["seconds"], final=True)

    def _tell(self, metrics: Mapping[str, float], step: int, seconds: float, final: bool) -> None:
        where = {"step": step, "evaluation": self._evaluations, "seconds": seconds, "final": final}
        self._report({**metrics, **where})


def reservation(make: MakeTrainer, config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What the trial of a config reserves; of one that can not be run, or never fits, the trial will say why."""
    try:
        trainer = make(config)
        own, others, strategy = reserved_by(trainer)
    except Exception:  # of any kind, as the user's own function may be called; the trial calls it again
        return tune.PlacementGroupFactory([LEAST])
    if not fits([own, *others]):
        return tune.PlacementGroupFactory([LEAST])
    return tune.PlacementGroupFactory([own, *others], strategy=strategy)


def reserved_by(trainer: Trainer) -> tuple[Bundle, list[Bundle], str]:
    """What a trial's own process needs, what its shards and workers do, and how these are to be placed."""
    workers, placement = trainer.scale()
    if trainer.plane != "memory":
        return {}, Need(workers, trainer.shards, placement).bundles, placement.strategy
    gpu: Bundle = {"GPU": 1.0} if placement.gpus_per_worker > 0 or placement.gpus_per_shard > 0 else {}
    return {"CPU": float(trainer.threads), **gpu}, [], placement.strategy


def fits(bundles: Sequence[Bundle]) -> int:
    """How often the bundles fit into the cluster at the same time."""
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's own omission
    names = {name for bundle in bundles for name in bundle}
    return min(math.floor(total.get(name, 0.0) / sum(b.get(name, 0.0) for b in bundles) + ROUNDING) for name in names)


def _override(trainer: Trainer, config: Mapping[str, Any]) -> Trainer:
    known = [field.name for field in fields(Trainer)]
    for name in config:
        if name not in known:
            raise unknown("a trial's config: the field", name, known)
    return replace(trainer, **config)


def _override_scale(trainer: Trainer, config: Mapping[str, Any]) -> Trainer:
    return replace(trainer, **{name: value for name, value in config.items() if name in SCALE})


def _of_scale(trainer: Trainer) -> Trainer:
    """A trainer that reserves the same, and holds nothing."""
    scale = {name: getattr(trainer, name) for name in SCALE}
    return Trainer(model=_nothing, optimizer=_nothing, train_data=_nothing, steps=1, **scale)


def _nothing(*_: Any) -> NoReturn:
    raise InternalError("a trainer that only says what it reserves was to be run")
