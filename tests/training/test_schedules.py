import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from psgd.errors import ConfigurationError
from psgd.training.schedules import SCHEDULES, resolve_schedule

ARGS: dict[str, dict[str, Any]] = {
    "cosine": {"T_max": 4},
    "cosine-restarts": {"T_0": 4},
    "cyclic": {"base_lr": 0.1, "max_lr": 1.0},
    "exponential": {"gamma": 0.5},
    "multi-step": {"milestones": [1, 3]},
    "one-cycle": {"max_lr": 1.0, "total_steps": 10},
    "step": {"step_size": 2},
}


def make_optimizer() -> SGD:
    return SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


def rates(schedule: LRScheduler, ticks: int) -> list[float]:
    drawn = []
    for _ in range(ticks):
        drawn.append(float(schedule.get_last_lr()[0]))
        schedule.optimizer.step()
        schedule.step()
    return drawn


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_named_schedule_runs_and_can_be_pickled(name: str) -> None:
    factory = pickle.loads(pickle.dumps(resolve_schedule(name, ARGS.get(name, {}))))
    assert type(factory(make_optimizer())) is SCHEDULES[name]


def test_a_schedule_changes_the_learning_rate() -> None:
    factory = resolve_schedule("step", {"step_size": 2, "gamma": 0.5})
    assert factory is not None
    assert rates(factory(make_optimizer()), 5) == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_a_schedule_is_found_by_the_name_of_its_class() -> None:
    factory = resolve_schedule("ExponentialLR", {"gamma": 0.5})
    assert factory is not None
    assert rates(factory(make_optimizer()), 3) == [1.0, 0.5, 0.25]


def test_functions_and_none_pass_through() -> None:
    def own(optimizer: torch.optim.Optimizer) -> LRScheduler:
        return LambdaLR(optimizer, lambda tick: 1 / (1 + tick))

    assert resolve_schedule(own, {}) is own
    assert resolve_schedule(None, {}) is None


@pytest.mark.parametrize(
    ("schedule", "args", "message"),
    [
        (
            "sine",
            {},
            "schedule must be one of constant, cosine, cosine-restarts, cyclic, exponential, linear, multi-step, "
            "one-cycle, polynomial, step, got 'sine'; for another one give Trainer a function as lr_scheduler",
        ),
        (
            "cosine",
            {},
            "schedule cosine: missing a required argument: 'T_max'; got none; it takes T_max, eta_min, last_epoch",
        ),
        (
            "exponential",
            {"gama": 1},
            "schedule exponential: missing a required argument: 'gamma'; got gama=1; it takes gamma, last_epoch",
        ),
        (
            "one-cycle",
            {"max_lr": 1.0, "total_steps": -5},
            "schedule one-cycle: Expected positive integer total_steps, but got -5; got max_lr=1.0, total_steps=-5; ",
        ),
        ("cosine", {"T_max": 0}, "schedule cosine: "),
        ("step", {"step_size": 0}, "schedule step: "),
        (None, {"gamma": 1}, "schedule arguments need a schedule's name, got gamma without one"),
    ],
)
def test_what_can_not_run_is_refused(schedule: str | None, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_schedule(schedule, args)
    assert str(caught.value).startswith(message)
