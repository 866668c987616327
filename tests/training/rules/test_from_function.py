import inspect
from functools import partial
from typing import Any

import pytest
import torch
from ray import cloudpickle
from torch import Tensor, nn

from psgd.errors import ConfigurationError
from psgd.training.optimizers import optimizer
from psgd.training.rules.from_function import is_update, optimizer_from

State = dict[str, Any]


def heavy_ball(param: Tensor, grad: Tensor, state: State, lr: float, momentum: float = 0.5) -> None:
    """Polyak's."""
    velocity = state.setdefault("velocity", torch.zeros_like(param))
    velocity.mul_(momentum).add_(grad)
    param.sub_(velocity, alpha=lr)


def greedy(param: Tensor, grad: Tensor, state: State, lr: float) -> None:
    param.sub_(grad.mul_(lr))


def demanding(param: Tensor, grad: Tensor, state: State, lr: float, *, power: int) -> None:
    param.sub_(lr * grad**power)


def test_the_function_updates_each_parameter() -> None:
    ours, torchs = nn.Linear(3, 2), nn.Linear(3, 2)
    torchs.load_state_dict(ours.state_dict())
    updates = (
        optimizer_from(heavy_ball)(ours.parameters(), lr=0.1, momentum=0.9),
        torch.optim.SGD(torchs.parameters(), lr=0.1, momentum=0.9, foreach=False),
    )
    for _ in range(3):
        for model, update in zip((ours, torchs), updates, strict=True):
            update.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            update.step()
    assert ours.weight.tolist() == torchs.weight.tolist()
    assert ours.bias.tolist() == torchs.bias.tolist()


def test_the_class_looks_like_the_function() -> None:
    made = optimizer_from(heavy_ball)
    assert (made.__name__, made.__module__, made.__doc__) == ("heavy_ball", __name__, "Polyak's.")
    assert str(inspect.signature(made)) == "(params, lr, *, momentum: float = 0.5)"


def test_options_have_defaults_and_belong_to_groups() -> None:
    groups: list[dict[str, Any]] = [
        {"params": [nn.Parameter(torch.zeros(1))]},
        {"params": [nn.Parameter(torch.zeros(1))], "momentum": 0.25},
    ]
    optimizer = optimizer_from(heavy_ball)(groups, lr=1.0)
    assert [group["momentum"] for group in optimizer.param_groups] == [0.5, 0.25]
    for _ in range(2):
        for group in optimizer.param_groups:
            group["params"][0].grad = torch.ones(1)
        optimizer.step()
    assert [group["params"][0].item() for group in optimizer.param_groups] == [-2.5, -2.25]


def test_the_function_may_change_its_copy_of_the_gradient() -> None:
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.ones(1)
    optimizer_from(greedy)([weight], lr=0.5).step()
    assert (weight.item(), weight.grad.item()) == (-0.5, 1.0)


def test_an_option_without_default_must_be_given() -> None:
    make = optimizer_from(demanding)
    weight = nn.Parameter(torch.zeros(1))
    with pytest.raises(TypeError, match="missing a required argument: 'power'"):
        make([weight], lr=0.1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'pwoer'"):
        make([weight], lr=0.1, power=2, pwoer=2)
    assert make([weight], lr=0.1, power=2).param_groups[0]["power"] == 2


def no_state(param: Tensor, grad: Tensor, lr: float) -> None: ...
def open_ended(param: Tensor, grad: Tensor, state: State, lr: float, **options: float) -> None: ...


@pytest.mark.parametrize("function", [no_state, open_ended])
def test_other_functions_are_refused(function: Any) -> None:
    assert not is_update(function)
    with pytest.raises(ConfigurationError, match=r"^update must be a function of param, grad, state, lr and named "):
        optimizer_from(function)


def test_classes_are_no_update_functions() -> None:
    class Update:
        def __init__(self, param: Tensor, grad: Tensor, state: State, lr: float) -> None: ...

    assert not is_update(Update)
    assert not is_update(3)
    assert is_update(heavy_ball)
    assert is_update(partial(heavy_ball, momentum=0.9))


SCRIPT = """
FACTOR = 0.5

def descend(param, grad, state, lr, power=1):
    state["steps"] = state.get("steps", 0) + 1
    param.sub_(FACTOR * lr * grad**power)

Descend = optimizer_from(descend)
factory = optimizer(descend, lr=0.5, power=2)
"""


def test_what_a_script_defines_travels_to_other_processes() -> None:
    script: dict[str, Any] = {"__name__": "__main__", "optimizer_from": optimizer_from, "optimizer": optimizer}
    exec(SCRIPT, script)  # by value, as nothing else can import it
    script["Descend"]([nn.Parameter(torch.zeros(1))], lr=0.1)  # a check before a run makes one
    pickled = cloudpickle.dumps((script["Descend"], script["factory"]))  # type: ignore[no-untyped-call]
    cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.clear()  # another process has not seen the classes
    made, factory = cloudpickle.loads(pickled)
    assert made is not script["Descend"]
    weight = nn.Parameter(torch.ones(1))
    for travelled in (made([weight], lr=0.5), factory([("weight", weight)])):
        weight.grad = torch.full((1,), 2.0)
        travelled.step()
        assert travelled.state[weight] == {"steps": 1}
    assert weight.item() == 1.0 - 0.5 * 0.5 * 2 - 0.5 * 0.5 * 4
