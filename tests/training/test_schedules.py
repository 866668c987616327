import pickle
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
)

from psgd.config import NamedTensors
from psgd.errors import ConfigurationError
from psgd.training.schedules import SCHEDULES, learning_rates, most_ticks, resolve_schedule, schedule

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


def test_the_public_name_takes_the_arguments_as_they_are() -> None:
    assert rates(schedule("cosine", T_max=4)(make_optimizer()), 6) == rates(
        CosineAnnealingLR(make_optimizer(), T_max=4), 6
    )
    args: dict[str, Any] = {"exponential.gamma": 0.5, "linear.total_iters": 2}
    factory = schedule("exponential+linear", **args)
    assert rates(factory(make_optimizer()), 3) == pytest.approx([1 / 3, 1 / 3, 1 / 4])


def test_a_product_is_torchs_own() -> None:
    optimizer = make_optimizer()
    chained = ChainedScheduler([ExponentialLR(optimizer, 0.9), LinearLR(optimizer, 0.5, total_iters=3)], optimizer)
    args: dict[str, Any] = {"exponential.gamma": 0.9, "LinearLR.start_factor": 0.5, "LinearLR.total_iters": 3}
    factory = schedule("exponential + LinearLR", **args)
    made = factory(make_optimizer())
    assert type(made) is ChainedScheduler
    assert rates(made, 8) == rates(chained, 8)


def test_one_schedule_follows_another_and_a_name_can_be_used_twice() -> None:
    args: dict[str, Any] = {
        "linear.start_factor": 0.5,
        "linear.total_iters": 2,
        "constant.factor": 1.0,
        "linear-2.start_factor": 1.0,
        "linear-2.end_factor": 0.5,
        "linear-2.total_iters": 2,
    }
    factory = schedule("linear,constant,linear", milestones=[2, 4], **args)
    made = pickle.loads(pickle.dumps(factory))(make_optimizer())
    assert rates(made, 8) == pytest.approx([0.5, 0.75, 1.0, 1.0, 1.0, 0.75, 0.5, 0.5])


def test_a_warm_up_comes_before_the_schedules_own_tick_0() -> None:
    def cosine() -> LRScheduler:
        return CosineAnnealingLR(make_optimizer(), T_max=6)

    warmed = schedule("cosine", warmup_steps=4, T_max=6)
    assert rates(warmed(make_optimizer()), 10) == [0.25, 0.5, 0.75, 1.0, *rates(cosine(), 6)]


def test_milestones_count_from_the_end_of_the_warm_up() -> None:
    args: dict[str, Any] = {
        "milestones": [2],
        "constant.factor": 0.5,
        "constant.total_iters": 9,
        "exponential.gamma": 0.1,
    }
    made = schedule("constant,exponential", warmup_steps=2, **args)(make_optimizer())
    assert rates(made, 7) == pytest.approx([0.5, 1.0, 0.5, 0.5, 1.0, 0.1, 0.01])


def test_a_warm_up_alone_ends_in_a_constant_rate() -> None:
    factory = pickle.loads(pickle.dumps(resolve_schedule(None, {}, warmup_steps=2)))
    assert rates(factory(make_optimizer()), 4) == [0.5, 1.0, 1.0, 1.0]


def test_every_group_may_have_its_own_numbers() -> None:
    factory = resolve_schedule("one-cycle", {"max_lr": [1.0, 2.0], "total_steps": 10})
    assert factory is not None
    two = SGD([{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)], lr=1.0, momentum=0.9)
    assert factory(two).get_last_lr() == pytest.approx([1 / 25, 2 / 25])


OWN = """
from torch.optim.lr_scheduler import ExponentialLR
def halves(optimizer, gamma=0.5): return ExponentialLR(optimizer, gamma)
def nothing(optimizer): return None
"""


@pytest.fixture
def own_schedules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_schedules_of_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_schedules_of_mine", raising=False)
    return "own_schedules_of_mine"


def test_a_factory_of_the_users_own_has_all_the_same_ways(own_schedules: str) -> None:
    own = f"{own_schedules}:halves"
    assert rates(schedule(own)(make_optimizer()), 3) == [1.0, 0.5, 0.25]
    assert rates(schedule(own, gamma=0.1)(make_optimizer()), 2) == [1.0, 0.1]
    args: dict[str, Any] = {f"{own}.gamma": 0.1, "constant.factor": 1.0}
    assert rates(schedule(f"{own}+constant", **args)(make_optimizer()), 2) == [1.0, 0.1]
    assert rates(schedule(own, warmup_steps=2)(make_optimizer()), 4) == [0.5, 1.0, 1.0, 0.5]


def test_a_factory_that_makes_no_schedule_is_named(own_schedules: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r":nothing must make a torch.optim.lr_scheduler.LRScheduler, got None"
    ):
        schedule(f"{own_schedules}:nothing")(make_optimizer())


@pytest.mark.parametrize("name", ["one-cycle", "cyclic"])
def test_cycling_the_momentum_needs_one(name: str) -> None:
    factory = schedule(name, **ARGS[name])
    adagrad = torch.optim.Adagrad([nn.Parameter(torch.zeros(1))])
    with pytest.raises(ConfigurationError) as caught:
        factory(adagrad)
    assert str(caught.value) == (
        f"schedule {name} cycles the momentum, which Adagrad has not; add cycle_momentum=false"
    )
    schedule(name, cycle_momentum=False, **ARGS[name])(adagrad)


def test_learning_rates_are_those_of_every_group_at_every_tick() -> None:
    model = nn.Linear(2, 1)

    def grouped(named: NamedTensors) -> SGD:
        weight, bias = dict(named).values()
        groups: list[dict[str, Any]] = [{"params": [weight]}, {"params": [bias], "lr": 0.5}]
        return SGD(groups, lr=1.0)

    before = [parameter.clone() for parameter in model.parameters()]
    seen = learning_rates(model.named_parameters(), grouped, schedule("exponential", gamma=0.5), 3)
    assert seen == [(1.0, 0.5), (0.5, 0.25), (0.25, 0.125)]
    assert learning_rates(model.named_parameters(), grouped, None, 2) == [(1.0, 0.5)] * 2
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_a_schedule_that_ends_too_early_is_found_out() -> None:
    one_cycle = schedule("one-cycle", max_lr=1.0, total_steps=5)
    named = [("weight", nn.Parameter(torch.zeros(1)))]
    with pytest.raises(ConfigurationError, match=r"^lr_scheduler fails at tick 6 of 9: Tried to step 6 times"):
        learning_rates(named, partial(SGD, lr=1.0, momentum=0.9), one_cycle, 9)


@pytest.mark.parametrize(
    ("name", "args", "most"),
    [
        ("cosine", {"T_max": 4}, None),
        ("one-cycle", {"max_lr": 1.0, "total_steps": 5}, 5),
        ("exponential+constant", {"exponential.gamma": 1.0}, None),
        ("one-cycle,constant", {"one-cycle.max_lr": 1.0, "one-cycle.total_steps": 5, "milestones": [5]}, None),
        ("one-cycle,constant", {"one-cycle.max_lr": 1.0, "one-cycle.total_steps": 5, "milestones": [7]}, 5),
        ("constant,one-cycle", {"one-cycle.max_lr": 1.0, "one-cycle.total_steps": 5, "milestones": [7]}, 12),
    ],
)
def test_a_schedule_says_how_long_it_lasts(name: str, args: Mapping[str, Any], most: int | None) -> None:
    assert most_ticks(schedule(name, **args)(make_optimizer())) == most
    ticks = 40 if most is None else most
    made = schedule(name, **args)(make_optimizer())
    assert len(rates(made, ticks)) == ticks


def test_functions_and_none_pass_through() -> None:
    def own(optimizer: torch.optim.Optimizer) -> LRScheduler:
        return LambdaLR(optimizer, lambda tick: 1 / (1 + tick))

    assert resolve_schedule(own, {}) is own
    assert resolve_schedule(None, {}) is None


KNOWN = "constant, cosine, cosine-restarts, cyclic, exponential, linear, multi-step, my.pkg:factory, one-cycle, "


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("cosin", {}, f"schedule must be one of {KNOWN}polynomial, step, got 'cosin'; did you mean cosine?"),
        ("cosine", {}, "schedule cosine: missing a required argument: 'T_max'; got none; it takes T_max, eta_min"),
        ("exponential", {"gama": 1}, "schedule exponential has no argument 'gama'; it takes gamma"),
        (
            "one-cycle",
            {"max_lr": 1.0, "total_steps": -5},
            "schedule one-cycle: Expected positive integer total_steps, but got -5; got max_lr=1.0, total_steps=-5; ",
        ),
        ("cosine", {"T_max": 0}, "schedule cosine: "),
        ("step", {"step_size": 0}, "schedule step: "),
        ("multi-step", {"milestones": 3}, "schedule multi-step: 'int' object is not iterable; got milestones=3; "),
        (None, {"gamma": 1}, "schedule arguments need a schedule's name, got gamma without one"),
        (
            "exponential+linear",
            {"gamma": 0.5},
            "schedule argument gamma must say whose it is, such as exponential.gamma",
        ),
        (
            "exponential,linear",
            {"expo.gamma": 0.5, "milestones": [3]},
            "schedule argument must be one of exponential.gamma, linear.gamma, got 'expo.gamma'; did you mean ",
        ),
        (
            "linear,constant",
            {},
            "schedule linear,constant needs milestones=[...], a list of one tick at which the next begins, got None",
        ),
        (
            "linear,constant,linear",
            {"milestones": [5, 3]},
            "schedule linear,constant,linear needs milestones=[...], a list of 2 ascending ticks at which "
            "the next begins, got [5, 3]",
        ),
        (
            "exponential+cyclic",
            {"exponential.gamma": 0.5, "cyclic.base_lr": 0.1, "cyclic.max_lr": 1.0},
            "schedule cyclic can not be multiplied: it sets the learning rate anew at each tick; "
            "put it before or after the others, with a comma",
        ),
        (
            "ReduceLROnPlateau",
            {},
            "schedule must not be ReduceLROnPlateau: it needs an evaluation's metric, which shards have not; "
            "use --plateau, in Python the callback psgd.ReduceLROnPlateau",
        ),
        ("LambdaLR", {}, "schedule must not be LambdaLR: it is made of a function; write one that makes the schedule"),
        ("SequentialLR", {}, "schedule must not be SequentialLR: it is made of schedules; join their names: A,B with"),
        ("no_such_module:make", {}, "schedule no_such_module:make: can not import no_such_module"),
    ],
)
def test_what_can_not_run_is_refused(name: str | None, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_schedule(name, args)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("steps", [-1, 2.5, True])
def test_a_warm_up_has_a_whole_number_of_steps(steps: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^warmup_steps must be a whole number >= 0, got {steps}$"):
        resolve_schedule("cosine", {"T_max": 4}, steps)


def test_every_schedule_of_torch_is_known_by_name_or_refused_with_a_reason() -> None:
    everything = [
        name
        for name, value in vars(torch.optim.lr_scheduler).items()
        if isinstance(value, type) and issubclass(value, LRScheduler) and value is not LRScheduler and name[0] != "_"
    ]
    reasons = {}
    for name in everything:
        with pytest.raises(ConfigurationError) as caught:
            resolve_schedule(name, {"no_such": 1})
        reasons[name] = str(caught.value)
    assert [name for name, reason in reasons.items() if "must be one of" in reason] == []
