"""Psgd on Ray: actors from plain classes, placement, supervision. With tuning the only importer of ray."""

from psgd.cluster.driver import run

__all__ = ["run"]
