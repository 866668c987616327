"""FTRL-proximal: weights of little use stay at exactly 0."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from psgd.training.rules.base import Rule, ascent, check_at_least_0


class FTRL(Rule):
    """FTRL-proximal with a learning rate for each coordinate (McMahan et al. 2013, "Ad Click Prediction", Algorithm 1).

    With D = (β + √n)/lr + λ₂, a step does n += g², z = c − D·θ + g, c = z limited to ±λ₁, and θ = (c − z)/D, which is
    exactly 0 where z was within ±λ₁. At first n = 0 and c = −sign(θ)·λ₁.

    That is the paper's algorithm with the z of the step before written as c − D·θ, as its formula for θ says. So the
    two things that the paper leaves open need no rule of their own: weights may start anywhere and schedules may
    change lr; without a gradient weights keep their values. A step with lr = 0 does nothing.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the paper's alpha.
        beta: β > 0, which keeps the first steps short.
        l1: λ₁.
        l2: λ₂.
        maximize: follow the gradient uphill.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = FTRL([weight], lr=1.0, l1=1.0)
        >>> weight.grad = torch.tensor([3.0, 0.5])
        >>> optimizer.step(), weight.tolist()
        (None, [-0.5, 0.0])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        beta: float = 1.0,
        l1: float = 0.0,
        l2: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        for name, value in (("lr", lr), ("l1", l1), ("l2", l2)):
            check_at_least_0(name, value)
        if not beta > 0:
            raise ValueError(f"beta must be > 0, got {beta}")
        super().__init__(params, {"lr": lr, "beta": beta, "l1": l1, "l2": l2, "maximize": maximize})

    def _update(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        lr, l1 = float(group["lr"]), group["l1"]
        if lr == 0:
            return
        squares, limited = self._zeros(parameters, "n"), self._limited(parameters, l1)
        torch._foreach_addcmul_(squares, grads, grads)
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_add_(divisors, group["beta"])
        torch._foreach_div_(divisors, lr)
        torch._foreach_add_(divisors, group["l2"])
        sums = torch._foreach_add(limited, grads, alpha=ascent(group))
        torch._foreach_addcmul_(sums, divisors, parameters, value=-1)
        torch._foreach_copy_(limited, sums)
        torch._foreach_clamp_min_(limited, -l1)
        torch._foreach_clamp_max_(limited, l1)
        torch._foreach_copy_(parameters, limited)
        torch._foreach_sub_(parameters, sums)
        torch._foreach_div_(parameters, divisors)

    def _limited(self, parameters: list[Tensor], l1: float) -> list[Tensor]:
        """c, one a parameter."""
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if "c" not in state:
                state["c"] = parameter.sign().mul_(-l1)
        return [state["c"] for state in states]
