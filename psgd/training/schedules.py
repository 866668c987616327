"""How a learning-rate schedule is named on the command line."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from psgd.config import ScheduleFactory
from psgd.errors import ConfigurationError

# Those that are made of numbers; the others are made of functions or of schedules.
SCHEDULES: dict[str, type[LRScheduler]] = {
    "constant": lr_scheduler.ConstantLR,
    "cosine": lr_scheduler.CosineAnnealingLR,
    "cosine-restarts": lr_scheduler.CosineAnnealingWarmRestarts,
    "cyclic": lr_scheduler.CyclicLR,
    "exponential": lr_scheduler.ExponentialLR,
    "linear": lr_scheduler.LinearLR,
    "multi-step": lr_scheduler.MultiStepLR,
    "one-cycle": lr_scheduler.OneCycleLR,
    "polynomial": lr_scheduler.PolynomialLR,
    "step": lr_scheduler.StepLR,
}
CLASS_NAMES = {schedule.__name__.lower(): schedule for schedule in SCHEDULES.values()}


def resolve_schedule(schedule: str | ScheduleFactory | None, args: Mapping[str, Any]) -> ScheduleFactory | None:
    """Find the schedule of ``torch.optim.lr_scheduler`` that a name stands for.

    It ticks once for every ``slots`` batches drawn: ``T_max``, ``step_size`` and their like count such ticks.

    Args:
        schedule: one of ``SCHEDULES``, the name of its class in any case, a function of the user's own that
            makes the schedule from the optimizer, which passes through, or None.
        args: the arguments of the class without the optimizer, such as ``{"T_max": 100}``.

    Returns:
        A function, picklable if named, that makes the schedule from the optimizer; None if there is none.

    Raises:
        ConfigurationError: there is no such schedule, or an argument is missing, unknown or invalid.

    Example:
        >>> factory = resolve_schedule("step", {"step_size": 10})
        >>> factory(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)).get_last_lr()
        [0.5]
    """
    if not isinstance(schedule, str):
        if args:
            raise ConfigurationError(f"schedule arguments need a schedule's name, got {', '.join(args)} without one")
        return schedule
    schedule_class = SCHEDULES.get(schedule) or CLASS_NAMES.get(schedule.lower())
    if schedule_class is None:
        raise ConfigurationError(
            f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}; "
            "for another one give Trainer a function as lr_scheduler"
        )
    factory = partial(_build, schedule_class, dict(args))
    try:
        _tick_once(factory)
    except (ValueError, TypeError, ArithmeticError, AttributeError) as error:  # torch checks with all of them
        given = ", ".join(f"{key}={value!r}" for key, value in args.items()) or "none"
        takes = ", ".join(key for key in inspect.signature(schedule_class).parameters if key != "optimizer")
        raise ConfigurationError(f"schedule {schedule}: {error}; got {given}; it takes {takes}") from None
    return factory


def _build(schedule_class: Callable[..., LRScheduler], args: dict[str, Any], optimizer: Optimizer) -> LRScheduler:
    inspect.signature(schedule_class).bind(optimizer, **args)  # names a missing argument better than a call does
    return schedule_class(optimizer, **args)


def _tick_once(factory: ScheduleFactory) -> None:
    """Let torch check the arguments, some of which it does in the first tick, on an optimizer that nobody needs."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule = factory(optimizer)
    optimizer.step()
    schedule.step()
