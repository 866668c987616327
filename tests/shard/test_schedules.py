"""Every schedule through a shard's state, against torch alone."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, SequentialLR

from psgd.config import ScheduleFactory
from psgd.core.effects import How
from psgd.core.layout import Layout, Role, TensorSpec, partition
from psgd.shard.lane import Gradient
from psgd.shard.state import ShardState
from psgd.training.own_schedules import EpochSchedule
from psgd.training.schedules import SCHEDULES, schedule
from psgd.transport.flat import allocate

TICKS = 12
SGD = partial(torch.optim.SGD, lr=0.7, momentum=0.9)
LAYOUT = Layout([TensorSpec("weight", (200,), "float32", Role.PARAMETER)])
ARGS: dict[str, dict[str, Any]] = {
    "constant": {"factor": 0.5, "total_iters": 3},
    "cosine": {"T_max": 4, "eta_min": 0.01},
    "cosine-restarts": {"T_0": 3, "T_mult": 2},
    "cyclic": {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 3, "mode": "triangular2"},
    "exponential": {"gamma": 0.9},
    "linear": {"total_iters": 5},
    "multi-step": {"milestones": [2, 5]},
    "one-cycle": {"max_lr": 1.0, "total_steps": TICKS},
    "polynomial": {"total_iters": 8, "power": 2.0},
    "step": {"step_size": 3, "gamma": 0.5},
}


def through_a_shard(make: ScheduleFactory, ticks: Sequence[int], shards: int = 1) -> list[list[tuple[float, ...]]]:
    """The learning rate of the update at each of the ticks, on every shard."""
    seen = []
    for part in partition(LAYOUT, shards):
        state = ShardState(LAYOUT, [part], SGD, make, whole=False, memory=allocate(part.bytes))
        state.load(allocate(part.bytes))
        gradient = Gradient(allocate(part.pushed.bytes), frozenset())
        seen.append([state.apply([gradient], How(tick)) for tick in ticks])
    return seen


def torch_alone(make: ScheduleFactory) -> list[tuple[float, ...]]:
    """The learning rate of each tick in a loop of one process."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))])
    ticking = make(optimizer)
    rates = []
    for _ in range(TICKS):
        rates.append(tuple(group["lr"] for group in optimizer.param_groups))
        optimizer.step()
        ticking.step()
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_has_torchs_rates_tick_by_tick_and_in_jumps(name: str) -> None:
    expected = torch_alone(partial(SCHEDULES[name], **ARGS[name]))
    made = schedule(name, **ARGS[name])
    assert len(set(expected)) > 1
    assert through_a_shard(made, range(TICKS), shards=2) == [expected] * 2
    jumps = [2, 2, 3, 7, 5, 11]  # grants may come late: the schedule never goes back
    assert through_a_shard(made, jumps) == [[expected[tick] for tick in (2, 2, 3, 7, 7, 11)]]


def test_a_warm_up_is_torchs_own_sequence() -> None:
    def warmed(optimizer: torch.optim.Optimizer) -> LRScheduler:
        up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=3)
        return SequentialLR(optimizer, [up, CosineAnnealingLR(optimizer, T_max=8)], [4])

    (rates,) = through_a_shard(schedule("cosine", warmup_steps=4, T_max=8), range(TICKS))
    assert [rate for (rate,) in rates] == pytest.approx([rate for (rate,) in torch_alone(warmed)], abs=1e-15)
    assert rates[:4] == [(0.7 * (tick + 1) / 4,) for tick in range(4)]


def test_the_rate_of_an_epoch_is_the_same_however_ticks_come() -> None:
    made = partial(EpochSchedule, fn=lambda epoch, lr: lr * (0.5 if epoch else 1.0), ticks_per_epoch=4)
    expected = [(0.7,)] * 4 + [(0.35,)] * 4 + [(0.175,)] * 4
    assert through_a_shard(made, range(TICKS), shards=2) == [expected] * 2
    assert through_a_shard(made, [0, 9]) == [[(0.7,), (0.175,)]]
