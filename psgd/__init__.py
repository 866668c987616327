"""psgd: parameter-server training for PyTorch on Ray."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psgd.config import Clip, Placement, Straggler
    from psgd.core.corrections import DelayCompensation, GapAware, LagRate
    from psgd.core.local_steps import LocalSteps
    from psgd.core.modes import Async, Sync
    from psgd.durations import parse_duration
    from psgd.errors import (
        ConfigurationError,
        DataError,
        DivergedError,
        InternalError,
        LostError,
        PeerError,
        PsgdError,
        ResourceError,
        RunEnded,
    )
    from psgd.result import Result
    from psgd.simulation.world import World
    from psgd.trainer import Trainer
    from psgd.training.callbacks import Callback, LearningRateMonitor, LearningRateScheduler
    from psgd.training.groups import param_groups, undecayed
    from psgd.training.losses import loss
    from psgd.training.optimizers import optimizer
    from psgd.training.policies import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau, StopAfter, StopAtTarget
    from psgd.training.regularization import regularize
    from psgd.training.rules.from_function import optimizer_from
    from psgd.training.schedules import schedule
    from psgd.tuning.trainable import as_trainable
    from psgd.worker.optimizer import DistributedOptimizer
    from psgd.worker.session import batches, report

_HOMES = {
    "Async": "psgd.core.modes",
    "Callback": "psgd.training.callbacks",
    "Clip": "psgd.config",
    "ConfigurationError": "psgd.errors",
    "DataError": "psgd.errors",
    "DelayCompensation": "psgd.core.corrections",
    "DistributedOptimizer": "psgd.worker.optimizer",
    "DivergedError": "psgd.errors",
    "EarlyStopping": "psgd.training.policies",
    "GapAware": "psgd.core.corrections",
    "InternalError": "psgd.errors",
    "LagRate": "psgd.core.corrections",
    "LearningRateMonitor": "psgd.training.callbacks",
    "LearningRateScheduler": "psgd.training.callbacks",
    "LocalSteps": "psgd.core.local_steps",
    "LostError": "psgd.errors",
    "ModelCheckpoint": "psgd.training.policies",
    "PeerError": "psgd.errors",
    "Placement": "psgd.config",
    "PsgdError": "psgd.errors",
    "ReduceLROnPlateau": "psgd.training.policies",
    "ResourceError": "psgd.errors",
    "Result": "psgd.result",
    "RunEnded": "psgd.errors",
    "StopAfter": "psgd.training.policies",
    "StopAtTarget": "psgd.training.policies",
    "Straggler": "psgd.config",
    "Sync": "psgd.core.modes",
    "Trainer": "psgd.trainer",
    "World": "psgd.simulation.world",
    "as_trainable": "psgd.tuning.trainable",
    "batches": "psgd.worker.session",
    "loss": "psgd.training.losses",
    "optimizer": "psgd.training.optimizers",
    "optimizer_from": "psgd.training.rules.from_function",
    "param_groups": "psgd.training.groups",
    "parse_duration": "psgd.durations",
    "regularize": "psgd.training.regularization",
    "report": "psgd.worker.session",
    "schedule": "psgd.training.schedules",
    "undecayed": "psgd.training.groups",
}

__all__ = [
    "Async",
    "Callback",
    "Clip",
    "ConfigurationError",
    "DataError",
    "DelayCompensation",
    "DistributedOptimizer",
    "DivergedError",
    "EarlyStopping",
    "GapAware",
    "InternalError",
    "LagRate",
    "LearningRateMonitor",
    "LearningRateScheduler",
    "LocalSteps",
    "LostError",
    "ModelCheckpoint",
    "PeerError",
    "Placement",
    "PsgdError",
    "ReduceLROnPlateau",
    "ResourceError",
    "Result",
    "RunEnded",
    "StopAfter",
    "StopAtTarget",
    "Straggler",
    "Sync",
    "Trainer",
    "World",
    "as_trainable",
    "batches",
    "loss",
    "optimizer",
    "optimizer_from",
    "param_groups",
    "parse_duration",
    "regularize",
    "report",
    "schedule",
    "undecayed",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `psgd --help` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'psgd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
