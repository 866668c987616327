"""Callbacks that decide: what of a Trainer's callbacks becomes a rule of the run instead of listening to it."""

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

from psgd.config import ScheduleFactory
from psgd.errors import ConfigurationError
from psgd.training.callbacks import Callback, LearningRateScheduler
from psgd.training.own_schedules import EpochSchedule
from psgd.training.policies import (
    EarlyStopping,
    ModelCheckpoint,
    Policies,
    ReduceLROnPlateau,
    StopAfter,
    StopAtTarget,
)

BY_EVALUATION = (EarlyStopping, StopAtTarget, StopAfter, ReduceLROnPlateau, ModelCheckpoint)
Kind = TypeVar("Kind", bound=Callback)


def check_callbacks(callbacks: object, own_loop: bool, evaluates: bool, lr_scheduler: bool) -> None:
    """Refuse callbacks that are none, contradict each other, or lack what they decide from.

    Args:
        own_loop: the user's training loop takes the place of the built-in one.
        evaluates: there are evaluations.
        lr_scheduler: there is a schedule beside them.

    Raises:
        ConfigurationError: one does.
    """
    if not isinstance(callbacks, Sequence):
        raise ConfigurationError(f"callbacks must be a list of psgd.Callback, got {callbacks!r}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise ConfigurationError(f"callbacks must be psgd.Callback objects, got {callback!r}")
    for kind in (*BY_EVALUATION, LearningRateScheduler):
        name, count = kind.__name__, sum(isinstance(callback, kind) for callback in callbacks)
        if count > 1:
            raise ConfigurationError(f"callbacks must hold at most one {name}, got {count}")
        if count and own_loop:
            raise ConfigurationError(f"callbacks: {name} does not reach into a train_loop: do the same in the loop")
        if count and kind in BY_EVALUATION and not evaluates:
            raise ConfigurationError(f"callbacks: {name} needs val_data, got none")
    if lr_scheduler and _only(callbacks, LearningRateScheduler) is not None:
        raise ConfigurationError("lr_scheduler must be left out beside a LearningRateScheduler: give one of them")


def policies_of(callbacks: Sequence[Callback], lr: float) -> Policies:
    """What evaluations decide.

    Args:
        lr: the optimizer's largest learning rate.
    """
    return Policies(
        stopping=_only(callbacks, EarlyStopping),
        plateau=_only(callbacks, ReduceLROnPlateau),
        keeping=_only(callbacks, ModelCheckpoint),
        lr=lr,
        target=_only(callbacks, StopAtTarget),
        limit=_only(callbacks, StopAfter),
    )


def schedule_of(
    callbacks: Sequence[Callback],
    lr_scheduler: ScheduleFactory | None,
    batches_per_epoch: int | None,
    batches_per_tick: int = 1,
) -> ScheduleFactory | None:
    """The schedule, also where a callback stands for it; None of either: a constant learning rate.

    Args:
        batches_per_epoch: that a slot draws.
        batches_per_tick: more than one with local steps.

    Raises:
        ConfigurationError: if an epoch does not begin with a tick.
    """
    by_epoch = _only(callbacks, LearningRateScheduler)
    if by_epoch is None or batches_per_epoch is None:
        return lr_scheduler
    if batches_per_epoch % batches_per_tick:
        raise ConfigurationError(
            f"callbacks: LearningRateScheduler needs local steps that divide {batches_per_epoch}, the batches that a "
            f"slot draws in an epoch, got {batches_per_tick}; give an lr_scheduler instead"
        )
    return partial(EpochSchedule, fn=by_epoch.function, ticks_per_epoch=batches_per_epoch // batches_per_tick)


def _only(callbacks: Sequence[Callback], kind: type[Kind]) -> Kind | None:
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
