"""The form in which an optimizer updates: fused, foreach or plain. Their last bits differ."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

Form = Literal["fused", "foreach", "plain"]
FORMS: tuple[Form, ...] = ("plain", "foreach", "fused")  # slowest first


def use_fused(optimizer: Optimizer) -> Form:
    """Switch an optimizer to the fastest form of update that its class has: fused, else foreach.

    The forms differ in the last bits, so whoever wants a shard's bits must call this, too. Groups whose user
    chose a form keep it.

    Returns:
        The form in use; the slowest one where groups differ.
    """
    if isinstance(optimizer, SGD):
        optimizer.register_step_pre_hook(_complete_momentum)
    return min((_use_fused(group, optimizer.state) for group in optimizer.param_groups), key=FORMS.index)


def _use_fused(group: dict[str, Any], state: Mapping[Tensor, Mapping[str, Any]]) -> Form:
    chosen = group.get("fused") is not None or group.get("foreach") is not None
    # Neither form can be differentiated through, and foreach takes no tensors for numbers.
    unfit = group.get("differentiable", False) or any(isinstance(option, Tensor) for option in group.values())
    first_differs = bool(group.get("dampening"))  # what `_complete_momentum` does needs it to be 0
    if not chosen and not unfit:
        if (
            "fused" in group
            and not first_differs
            and all(_may_be_fused(parameter, state.get(parameter, {})) for parameter in group["params"])
        ):
            group["fused"] = True
        elif "foreach" in group:
            group["foreach"] = True
    return "fused" if group.get("fused") else "foreach" if group.get("foreach") else "plain"


def _complete_momentum(optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    """Momentum of 0 for parameters that have their first gradient later than others: fused SGD takes all or none."""
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"] and not group["dampening"]:
            states = [(p, optimizer.state[p]) for p in group["params"] if p.grad is not None]
            without = [(p, state) for p, state in states if state.get("momentum_buffer") is None]
            if len(without) < len(states):
                for parameter, state in without:
                    state["momentum_buffer"] = torch.zeros_like(parameter)


def _may_be_fused(parameter: Tensor, state: Mapping[str, Any]) -> bool:
    """Adagrad makes its state at once, and on a GPU such that only the other forms can go on with it."""
    beside = all(value.device == parameter.device for value in state.values() if isinstance(value, Tensor))
    return parameter.is_floating_point() and beside
