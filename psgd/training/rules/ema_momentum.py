"""Momentum as an exponential average of the gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from psgd.training.rules.base import Rule, ascent, check_at_least_0, check_fraction


class EMAMomentum(Rule):
    """Momentum as textbooks write it: v = β·v + (1 − β)·g, then θ −= lr·v, with v = 0 at first.

    As in A. Ng's Deep Learning Specialization, course 2, "Gradient descent with momentum": Adam's first moment
    without its bias correction (Kingma & Ba 2015, Algorithm 1). torch's SGD adds up instead, v = β·v + g, so its
    steps are 1/(1 − β) times as long; with ``dampening=β`` it differs in the first step only, where it takes v = g.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the learning rate.
        beta: the past's share in the average.
        maximize: follow the gradient uphill.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = EMAMomentum([weight], lr=1.0, beta=0.5)
        >>> weight.grad = torch.tensor([1.0])
        >>> optimizer.step(), weight.item()
        (None, 0.5)
        >>> optimizer.step(), weight.item()
        (None, -0.25)
    """

    def __init__(self, params: ParamsT, lr: float = 1e-3, beta: float = 0.9, *, maximize: bool = False) -> None:
        check_at_least_0("lr", lr)
        check_fraction("beta", beta)
        super().__init__(params, {"lr": lr, "beta": beta, "maximize": maximize})

    def _update(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        velocities = self._zeros(parameters, "velocity")
        torch._foreach_mul_(velocities, group["beta"])
        torch._foreach_add_(velocities, grads, alpha=ascent(group) * (1 - group["beta"]))
        torch._foreach_add_(parameters, velocities, alpha=-float(group["lr"]))
