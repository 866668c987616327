"""What a run leaves behind, before anybody has written it anywhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from psgd.config import Job
from psgd.coordinator.coordinator import SaveSnapshot
from psgd.core.ids import LEAD, Boundary
from psgd.core.messages import Figures, Inspect
from psgd.errors import LostError
from psgd.transport.base import Connection
from psgd.transport.flat import views
from psgd.transport.state import ask, read_last, read_state

Keep = Callable[[SaveSnapshot, Mapping[str, torch.Tensor]], None]
"""Writes the weights that were measured, by the layout's names."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run, from the cluster or from one process alike.

    Args:
        weights: every tensor of the layout by name, in layout order, on the CPU.
        figures: the lead's.
        versions: of every shard, indexed by shard; in sync mode all equal.
        seconds: from when the workers were told to run to when the last evaluation was settled; processes start before.
        stopped_early: why the run ended before its budget, or None.
    """

    weights: dict[str, torch.Tensor]
    figures: Figures
    versions: tuple[int, ...]
    seconds: float
    stopped_early: str | None


def read_outcome(job: Job, connections: Sequence[Connection], seconds: float, stopped_early: str | None) -> Outcome:
    """The outcome of a run whose slots have all ended, read from its shards.

    Args:
        connections: indexed by shard.

    Raises:
        LostError: if a shard does not answer, or the shards do not come to agree.
    """
    memory, versions = read_last(connections, job.layout, job.parts(), job.rules)
    figures = ask(connections[LEAD], Inspect()).result()
    if not isinstance(figures, Figures):
        raise LostError(f"the lead gave no figures: {figures}")
    weights = {name: tensor.clone() for name, tensor in views(memory, job.layout).items()}
    return Outcome(weights, figures, tuple(versions), seconds, stopped_early)


def read_weights(connections: Sequence[Connection], job: Job, boundary: Boundary) -> dict[str, torch.Tensor]:
    """The weights of a boundary's snapshot, by name, on the CPU.

    Raises:
        LostError: if a shard does not answer, or has it no more.
    """
    memory, _ = read_state(connections, job.layout, job.parts(), boundary)
    return views(memory, job.layout)
