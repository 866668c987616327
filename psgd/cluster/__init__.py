"""Psgd on Ray: actors from plain classes, placement, supervision. With tuning the only importer of ray."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from psgd.cluster.driver import run

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    """Import the driver when it is asked for: the coordinator's process needs neither it nor torch."""
    if name != "run":
        raise AttributeError(f"module 'psgd.cluster' has no attribute {name!r}")
    from psgd.cluster.driver import run

    return run
