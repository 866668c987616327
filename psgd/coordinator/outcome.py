"""What a run leaves behind, before anybody has written it anywhere."""

from dataclasses import dataclass

import torch

from psgd.core.messages import Figures


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
