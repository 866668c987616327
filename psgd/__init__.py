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
    )
    from psgd.result import Result
    from psgd.trainer import Trainer
    from psgd.training.callbacks import Callback, EarlyStopping

_HOMES = {
    "Async": "psgd.core.modes",
    "Callback": "psgd.training.callbacks",
    "ConfigurationError": "psgd.errors",
    "DataError": "psgd.errors",
    "EarlyStopping": "psgd.training.callbacks",
    "InternalError": "psgd.errors",
    "LostError": "psgd.errors",
    "PeerError": "psgd.errors",
    "Placement": "psgd.config",
    "PsgdError": "psgd.errors",
    "ResourceError": "psgd.errors",
    "Result": "psgd.result",
    "Straggler": "psgd.config",
    "Sync": "psgd.core.modes",
    "Trainer": "psgd.trainer",
}

__all__ = [
    "Async",
    "Callback",
    "ConfigurationError",
    "DataError",
    "EarlyStopping",
    "InternalError",
    "LostError",
    "PeerError",
    "Placement",
    "PsgdError",
    "ResourceError",
    "Result",
    "Straggler",
    "Sync",
    "Trainer",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `psgd --help` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'psgd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
