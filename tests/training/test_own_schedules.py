import warnings
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from ray import cloudpickle
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

from psgd.config import ScheduleFactory
from psgd.errors import ConfigurationError
from psgd.training.own_schedules import EpochSchedule, InTurn, WarmUp

TICKS = 14
LINEAR = partial(LinearLR, start_factor=0.25, total_iters=4)
HALVES = partial(ExponentialLR, gamma=0.5)
ONE_CYCLE = partial(OneCycleLR, max_lr=2.0, total_steps=9)
CYCLIC = partial(CyclicLR, base_lr=0.1, max_lr=2.0, step_size_up=3)
COSINE = partial(CosineAnnealingLR, T_max=8)


@pytest.fixture(autouse=True)
def no_updates() -> Iterator[None]:
    """Only rates are looked at here; torch warns of schedules that tick before their optimizer does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        yield


def make_optimizer(*rates: float) -> SGD:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates or (1.0,)]
    return SGD(groups, lr=1.0, momentum=0.9)


def run(schedule: LRScheduler, ticks: int = TICKS) -> list[float]:
    drawn = []
    for _ in range(ticks):
        (group,) = schedule.optimizer.param_groups
        drawn.append(float(group["lr"]))
        assert schedule.get_last_lr() == [group["lr"]]
        schedule.step()
    return drawn


def alone(make: ScheduleFactory, ticks: int = TICKS) -> list[float]:
    return run(make(make_optimizer()), ticks)


@pytest.mark.parametrize("second", [HALVES, COSINE, partial(StepLR, step_size=2)])
def test_where_torchs_own_sequence_works_the_rates_are_its(second: ScheduleFactory) -> None:
    optimizer = make_optimizer()
    torchs = SequentialLR(optimizer, [LINEAR(optimizer), second(optimizer)], [5])
    assert run(InTurn(make_optimizer(), [LINEAR, second], [5])) == pytest.approx(run(torchs), abs=1e-15)


@pytest.mark.parametrize("first", [LINEAR, ONE_CYCLE, CYCLIC, COSINE])
@pytest.mark.parametrize("second", [HALVES, ONE_CYCLE, CYCLIC, LINEAR])
def test_each_schedule_goes_as_if_it_were_alone(first: ScheduleFactory, second: ScheduleFactory) -> None:
    assert run(InTurn(make_optimizer(), [first, second], [5])) == alone(first, 5) + alone(second, TICKS - 5)


def test_products_and_sequences_can_stand_at_any_place() -> None:
    def product(optimizer: Optimizer) -> LRScheduler:
        return ChainedScheduler([HALVES(optimizer), LINEAR(optimizer)], optimizer)

    sequence = partial(InTurn, schedules=[product, HALVES], milestones=[3])
    rates = run(InTurn(make_optimizer(), [HALVES, sequence, product], [2, 8]))
    assert rates == alone(HALVES, 2) + alone(product, 3) + alone(HALVES, 3) + alone(product, 6)


def test_momentum_is_that_of_the_schedule_whose_turn_it_is() -> None:
    optimizer = make_optimizer()
    schedule = InTurn(optimizer, [LINEAR, ONE_CYCLE, HALVES], [2, 4])
    seen = []
    for _ in range(5):
        seen.append(optimizer.param_groups[0]["momentum"])
        schedule.step()
    assert seen[:3] == [0.9, 0.9, 0.95]
    assert 0.85 < seen[3] < 0.95
    assert seen[4] == 0.9
    assert "max_lr" not in optimizer.param_groups[0]


def test_a_tick_that_is_named_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^schedules tick one by one, step\(\) takes no number, got 3$"):
        InTurn(make_optimizer(), [HALVES, LINEAR], [2]).step(3)


def test_a_warm_up_ends_at_the_whole_learning_rate() -> None:
    assert alone(partial(LambdaLR, lr_lambda=WarmUp(4)), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_rate_of_an_epoch_comes_from_the_one_that_the_group_has() -> None:
    optimizer = make_optimizer(1.0, 10.0)
    asked = []

    def fn(epoch: int, lr: float) -> float:
        asked.append((epoch, lr))
        return lr / 2 if epoch else lr

    schedule = EpochSchedule(optimizer, fn, ticks_per_epoch=3)
    seen = []
    for _ in range(7):
        seen.append(tuple(schedule.get_last_lr()))
        schedule.step()
    assert seen == [(1.0, 10.0)] * 3 + [(0.5, 5.0)] * 3 + [(0.25, 2.5)]
    assert asked == [(0, 1.0), (0, 10.0), (1, 1.0), (1, 10.0), (2, 0.5), (2, 5.0)]


def test_epoch_schedules_travel_by_cloudpickle() -> None:
    factory = partial(EpochSchedule, fn=lambda epoch, lr: lr * 0.5**epoch, ticks_per_epoch=1)
    pickled = cloudpickle.dumps(factory)  # type: ignore[no-untyped-call]  # Ray's copy has no types
    assert alone(cloudpickle.loads(pickled), 3) == [1.0, 0.5, 0.125]


@pytest.mark.parametrize("returned", [None, -0.1, float("nan"), "0.1", True])
def test_a_function_that_gives_no_rate_is_named(returned: object) -> None:
    def bad_rates(epoch: int, lr: float) -> float:
        return returned  # type: ignore[return-value]  # that is the point

    with pytest.raises(ConfigurationError) as caught:
        EpochSchedule(make_optimizer(), bad_rates, 3)
    assert str(caught.value) == f"bad_rates(0, 1.0) must return a learning rate >= 0, got {returned!r}"


def test_an_epoch_has_ticks() -> None:
    rate: Callable[[int, float], float] = max
    with pytest.raises(ConfigurationError, match=r"^ticks_per_epoch must be >= 1, got 0$"):
        EpochSchedule(make_optimizer(), rate, 0)
