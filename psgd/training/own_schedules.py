"""The schedules that torch lacks: one after another whatever they are, a linear warm-up, and Keras' by epochs."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from psgd.config import ScheduleFactory
from psgd.errors import ConfigurationError

Rate = Callable[[int, float], float]
"""(epoch, learning rate so far) to the learning rate of the epoch."""
_Options = list[dict[str, Any]]  # of each parameter group, without its parameters


class InTurn(LRScheduler):
    """Schedules one after another, each from its own tick 0, on the options that the optimizer had at first.

    What ``torch.optim.lr_scheduler.SequentialLR`` does, but for every schedule at every place: that one can not go on
    to a ``ChainedScheduler`` or to another sequence, and lets one-cycle change what comes before it.

    Args:
        schedules: make them from the optimizer; all are made at once.
        milestones: ticks at which the next one begins, ascending, one less than there are schedules.

    Example:
        >>> from functools import partial
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> halves, thirds = (partial(torch.optim.lr_scheduler.ExponentialLR, gamma=1 / n) for n in (2, 3))
        >>> schedule, rates = InTurn(optimizer, [halves, thirds], [2]), []
        >>> for _ in range(4):
        ...     rates += schedule.get_last_lr()
        ...     optimizer.step()
        ...     schedule.step()
        >>> [round(rate, 3) for rate in rates]
        [1.0, 0.5, 1.0, 0.333]
    """

    def __init__(self, optimizer: Optimizer, schedules: Sequence[ScheduleFactory], milestones: Sequence[int]) -> None:
        self.optimizer = optimizer
        self.last_epoch = 0
        self.milestones = tuple(milestones)
        self.turns: list[LRScheduler] = []
        self._first: list[_Options] = []  # what each begins with
        before = _options(optimizer)
        for make in schedules:
            _restore(optimizer, before)
            self.turns.append(make(optimizer))
            self._first.append(_options(optimizer))
        self._begin(0)

    def step(self, epoch: int | None = None) -> None:
        """Tick once.

        Raises:
            ConfigurationError: if a tick is named, as torch once had it.
        """
        if epoch is not None:
            raise ConfigurationError(f"schedules tick one by one, step() takes no number, got {epoch}")
        self.last_epoch += 1
        if self.last_epoch in self.milestones:
            self._begin(1 + self.milestones.index(self.last_epoch))
            return
        self.turns[bisect_right(self.milestones, self.last_epoch)].step()
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _begin(self, turn: int) -> None:
        _restore(self.optimizer, self._first[turn])
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def _options(optimizer: Optimizer) -> _Options:
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def _restore(optimizer: Optimizer, options: _Options) -> None:
    """Give the groups these options and no others: schedules keep notes there, such as ``initial_lr``."""
    for group, earlier in zip(optimizer.param_groups, options, strict=True):
        for key in group.keys() - earlier.keys() - {"params"}:
            del group[key]
        group.update(earlier)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The factor of a linear warm-up: (tick + 1) / steps for the first ``steps`` ticks, then 1 (Goyal et al. 2017).

    Example:
        >>> [WarmUp(4)(tick) for tick in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """

    steps: int

    def __call__(self, tick: int) -> float:
        """The factor at a tick, for ``LambdaLR``."""
        return min((tick + 1) / self.steps, 1.0)


class EpochSchedule(LRScheduler):
    """The learning rate by epochs, as Keras' ``LearningRateScheduler`` sets it.

    At the first tick of each epoch the learning rate of each group becomes ``fn(epoch, lr)``, where ``lr`` is the
    one that the group has; then it stays. Every shard calls ``fn`` for itself, so it must depend on nothing else.

    Args:
        fn: epochs count from 0.
        ticks_per_epoch: steps in an epoch.

    Raises:
        ConfigurationError: ``fn`` does not return a finite number >= 0, or an epoch has no ticks.

    Example:
        >>> schedule = EpochSchedule(torch.optim.SGD([torch.zeros(1)], lr=1.0), lambda epoch, lr: lr / 2, 100)
        >>> schedule.get_last_lr()
        [0.5]
    """

    def __init__(self, optimizer: Optimizer, fn: Rate, ticks_per_epoch: int) -> None:
        if ticks_per_epoch < 1:
            raise ConfigurationError(f"ticks_per_epoch must be >= 1, got {ticks_per_epoch}")
        self._fn = fn
        self._ticks_per_epoch = ticks_per_epoch
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rate of each group at this tick; torch calls it."""
        epoch, tick = divmod(self.last_epoch, self._ticks_per_epoch)
        current = [group["lr"] for group in self.optimizer.param_groups]
        return [self._rate(epoch, float(lr)) for lr in current] if tick == 0 else current

    def _rate(self, epoch: int, lr: float) -> float:
        rate: object = self._fn(epoch, lr)
        if isinstance(rate, bool) or not isinstance(rate, float | int) or not (math.isfinite(rate) and rate >= 0):
            name = getattr(self._fn, "__name__", type(self._fn).__name__)
            raise ConfigurationError(f"{name}({epoch}, {lr}) must return a learning rate >= 0, got {rate!r}")
        return float(rate)
