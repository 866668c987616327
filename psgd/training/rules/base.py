"""What our own update rules share: the walk over the groups, and the checks of their numbers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Rule(Optimizer, ABC):
    """An optimizer that updates the tensors of a group together; it never writes to their gradients."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update once.

        Args:
            closure: computes the gradients anew and returns the loss.

        Returns:
            What the closure returns; None without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                pairs = [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]
                if pairs:
                    self._update(group, [parameter for parameter, _ in pairs], [grad for _, grad in pairs])
        return loss

    @abstractmethod
    def _update(self, group: dict[str, Any], parameters: list[Tensor], grads: list[Tensor]) -> None:
        """Update the parameters of a group that have a gradient, at least one."""

    def _zeros(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        """The state of that name, one a parameter and shaped like it, zeros at first."""
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if name not in state:
                state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return [state[name] for state in states]


def check_at_least_0(name: str, value: float) -> None:
    """Refuse a negative number.

    Raises:
        ValueError: as torch's optimizers do.
    """
    if not value >= 0:  # so that nan is refused, too
        raise ValueError(f"{name} must be >= 0, got {value}")


def check_fraction(name: str, value: float) -> None:
    """Refuse what can not be the share of the past in an average.

    Raises:
        ValueError: as torch's optimizers do.
    """
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")


def ascent(group: dict[str, Any]) -> int:
    """The sign of the gradient's part in an update: -1 where the group maximizes."""
    return -1 if group["maximize"] else 1
