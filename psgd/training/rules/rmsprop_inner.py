"""RMSProp with ε inside the root."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from psgd.training.rules.base import Rule, ascent, check_at_least_0, check_fraction


class RMSpropInner(Rule):
    """RMSProp as textbooks write it: s = β·s + (1 − β)·g², then θ −= lr·g/√(s + ε), with s = 0 at first.

    As in Goodfellow, Bengio & Courville 2016, "Deep Learning", Algorithm 8.5 (after Hinton's lecture 6e, 2012).
    torch's RMSprop divides by √s + ε, which for small gradients makes longer steps: where s is near 0, ε there counts
    as much as ε² here.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the learning rate.
        beta: the past's share in the average of squares.
        eps: ε.
        maximize: follow the gradient uphill.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = RMSpropInner([weight], lr=1.0, beta=0.0, eps=3.0)
        >>> weight.grad = torch.tensor([1.0])
        >>> optimizer.step(), weight.item()
        (None, 0.5)
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, beta: float = 0.9, eps: float = 1e-6, *, maximize: bool = False
    ) -> None:
        check_at_least_0("lr", lr)
        check_fraction("beta", beta)
        check_at_least_0("eps", eps)
        super().__init__(params, {"lr": lr, "beta": beta, "eps": eps, "maximize": maximize})

    def _update(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        squares = self._zeros(parameters, "square_average")
        torch._foreach_mul_(squares, group["beta"])
        torch._foreach_addcmul_(squares, grads, grads, value=1 - group["beta"])
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
        torch._foreach_addcdiv_(parameters, grads, roots, value=-ascent(group) * float(group["lr"]))
