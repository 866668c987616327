"""What a run leaves behind, before anybody has written it anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from psgd.config import Job
from psgd.core.ids import LEAD
from psgd.core.messages import Figures, Inspect
from psgd.errors import LostError
from psgd.transport.base import Connection
from psgd.transport.flat import views
from psgd.transport.state import ask, read_last


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
