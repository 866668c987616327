"""What a job needs, what a cluster has, and what to say when that is too little."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from psgd.config import Job, Placement
from psgd.errors import ResourceError

Bundle: TypeAlias = dict[str, float]
"""What one process reserves, by Ray's names."""

SLIVER: Bundle = {"CPU": 0.001}
"""Ray refuses a bundle that asks for nothing: where everything costs 0, it marks the place."""

SHARED_CORES = 4
"""Processes that a Ray which psgd starts for itself lets share one core: a laptop runs more workers than it has."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a job reserves; coordinator and evaluator reserve nothing."""

    workers: int
    shards: int
    placement: Placement

    @classmethod
    def of(cls, job: Job, placement: Placement) -> "Need":
        """A job's need."""
        return cls(job.workers, job.rules.shards, placement)

    @property
    def shard_bundles(self) -> list[Bundle]:
        """What each shard reserves."""
        placement = self.placement
        return [_bundle(placement.cpus_per_shard, placement.gpus_per_shard)] * self.shards

    @property
    def worker_bundles(self) -> list[Bundle]:
        """What each worker reserves."""
        placement = self.placement
        return [_bundle(placement.cpus_per_worker, placement.gpus_per_worker)] * self.workers

    @property
    def bundles(self) -> list[Bundle]:
        """What every process reserves: the shards, then the workers."""
        return self.shard_bundles + self.worker_bundles

    @property
    def cpus(self) -> float:
        """CPUs in all."""
        return self.workers * self.placement.cpus_per_worker + self.shards * self.placement.cpus_per_shard

    @property
    def gpus(self) -> float:
        """GPUs in all."""
        return self.workers * self.placement.gpus_per_worker + self.shards * self.placement.gpus_per_shard


def _bundle(cpus: float, gpus: float) -> Bundle:
    return {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount > 0} or SLIVER


def check(need: Need, free: Mapping[str, float], where: str) -> None:
    """Compare what is needed with what is there, before anything starts.

    Args:
        free: unreserved resources, by Ray's names.
        where: the cluster, for the message.

    Raises:
        ResourceError: if something falls short; says need, have and remedy.
    """
    placement = need.placement
    have_cpus, have_gpus = free.get("CPU", 0.0), free.get("GPU", 0.0)
    if need.gpus > have_gpus:
        parties = (
            ("workers", need.workers, placement.gpus_per_worker, "leave use_gpu off"),
            ("shards", need.shards, placement.gpus_per_shard, "use shard_device cpu"),
        )
        on_gpus = [party for party in parties if party[2] > 0]
        wanted = " and ".join(f"{who} need {n * each:g} GPUs ({n} × {each:g})" for who, n, each, _ in on_gpus)
        remedies = [remedy for *_, remedy in on_gpus]
        if have_gpus:
            remedies += [f"use fewer {who}, or a smaller gpus_per_{who[:-1]}" for who, *_ in on_gpus]
        raise ResourceError(f"{wanted}, {where} has {have_gpus:g}: {', or '.join(remedies)}")
    if need.cpus > have_cpus:
        raise ResourceError(
            f"the run needs {need.cpus:g} CPUs ({need.workers} workers × {placement.cpus_per_worker:g} + "
            f"{need.shards} shards × {placement.cpus_per_shard:g}), {where} has {have_cpus:g}: "
            "use fewer workers or shards, or lower cpus_per_worker"
        )
