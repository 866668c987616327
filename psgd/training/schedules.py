"""Learning-rate schedules: how they are named, multiplied, put one after another and warmed up."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import ChainedScheduler, LambdaLR, LRScheduler

from psgd.config import NamedTensors, OptimizerFactory, ScheduleFactory
from psgd.errors import ConfigurationError
from psgd.training.imports import import_callable
from psgd.training.names import unknown, unknown_argument
from psgd.training.own_schedules import InTurn, WarmUp

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
REFUSED = {
    "plateau": "it needs an evaluation's metric, which shards have not; use --plateau, "
    "in Python the callback psgd.ReduceLROnPlateau",
    "lambdalr": "it is made of a function; write one that makes the schedule and name it as my.pkg:factory",
    "multiplicativelr": "it is made of a function; write one that makes the schedule and name it as my.pkg:factory",
    "chainedscheduler": "it is made of schedules; join their names: A+B",
    "sequentiallr": "it is made of schedules; join their names: A,B with the argument milestones=[...]",
}
REFUSED["reducelronplateau"] = REFUSED["plateau"]

ABSOLUTE = (lr_scheduler.CosineAnnealingWarmRestarts, lr_scheduler.CyclicLR, lr_scheduler.OneCycleLR)
"""They set the learning rate anew at each tick, whatever another has made of it."""
CYCLES_MOMENTUM = (lr_scheduler.CyclicLR, lr_scheduler.OneCycleLR)
ONE_A_GROUP = ("base_lr", "max_lr", "base_momentum", "max_momentum")  # arguments that may be a list
NOT_ARGUMENTS = ("optimizer", "last_epoch", "verbose")  # a run begins at tick 0
WRONG = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError)  # torch checks with all of them


@dataclass(frozen=True, slots=True)
class NamedSchedule:
    """Makes a schedule from an optimizer, and knows what it is.

    Args:
        name: with its arguments, for people to read.
    """

    name: str
    make: ScheduleFactory

    def __call__(self, optimizer: Optimizer) -> LRScheduler:
        """Make it."""
        return self.make(optimizer)


def _describe(schedule: str | ScheduleFactory | None, args: Mapping[str, Any], warmup_steps: int) -> str:
    name = schedule if isinstance(schedule, str) else getattr(schedule, "__name__", None) if schedule else "constant"
    given = ", ".join(f"{key}={value}" for key, value in args.items())
    warmup = f" after {warmup_steps} steps of warm-up" if warmup_steps else ""
    return f"{name or 'own'}{f'({given})' if given else ''}{warmup}"


def schedule(name: str, warmup_steps: int = 0, **args: Any) -> ScheduleFactory:
    """A learning-rate schedule by name, for ``Trainer(lr_scheduler=...)``; its parts as in `resolve_schedule`.

    Args:
        name: such as ``cosine``, ``exponential+linear``, ``linear,cosine`` or ``my.pkg:factory``.
        warmup_steps: ticks of a linear warm-up before it.
        args: of the schedule's class; of several schedules as ``**{"linear.total_iters": 50}``.

    Raises:
        ConfigurationError: as `resolve_schedule`.

    Example:
        >>> factory = schedule("cosine", warmup_steps=10, T_max=100)
        >>> factory(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)).get_last_lr()
        [0.05]
    """
    factory = resolve_schedule(name, args, warmup_steps)
    assert factory is not None  # a name always gives one
    return factory


def resolve_schedule(
    schedule: str | ScheduleFactory | None, args: Mapping[str, Any], warmup_steps: int = 0
) -> ScheduleFactory | None:
    """Find the schedule that a name stands for.

    It ticks once for every ``slots`` batches drawn: ``T_max``, ``step_size`` and their like count such ticks.

    - ``cosine``: one of ``SCHEDULES``, or the name of its class in ``torch.optim.lr_scheduler`` in any case;
    - ``my.pkg:factory``: a function of yours that makes the schedule from the optimizer;
    - ``exponential+linear``: their product, as ``ChainedScheduler`` makes it;
    - ``linear,cosine``: one after the other, each from its own tick 0; ``milestones=[100]`` says when the next begins.

    Args:
        schedule: such a name, a function of the optimizer, or None.
        args: the arguments of the class without the optimizer, such as ``{"T_max": 100}``. Of several schedules each
            argument says whose it is, ``{"linear.total_iters": 50}``; a name's second use is ``linear-2``.
        warmup_steps: so many ticks long the learning rate grows linearly, lr * (tick + 1) / warmup_steps; then the
            schedule begins with its own tick 0. Without a schedule the learning rate stays where it is then.

    Returns:
        A function, picklable if named, that makes the schedule from the optimizer; None if there is none.

    Raises:
        ConfigurationError: there is no such schedule, or an argument is missing, unknown or invalid.

    Example:
        >>> factory = resolve_schedule("step", {"step_size": 10})
        >>> factory(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)).get_last_lr()
        [0.5]
    """
    if isinstance(warmup_steps, bool) or not isinstance(warmup_steps, int) or warmup_steps < 0:
        raise ConfigurationError(f"warmup_steps must be a whole number >= 0, got {warmup_steps!r}")
    turns: list[ScheduleFactory] = []
    milestones: list[int] = []
    if isinstance(schedule, str):
        turns, milestones = _parse(schedule, args)
    elif args:
        raise ConfigurationError(f"schedule arguments need a schedule's name, got {', '.join(args)} without one")
    elif schedule is not None:
        turns = [schedule]
    if warmup_steps:
        if turns:
            milestones = [warmup_steps, *(warmup_steps + tick for tick in milestones)]
        turns = [partial(LambdaLR, lr_lambda=WarmUp(warmup_steps)), *turns]
    if not turns:
        return None
    if not isinstance(schedule, str) and not warmup_steps:
        return schedule
    make = turns[0] if len(turns) == 1 else partial(InTurn, schedules=turns, milestones=milestones)
    return NamedSchedule(_describe(schedule, args, warmup_steps), make)


def learning_rates(
    named: NamedTensors, optimizer: OptimizerFactory, schedule: ScheduleFactory | None, ticks: int
) -> list[tuple[float, ...]]:
    """The learning rates that a run is going to use, for a picture; nothing is trained.

    Args:
        named: the model's parameters, which the optimizer divides into groups; left as they are.
        ticks: how many, from 0 on.

    Returns:
        One learning rate a parameter group, for each tick.

    Raises:
        ConfigurationError: the schedule fails at a tick.
    """
    made = optimizer(named)
    ticking = None if schedule is None else schedule(made)
    rates: list[tuple[float, ...]] = []
    with warnings.catch_warnings():
        # Nothing is trained here, and torch warns of schedules that tick before the optimizer's first step.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        for tick in range(ticks):
            if ticking is not None and tick > 0:
                try:
                    ticking.step()
                except ValueError as error:  # such as that one-cycle is over
                    raise ConfigurationError(f"lr_scheduler fails at tick {tick} of {ticks}: {error}") from error
            rates.append(tuple(float(group["lr"]) for group in made.param_groups))
    return rates


def most_ticks(schedule: LRScheduler) -> int | None:
    """How many ticks a schedule is made for: one-cycle fails after its ``total_steps``; None: it goes on for ever.

    Example:
        >>> most_ticks(schedule("one-cycle", max_lr=1.0, total_steps=9)(torch.optim.Adam([torch.zeros(1)])))
        9
    """
    if isinstance(schedule, lr_scheduler.OneCycleLR):
        return int(schedule.total_steps)
    if isinstance(schedule, ChainedScheduler):
        return min(filter(None, map(most_ticks, schedule._schedulers)), default=None)
    if isinstance(schedule, InTurn):
        begins, ends = (0, *schedule.milestones), (*schedule.milestones, None)
        for part, begin, end in zip(schedule.turns, begins, ends, strict=True):
            most = most_ticks(part)
            if most is not None and (end is None or begin + most < end - 1):
                return begin + most
    return None


class _Part(NamedTuple):
    """One schedule of a name: how its arguments are prefixed, what makes it, and with what."""

    tag: str
    make: Callable[..., LRScheduler]
    args: dict[str, Any]


def _parse(text: str, args: Mapping[str, Any]) -> tuple[list[ScheduleFactory], list[int]]:
    """What makes a name's schedules, one after another, and the ticks at which the next ones begin."""
    products = [[name.strip() for name in turn.split("+")] for turn in text.split(",")]
    names = list(chain.from_iterable(products))
    tags = [_tag(name, names[:place].count(name)) for place, name in enumerate(names)]
    makers = [_find(name) for name in names]
    dealt, rest = _deal(tags, args)
    milestones = rest.pop("milestones", None) if len(products) > 1 else []
    if rest:
        key = next(iter(rest))
        whose = [part.tag for part in map(_Part, tags, makers, dealt) if key in _takes(part)] or tags
        raise ConfigurationError(f"schedule argument {key} must say whose it is, such as {whose[0]}.{key}")
    ticks = _check_milestones(text, milestones, len(products) - 1)
    parts = map(_Part, tags, makers, dealt)
    return [_product(list(islice(parts, len(product)))) for product in products], ticks


def _tag(name: str, uses: int) -> str:
    """How a schedule's arguments are prefixed, if its name has been used so often already."""
    return f"{name}-{uses + 1}" if uses else name


def _find(name: str) -> Callable[..., LRScheduler]:
    """What makes the schedule of one name."""
    if ":" in name:
        return import_callable("schedule", name)
    if name.lower() in REFUSED:
        raise ConfigurationError(f"schedule must not be {name}: {REFUSED[name.lower()]}")
    found = SCHEDULES.get(name) or CLASS_NAMES.get(name.lower())
    if found is None:
        raise unknown("schedule", name, [*SCHEDULES, "my.pkg:factory"])
    return found


def _deal(tags: Sequence[str], args: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Each schedule's own arguments, and those that do not say whose they are."""
    dealt: dict[str, dict[str, Any]] = {tag: {} for tag in tags}
    rest: dict[str, Any] = {}
    for key, value in args.items():
        tag, _, argument = key.rpartition(".")
        if tag and tag not in dealt:
            raise unknown("schedule argument", key, [f"{known}.{argument}" for known in tags])
        if tag or len(tags) == 1:
            dealt[tag or tags[0]][argument] = value
        else:
            rest[key] = value
    return list(dealt.values()), rest


def _check_milestones(text: str, milestones: object, count: int) -> list[int]:
    given = milestones if isinstance(milestones, list | tuple) else []
    ticks = [tick for tick in given if isinstance(tick, int) and tick > 0]
    if len(ticks) != count or list(given) != sorted(set(ticks)):
        wanted = f"a list of {count} ascending ticks" if count > 1 else "a list of one tick"
        raise ConfigurationError(
            f"schedule {text} needs milestones=[...], {wanted} at which the next begins, got {milestones}"
        )
    return ticks


def _product(parts: Sequence[_Part]) -> ScheduleFactory:
    for part in parts:
        if len(parts) > 1 and part.make in ABSOLUTE:
            raise ConfigurationError(
                f"schedule {part.tag} can not be multiplied: it sets the learning rate anew at each tick; "
                "put it before or after the others, with a comma"
            )
    factories = [_check_part(part) for part in parts]
    return factories[0] if len(factories) == 1 else partial(_multiply, factories)


def _multiply(factories: Sequence[ScheduleFactory], optimizer: Optimizer) -> LRScheduler:
    return ChainedScheduler([make(optimizer) for make in factories], optimizer)


def _check_part(part: _Part) -> ScheduleFactory:
    """What makes one schedule, once its arguments have been checked."""
    takes = _takes(part)
    for key in part.args:
        if key not in takes:
            raise unknown_argument(f"schedule {part.tag}", key, takes)
    if part.make in SCHEDULES.values():
        _tick_once(part)
    return partial(_build, part)


def _takes(part: _Part) -> list[str]:
    return [key for key in inspect.signature(part.make).parameters if key not in NOT_ARGUMENTS]


def _build(part: _Part, optimizer: Optimizer) -> LRScheduler:
    """Make a schedule.

    Raises:
        ConfigurationError: it does not take its arguments, or not this optimizer.
    """
    cycles = part.make in CYCLES_MOMENTUM and part.args.get("cycle_momentum", True)
    if cycles and not {"momentum", "betas"} & optimizer.defaults.keys():
        raise ConfigurationError(
            f"schedule {part.tag} cycles the momentum, which {type(optimizer).__name__} has not; "
            "add cycle_momentum=false"
        )
    if part.make not in SCHEDULES.values():
        made: object = part.make(optimizer, **part.args)
        if not isinstance(made, LRScheduler):
            raise ConfigurationError(
                f"schedule {part.tag} must make a torch.optim.lr_scheduler.LRScheduler, got {type(made).__name__}"
            )
        return made
    try:
        inspect.signature(part.make).bind(optimizer, **part.args)  # names a missing argument better than a call does
        return part.make(optimizer, **part.args)
    except WRONG as error:
        raise _refuse(part, error) from None


def _refuse(part: _Part, error: Exception) -> ConfigurationError:
    given = ", ".join(f"{key}={value!r}" for key, value in part.args.items()) or "none"
    return ConfigurationError(f"schedule {part.tag}: {error}; got {given}; it takes {', '.join(_takes(part))}")


def _tick_once(part: _Part) -> None:
    """Let torch check the arguments, some of which it does in the first tick, on an optimizer that nobody needs."""
    groups = max((len(part.args[key]) for key in ONE_A_GROUP if isinstance(part.args.get(key), list)), default=1)
    parameters = [{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(groups)]
    optimizer = torch.optim.SGD(parameters, lr=1.0, momentum=0.9)
    made = _build(part, optimizer)
    optimizer.step()
    try:
        made.step()
    except WRONG as error:
        raise _refuse(part, error) from None
