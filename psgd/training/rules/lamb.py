"""LAMB: Adam whose step is measured by each tensor's own norm, for large batches."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from psgd.training.rules.base import Rule, ascent, check_at_least_0, check_fraction


class LAMB(Rule):
    """Layer-wise adaptive moments (You et al. 2019, "Large Batch Optimization for Deep Learning", Algorithm 2).

    m = β₁·m + (1 − β₁)·g and v = β₂·v + (1 − β₂)·g², m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ), u = m̂/(√v̂ + ε) + λ·θ,
    then θ −= lr·(‖θ‖/‖u‖)·u, with the norms of the whole tensor; their ratio counts as 1 where one of them is 0.
    Its t counts the steps in which the tensor had a gradient. Slices of a tensor have other norms: it needs
    ``layout="whole"``, which ``auto`` finds.

    Args:
        params: tensors, (name, tensor) pairs or groups.
        lr: the learning rate.
        betas: β₁ and β₂.
        eps: ε.
        weight_decay: λ; it is inside the ratio.
        maximize: follow the gradient uphill.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0, 0.0, 0.0]))  # its norm is 5
        >>> optimizer = LAMB([weight], lr=0.5, betas=(0.5, 0.75), eps=0.0, weight_decay=0.0)
        >>> weight.grad = torch.tensor([1.0, -1.0, 1.0, 1.0])
        >>> optimizer.step(), weight.tolist()
        (None, [1.75, 5.25, -1.25, -1.25])
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        maximize: bool = False,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            check_at_least_0(name, value)
        for index, beta in enumerate(betas):
            check_fraction(f"betas[{index}]", beta)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def _update(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        updates = self._moments(group, parameters, grads)
        torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        norms = zip(torch._foreach_norm(parameters), torch._foreach_norm(updates), strict=True)
        ratios = [torch.where((weight > 0) & (update > 0), weight / update, 1.0) for weight, update in norms]
        torch._foreach_mul_(updates, ratios)
        torch._foreach_add_(parameters, updates, alpha=-float(group["lr"]))

    def _moments(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """m̂/(√v̂ + ε), one a parameter."""
        first, second = group["betas"]
        means, squares = self._zeros(parameters, "exp_avg"), self._zeros(parameters, "exp_avg_sq")
        steps = self._count(parameters)
        torch._foreach_mul_(means, first)
        torch._foreach_add_(means, grads, alpha=ascent(group) * (1 - first))
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - second)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [(1 - second**step) ** 0.5 for step in steps])
        torch._foreach_add_(roots, group["eps"])
        updates = list(torch._foreach_div(means, roots))
        torch._foreach_div_(updates, [1 - first**step for step in steps])
        return updates

    def _count(self, parameters: list[Tensor]) -> list[float]:
        """How often each parameter has been updated, this time included."""
        states = [self.state[parameter] for parameter in parameters]
        for state in states:
            state["step"] = state.get("step", torch.tensor(0.0)) + 1  # a tensor, as torch keeps it
        return [float(state["step"]) for state in states]
