"""Regularization that works with every optimizer: hooks around its step."""

import math
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from psgd.errors import ConfigurationError

OPTIONS = ("l1", "l2", "decay")


def regularize(optimizer: Optimizer, *, l1: float = 0.0, l2: float = 0.0, decay: float = 0.0) -> Optimizer:
    """Regularize each step of an optimizer; parameter groups may have other values under the same names.

    With the learning rate ``lr`` that the group has at that step:

    - ``l2``, coupled: the gradient g becomes g + l2·θ, that of the loss plus l2/2·‖θ‖². Momentum and adaptive rates
      see it. (With ``maximize``, g − l2·θ.)
    - ``decay``, decoupled: θ becomes θ − lr·decay·θ, then the optimizer steps (Loshchilov & Hutter 2019, "Decoupled
      Weight Decay Regularization").
    - ``l1``, proximal: after the step, θ becomes sign(θ)·max(|θ| − lr·l1, 0), so that weights become exactly 0
      (Parikh & Boyd 2014, "Proximal Algorithms", section 6.5.2). The threshold is the same for all weights, also
      where an adaptive optimizer has a rate for each.

    l1 and l2 together are the elastic net (Zou & Hastie 2005, "Regularization and variable selection via the elastic
    net"). All work element by element, so slices get the bits of whole tensors. Parameters without a gradient are
    left alone. What ``.grad`` held before the step is there again afterwards, unchanged.

    Args:
        optimizer: one that steps without a closure, as shards do.
        l1: >= 0.
        l2: >= 0.
        decay: >= 0.

    Returns:
        The same optimizer.

    Raises:
        ConfigurationError: a value is no finite number >= 0, also one of a group; or the optimizer has such an
            option of its own.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 0.01]))
        >>> optimizer = regularize(torch.optim.SGD([weight], lr=0.25), l1=0.5)
        >>> weight.grad = torch.zeros(2)
        >>> optimizer.step()
        >>> weight.tolist()
        [0.875, 0.0]
    """
    if not isinstance(optimizer, Optimizer):
        raise ConfigurationError(
            f"regularize needs an optimizer that is made, got {type(optimizer).__name__}; in a factory it takes what "
            "that returns"
        )
    name = type(optimizer).__name__
    own = [option for option in OPTIONS if option in optimizer.defaults]
    for option, value in (("l1", l1), ("l2", l2), ("decay", decay)):
        if option not in own:
            optimizer.defaults[option] = value  # also for groups that are added later
        elif value:
            raise ConfigurationError(f"{option} must be given to {name} itself, which has an {option} of its own")
    ours = frozenset(OPTIONS).difference(own)
    for group in optimizer.param_groups:
        for option in ours:
            _check(option, group.setdefault(option, optimizer.defaults[option]))
    hooks = _Hooks(ours)
    optimizer.register_step_pre_hook(hooks.before)
    optimizer.register_step_post_hook(hooks.after)
    return optimizer


def _check(option: str, value: object) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
        raise ConfigurationError(f"{option} must be a finite number >= 0, got {value!r}")


class _Call(dict[str, Any]):
    """The keyword arguments of one call of ``step()``, alive as long as that runs."""


class _Hooks:
    """What happens before and after a step.

    A class whose ``step()`` calls its base's has both run the hooks, as torch wraps the ``step()`` of each. Only the
    outer one counts: it begins while no call runs. (A call that has raised an error runs no more.)

    Args:
        options: those of `OPTIONS` that are not the optimizer's own.
    """

    def __init__(self, options: frozenset[str]) -> None:
        self._options = options
        self._call: weakref.ref[_Call] | None = None
        self._raw: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._running() is not None:
            return None
        if any(value is not None for value in (*args[1:], *kwargs.values())):
            raise ConfigurationError("a regularized optimizer must step without a closure: it would miss its gradient")
        call = _Call(kwargs)
        self._call = weakref.ref(call)
        self._raw = []
        for group in optimizer.param_groups:
            parameters, grads = _with_gradient(group)
            if parameters and (l2 := self._option(group, "l2")):
                raised = torch._foreach_add(grads, parameters, alpha=-l2 if group.get("maximize") else l2)
                for parameter, grad, new in zip(parameters, grads, raised, strict=True):
                    self._raw.append((parameter, grad))
                    parameter.grad = new
            if parameters and (decay := self._option(group, "decay")):
                torch._foreach_mul_(parameters, 1 - float(group["lr"]) * decay)
        return args, call

    @torch.no_grad()
    def after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if kwargs is not self._running():
            return
        for group in optimizer.param_groups:
            parameters, _ = _with_gradient(group)
            if parameters and (l1 := self._option(group, "l1")):
                threshold = float(group["lr"]) * l1
                inside = torch._foreach_clamp_max(parameters, threshold)
                torch._foreach_clamp_min_(inside, -threshold)
                torch._foreach_sub_(parameters, inside)
        for parameter, grad in self._raw:
            parameter.grad = grad
        self._raw = []

    def _running(self) -> _Call | None:
        return None if self._call is None else self._call()

    def _option(self, group: dict[str, Any], option: str) -> float:
        return float(group[option]) if option in self._options else 0.0


def _with_gradient(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The group's parameters that have a gradient, and these."""
    pairs = [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]
    return [parameter for parameter, _ in pairs], [grad for _, grad in pairs]
