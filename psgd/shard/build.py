"""From a job to a shard, on whatever plane and clock."""

from collections.abc import Callable

import torch

from psgd.config import Job
from psgd.core.ids import Shard
from psgd.shard.shard import OnBoundary, ParameterShard
from psgd.shard.state import ShardState
from psgd.transport.base import PeerLink
from psgd.transport.wire_format import WireFormat


def build_shard(
    job: Job,
    shard: Shard,
    memory: torch.Tensor,
    cores: int,
    peers: PeerLink,
    on_boundary: OnBoundary,
    clock: Callable[[], float],
) -> ParameterShard:
    """A job's shard, which has no weights yet.

    Args:
        memory: zeroed, (part.bytes,) uint8, for its weights.
        cores: of the host.
        peers: the way to the other shards.
        on_boundary: told by the lead when the run has come to an evaluation boundary.
        clock: seconds, monotonic.

    Raises:
        ResourceError: if the job wants a device for it that this process has not.
    """
    state, wire = ShardState.of(job, shard, memory, cores), WireFormat(job.layout, job.parts()[shard], job.wire)
    return ParameterShard(job.rules, shard, state, wire, peers, on_boundary, clock)
