"""An optimizer from a function that updates one parameter."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT

from psgd.errors import ConfigurationError
from psgd.training.rules.base import Rule, check_at_least_0

Update = Callable[..., object]
"""(param, grad, state, lr), and keyword arguments if it has options."""

ARGUMENTS = ("param", "grad", "state", "lr")
FIRST = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("params", "lr")]


def is_update(value: object) -> bool:
    """Whether it is a function whose first arguments are called param, grad, state and lr."""
    if not callable(value) or inspect.isclass(value):
        return False
    arguments = inspect.signature(value).parameters
    named = all(argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD) for argument in arguments.values())
    return named and tuple(arguments)[: len(ARGUMENTS)] == ARGUMENTS


def optimizer_from(update: Update) -> "type[FunctionOptimizer]":
    """Make an optimizer class of a function that updates one parameter.

    Args:
        update: called as ``update(param, grad, state, lr)`` for each parameter that has a gradient, without autograd.
            It changes ``param`` in place. ``grad``, shaped like it, is a copy that it may change, too. ``state`` is
            the parameter's own dict, empty at first. ``lr`` is the learning rate of the parameter's group at that
            step. If it has further arguments, they are options of the optimizer and of its groups. On shards, param
            is a flat slice of the tensor, unless the function turns out to need the whole.

    Returns:
        A ``torch.optim.Optimizer`` to be called with params, lr and the options.

    Raises:
        ConfigurationError: the function's first arguments are called otherwise, or an option has no name.

    Example:
        >>> def sign_momentum(param, grad, state, lr, beta=0.9):
        ...     velocity = state.setdefault("velocity", torch.zeros_like(param))
        ...     velocity.mul_(beta).add_(grad)
        ...     param.sub_(lr * velocity.sign())
        >>> SignMomentum = optimizer_from(sign_momentum)
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> optimizer = SignMomentum([weight], lr=0.5, beta=0.5)
        >>> weight.grad = torch.tensor([3.0, -0.1])
        >>> optimizer.step(), weight.tolist()
        (None, [0.5, 2.5])
    """
    if not is_update(update):
        raise ConfigurationError(
            f"update must be a function of {', '.join(ARGUMENTS)} and named options, got {inspect.signature(update)}"
        )
    options = [
        argument.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for argument in list(inspect.signature(update).parameters.values())[len(ARGUMENTS) :]
    ]
    contents = {
        "update": staticmethod(update),
        "options": tuple(option.name for option in options),
        "__module__": update.__module__,
        "__doc__": update.__doc__,
        "__signature__": inspect.Signature([*FIRST, *options]),
    }
    return type(getattr(update, "__name__", type(update).__name__), (FunctionOptimizer,), contents)


class FunctionOptimizer(Rule):
    """What `optimizer_from` makes a class of, by giving it the function.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the learning rate.
        options: further arguments of the function; those that have a default may be left out.

    Raises:
        TypeError: an option is missing or unknown.
        ValueError: the learning rate is negative.
    """

    update: ClassVar[Update]
    options: ClassVar[tuple[str, ...]]

    def __init__(self, params: ParamsT, lr: float, **options: Any) -> None:
        check_at_least_0("lr", lr)
        bound = inspect.signature(self.update).bind(*ARGUMENTS, **options)
        bound.apply_defaults()
        super().__init__(params, {"lr": lr, **{name: bound.arguments[name] for name in self.options}})

    def _update(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        options = {name: group[name] for name in self.options}
        for parameter, grad in zip(parameters, grads, strict=True):
            state, lr = self.state[parameter], float(group["lr"])
            returned = self.update(parameter, grad.clone(), state, lr, **options)
            if returned is not None:
                raise ConfigurationError(
                    f"update {type(self).__name__} must change param in place and return nothing, "
                    f"got {type(returned).__name__}"
                )
