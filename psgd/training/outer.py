"""What shards update with: the job's optimizer, or with local steps the outer one, which takes Δ for a gradient."""

from psgd.config import Clip, OptimizerFactory, ScheduleFactory
from psgd.core.local_steps import LocalSteps
from psgd.training.optimizers import resolve_optimizer


def update_of(
    optimizer: OptimizerFactory, schedule: ScheduleFactory | None, local_steps: LocalSteps | None
) -> tuple[OptimizerFactory, ScheduleFactory | None]:
    """The optimizer and the schedule of shards.

    Args:
        optimizer: the job's; with local steps it is the inner one, which slots run.
        schedule: that of the job's optimizer.

    Example:
        >>> outer, schedule = update_of(torch.optim.AdamW, None, LocalSteps(8))
        >>> outer([("weight", torch.nn.Parameter(torch.zeros(2)))]).param_groups[0]["nesterov"]
        True
    """
    if local_steps is None:
        return optimizer, schedule
    momentum = local_steps.momentum
    nesterov = {"momentum": momentum, "nesterov": True} if momentum > 0 else {}
    return resolve_optimizer("sgd", local_steps.lr, nesterov), None


def clip_of(clip: Clip | None, local_steps: LocalSteps | None) -> Clip | None:
    """What shards clip by: with local steps nothing, as slots clip the gradient of each inner step.

    Args:
        clip: the job's.
    """
    return clip if local_steps is None else None
