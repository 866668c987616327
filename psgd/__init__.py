"""psgd: parameter-server training for PyTorch on Ray."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psgd.config import Placement, Straggler
    from psgd.core.modes import Async, Sync
    from psgd.errors import (
        ConfigurationError,
        DataError,
        InternalError,
        LostError,
        PeerError,
        PsgdError,
        ResourceError,
        RunEnded,
    )
    from psgd.result import Result
    from psgd.trainer import Trainer
    from psgd.training.callbacks import Callback, EarlyStopping
    from psgd.worker.optimizer import DistributedOptimizer
    from psgd.worker.session import batches, report

_HOMES = {
    "Async": "psgd.core.modes",
    "Callback": "psgd.training.callbacks",
    "ConfigurationError": "psgd.errors",
    "DataError": "psgd.errors",
    "DistributedOptimizer": "psgd.worker.optimizer",
    "EarlyStopping": "psgd.training.callbacks",
    "InternalError": "psgd.errors",
    "LostError": "psgd.errors",
    "PeerError": "psgd.errors",
    "Placement": "psgd.config",
    "PsgdError": "psgd.errors",
    "ResourceError": "psgd.errors",
    "Result": "psgd.result",
    "RunEnded": "psgd.errors",
    "Straggler": "psgd.config",
    "Sync": "psgd.core.modes",
    "Trainer": "psgd.trainer",
    "batches": "psgd.worker.session",
    "report": "psgd.worker.session",
}

__all__ = [
    "Async",
    "Callback",
    "ConfigurationError",
    "DataError",
    "DistributedOptimizer",
    "EarlyStopping",
    "InternalError",
    "LostError",
    "PeerError",
    "Placement",
    "PsgdError",
    "ResourceError",
    "Result",
    "RunEnded",
    "Straggler",
    "Sync",
    "Trainer",
    "batches",
    "report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `psgd --help` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'psgd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
