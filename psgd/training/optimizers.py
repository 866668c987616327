"""Optimizers: how they are named, and what they are made of."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from psgd.config import NamedTensors
from psgd.errors import ConfigurationError
from psgd.training.groups import Groups, param_groups
from psgd.training.imports import import_callable
from psgd.training.names import unknown, unknown_argument
from psgd.training.regularization import OPTIONS, regularize
from psgd.training.rules.ema_momentum import EMAMomentum
from psgd.training.rules.from_function import is_update, optimizer_from
from psgd.training.rules.ftrl import FTRL
from psgd.training.rules.lamb import LAMB
from psgd.training.rules.rmsprop_inner import RMSpropInner

MakeOptimizer = Callable[..., Any]
"""A class of optimizers, a function of (named parameters, lr, other arguments) to one, or an update function."""

OPTIMIZERS: dict[str, type[Optimizer]] = {
    name.lower(): value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer
} | {"ema-momentum": EMAMomentum, "rmsprop-inner": RMSpropInner, "ftrl": FTRL, "lamb": LAMB}
CLASS_NAMES = {optimizer.__name__.lower(): optimizer for optimizer in OPTIMIZERS.values()}
REFUSED: dict[type[Optimizer], str] = {
    torch.optim.LBFGS: "it evaluates the loss again during a step, which a shard can not",
    torch.optim.SparseAdam: "it takes sparse gradients only, and shards hold dense ones",
}


EXPECTED = (
    "a function that makes an optimizer takes (named parameters, lr, ...), one that updates a parameter in place is "
    "(param, grad, state, lr, ...), so named"
)
"""What a function of the user's own may be."""


@dataclass(frozen=True, slots=True)
class ConfiguredOptimizer:
    """Makes an optimizer from named parameters, as `resolve_optimizer` was told.

    Args:
        name: as errors call it.
        make: the class or the function.
        args: all arguments but the parameters.
        groups: see `param_groups`.
        penalties: arguments of `regularize`; None leaves the optimizer as it is.
    """

    name: str
    make: MakeOptimizer
    args: Mapping[str, Any]
    groups: Groups
    penalties: Mapping[str, float] | None

    def __call__(self, named: NamedTensors) -> Optimizer:
        """Make it.

        Raises:
            ConfigurationError: it does not take the arguments or the parameters.
        """
        with _said_of(self.name, self.args):
            made = self.make(param_groups(named, self.groups) if self.groups else named, **self.args)
        check_optimizer(made)
        return made if self.penalties is None else regularize(made, **self.penalties)


def optimizer(
    spec: str | MakeOptimizer,
    lr: float,
    *,
    groups: Groups | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    decay: float = 0.0,
    **args: Any,
) -> ConfiguredOptimizer:
    """An optimizer for a Trainer, see `resolve_optimizer`.

    Example:
        >>> factory = optimizer("adam", lr=0.1, decay=0.01, groups={"*bias": {"decay": 0.0}}, amsgrad=True)
        >>> [group["decay"] for group in factory(nn.Linear(2, 1).named_parameters()).param_groups]
        [0.01, 0.0]
    """
    return resolve_optimizer(spec, lr, args, groups=groups, l1=l1, l2=l2, decay=decay)


def resolve_optimizer(
    spec: str | MakeOptimizer,
    lr: float,
    args: Mapping[str, Any],
    *,
    groups: Groups | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    decay: float = 0.0,
) -> ConfiguredOptimizer:
    """Find the optimizer that a name stands for.

    Args:
        spec: a class of ``torch.optim`` or `psgd.training.rules` by name, in any case (``sgd``, ``adam``, ``ftrl``,
            ``ema-momentum``, ...); or what is your own, as ``my.pkg:MyOptimizer`` or as it is: a subclass of
            ``torch.optim.Optimizer``, an update function as `optimizer_from` takes it, or a function
            (named parameters, lr, other arguments) that makes an optimizer.
        lr: the learning rate.
        args: the other arguments, such as ``{"momentum": 0.9}``.
        groups: other options for the parameters whose names match a pattern, see `param_groups`; also ``lr``, and
            ``l1``, ``l2``, ``decay``.
        l1: see `regularize`; an optimizer with an argument ``l1``, ``l2`` or ``decay`` of its own gets it instead.
        l2: as ``l1``.
        decay: as ``l1``.

    Returns:
        A function, picklable if what it makes is, that makes the optimizer from named parameters.

    Raises:
        ConfigurationError: there is no such optimizer, it can not run on shards, or an argument is unknown or
            invalid.

    Example:
        >>> factory = resolve_optimizer("sgd", 0.1, {"momentum": 0.9})
        >>> factory([("weight", nn.Parameter(torch.zeros(2)))]).param_groups[0]["momentum"]
        0.9
    """
    if groups is not None and not isinstance(groups, Mapping):
        raise ConfigurationError(f"groups must be a mapping of patterns to options, got {groups!r}")
    name, make = _find(spec)
    if not isinstance(lr, int | float) or not (math.isfinite(lr) and lr >= 0):
        raise ConfigurationError(f"lr must be a finite number >= 0, got {lr!r}")
    known = _check_arguments(name, make, args)
    penalties = {"l1": l1, "l2": l2, "decay": decay}
    own = {option: value for option in OPTIONS if option in known and (value := penalties.pop(option))}
    for option in own.keys() & args.keys():
        raise ConfigurationError(
            f"{option} of optimizer {name} must be given once, got {own[option]} and {args[option]}"
        )
    of_groups = {option for options in (groups or {}).values() for option in options}
    regularized = any(penalties.values()) or not of_groups.isdisjoint(penalties)
    configured = ConfiguredOptimizer(
        name, make, {"lr": lr, **args, **own}, dict(groups or {}), penalties if regularized else None
    )
    _try_out(configured)
    return configured


def _find(spec: str | MakeOptimizer) -> tuple[str, MakeOptimizer]:
    """What errors call it, and the class or function."""
    if not isinstance(spec, str):
        name, found = getattr(spec, "__name__", type(spec).__name__), spec
    elif ":" in spec:
        name, found = spec, import_callable("optimizer", spec)
    else:
        known = [key for key, value in OPTIMIZERS.items() if value not in REFUSED]
        name = spec.lower()
        if name not in OPTIMIZERS and name not in CLASS_NAMES:
            raise unknown("optimizer", spec, [*known, "my.pkg:MyOptimizer"])
        found = OPTIMIZERS.get(name) or CLASS_NAMES[name]
    if not callable(found):
        raise ConfigurationError(f"optimizer must be a name, a class or a function, got {name} {found!r:.60}")
    if not inspect.isclass(found):
        return name, optimizer_from(found) if is_update(found) else found
    if not issubclass(found, Optimizer):
        raise ConfigurationError(f"optimizer {name} must be a torch.optim.Optimizer or a function, got another class")
    _refuse(found)
    return name, found


def _check_arguments(name: str, make: MakeOptimizer, args: Mapping[str, Any]) -> list[str]:
    """The names of the arguments that it takes, beside the parameters and those it leaves open (``**kwargs``)."""
    arguments = list(inspect.signature(make).parameters.values())[1:]
    known = [argument.name for argument in arguments if argument.kind is not argument.VAR_KEYWORD]
    if len(known) < len(arguments):
        return known
    if "lr" not in known:
        given = ", ".join(inspect.signature(make).parameters)
        raise ConfigurationError(f"optimizer {name} must take lr, which schedules set, got ({given}); {EXPECTED}")
    others = [key for key in known if key != "lr"]
    for key in args:
        if key == "lr":
            raise ConfigurationError(f"optimizer {name}: lr must be given as lr, not among the other arguments")
        if key not in others:
            raise unknown_argument(f"optimizer {name}", key, others)
    return known


def _try_out(configured: ConfiguredOptimizer) -> None:
    """Let a class check its arguments, those of the groups included, on a parameter that nobody needs."""
    if not inspect.isclass(configured.make):
        if configured.groups:
            raise ConfigurationError(
                f"groups must be left out with {configured.name}, a function: use psgd.param_groups in it"
            )
        return
    made = _make_once(configured)
    for pattern, options in configured.groups.items():
        for option in options:
            if option not in made.defaults:
                raise unknown_argument(f"optimizer {configured.name}, group {pattern!r},", option, made.defaults)
        own = {option: value for option, value in options.items() if option not in (configured.penalties or {})}
        args = {**configured.args, **own}
        _make_once(replace(configured, name=f"{configured.name}, group {pattern!r}", args=args, groups={}))


def _make_once(configured: ConfiguredOptimizer) -> Optimizer:
    weight = nn.Parameter(torch.zeros(2, 2))
    made = configured([("weight", weight)])
    if configured.make in OPTIMIZERS.values():  # some arguments are checked in the first step
        weight.grad = torch.zeros_like(weight)
        with _said_of(configured.name, configured.args):
            made.step()
    return made


@contextmanager
def _said_of(name: str, args: Mapping[str, Any]) -> Iterator[None]:
    """Say which optimizer it is that does not take its arguments."""
    try:
        yield
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:  # torch checks with all of them
        given = ", ".join(f"{key}={value!r}" for key, value in args.items())
        unfit = isinstance(error, TypeError) and "positional argument" in str(error)
        hint = f"; {EXPECTED}" if unfit else ""
        raise ConfigurationError(f"optimizer {name}: {' '.join(str(error).split())}; got {given}{hint}") from error


def check_optimizer(optimizer: object) -> None:
    """Refuse what a factory made if it can not run on a shard.

    Raises:
        ConfigurationError: it is no optimizer, or one that needs what a shard has not.
    """
    if not isinstance(optimizer, Optimizer):
        raise ConfigurationError(
            f"optimizer: the factory must return a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    _refuse(type(optimizer))


def _refuse(optimizer_class: type[Optimizer]) -> None:
    for refused, reason in REFUSED.items():
        if issubclass(optimizer_class, refused):
            raise ConfigurationError(
                f"optimizer must not be {refused.__name__}: {reason}; use another one, such as adam"
            )
