"""An optimizer and its schedule, which ticks with the samples drawn, however often the optimizer steps."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from psgd.config import ScheduleFactory
from psgd.training.forms import use_fused


class TickingOptimizer:
    """An optimizer in its fastest form, at the learning rates of a tick.

    Args:
        optimizer: which has not stepped yet.
        schedule: called with it; None: its learning rates stay.
    """

    def __init__(self, optimizer: Optimizer, schedule: ScheduleFactory | None) -> None:
        use_fused(optimizer)
        self._optimizer = optimizer
        self._schedule = None if schedule is None else schedule(optimizer)
        self._ticks = 0

    def rates(self, tick: int, lr_factor: float) -> tuple[float, ...]:
        """The learning rates that a step with the same arguments would use, one a parameter group."""
        self._tick(tick)
        with _scaled(self._optimizer.param_groups, lr_factor):
            return tuple(float(group["lr"]) for group in self._optimizer.param_groups)

    def rates_of(self, parameters: Sequence[Tensor], tick: int, lr_factor: float) -> list[float]:
        """The same for single parameters; 0 for one that the optimizer has left out."""
        groups = zip(self._optimizer.param_groups, self.rates(tick, lr_factor), strict=True)
        known = {id(parameter): rate for group, rate in groups for parameter in group["params"]}
        return [known.get(id(parameter), 0.0) for parameter in parameters]

    def step(self, tick: int, lr_factor: float) -> tuple[float, ...]:
        """Step once.

        Args:
            tick: bring the schedule to this many ticks before; it does not go back.
            lr_factor: multiply the schedule's learning rates with this.

        Returns:
            The learning rates used, one a parameter group.
        """
        lr = self.rates(tick, lr_factor)
        with _scaled(self._optimizer.param_groups, lr_factor):
            self._optimizer.step()
        return lr

    def _tick(self, tick: int) -> None:
        """Bring the schedule to so many ticks."""
        if self._schedule is not None:
            with warnings.catch_warnings():
                # A step that closes without an update ticks before the optimizer's first step: torch warns of that.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
                for _ in range(tick - self._ticks):
                    self._schedule.step()
            self._ticks = max(self._ticks, tick)


@contextmanager
def _scaled(groups: Sequence[dict[str, Any]], factor: float) -> Iterator[None]:
    """Other learning rates for one step: schedules may go on from the rates that they find."""
    scheduled = [group["lr"] for group in groups]
    if factor != 1.0:
        for group in groups:
            group["lr"] = group["lr"] * factor
    yield
    if factor != 1.0:
        for group, lr in zip(groups, scheduled, strict=True):
            group["lr"] = lr
