from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from psgd.training.forms import Form, use_fused
from psgd.training.optimizers import OPTIMIZERS, resolve_optimizer

TORCHS = sorted(
    name
    for name, optimizer in OPTIMIZERS.items()
    if optimizer.__module__.startswith("torch.") and name not in ("lbfgs", "sparseadam")
)
FUSED = {"adagrad", "adam", "adamw", "sgd"}


def train(optimizer: Optimizer, parameters: list[nn.Parameter], steps: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def make_parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 77), (130,))]


def named(parameters: list[nn.Parameter]) -> list[tuple[str, Tensor]]:
    return [(str(index), parameter) for index, parameter in enumerate(parameters)]


@pytest.mark.parametrize("name", TORCHS)
def test_the_form_chosen_after_construction_gives_the_bits_of_the_form_chosen_at_it(name: str) -> None:
    args = {"momentum": 0.9} if name in ("sgd", "rmsprop") else {}
    parameters, expected = make_parameters(), make_parameters()
    if name == "muon":  # takes matrices only
        parameters, expected = parameters[:1], expected[:1]
    optimizer = resolve_optimizer(name, 0.05, args)(named(parameters))
    form = use_fused(optimizer)
    assert form == ("fused" if name in FUSED else "plain" if name == "muon" else "foreach")
    options: dict[str, Any] = {} if form == "plain" else {form: True}
    reference = resolve_optimizer(name, 0.05, {**args, **options})(named(expected))
    assert torch.equal(train(optimizer, parameters), train(reference, expected))


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({"fused": False}, "plain"),
        ({"foreach": False}, "plain"),
        ({"foreach": True}, "foreach"),
        ({"fused": True}, "fused"),
        ({"differentiable": True}, "plain"),
    ],
)
def test_the_users_choice_of_a_form_is_kept(options: dict[str, Any], form: Form) -> None:
    optimizer = Adam(make_parameters(), **options)
    before = dict(optimizer.param_groups[0])
    assert use_fused(optimizer) == form
    assert optimizer.param_groups[0] == before


def test_the_slowest_form_of_several_groups_is_named() -> None:
    first, second = make_parameters()
    groups: list[dict[str, Any]] = [{"params": [first]}, {"params": [second], "foreach": False}]
    optimizer = Adam(groups)
    assert use_fused(optimizer) == "plain"
    assert [group["fused"] for group in optimizer.param_groups] == [True, None]


@pytest.mark.parametrize(
    ("args", "form"), [({"nesterov": True}, "fused"), ({}, "fused"), ({"dampening": 0.5}, "foreach")]
)
def test_momentum_of_a_parameter_may_begin_later_than_that_of_others(args: dict[str, Any], form: Form) -> None:
    """Torch's fused SGD alone fails of that."""
    ours, theirs = make_parameters(), make_parameters()
    optimizer = torch.optim.SGD(ours, lr=0.5, momentum=0.5, **args)
    plain = torch.optim.SGD(theirs, lr=0.5, momentum=0.5, foreach=False, **args)
    assert use_fused(optimizer) == form
    for step in range(4):
        for parameters in (ours, theirs):
            parameters[0].grad = torch.ones(5, 77)
            parameters[1].grad = None if step < 2 else torch.ones(130)
        optimizer.step()
        plain.step()
    torch.testing.assert_close(ours, theirs)


def test_a_tensor_as_learning_rate_keeps_the_plain_form() -> None:
    parameters = make_parameters()
    optimizer = torch.optim.NAdam(parameters, lr=torch.tensor(0.1))
    assert use_fused(optimizer) == "plain"
    assert train(optimizer, parameters).isfinite().all()


def test_state_that_was_made_elsewhere_keeps_an_optimizer_from_its_fused_form() -> None:
    elsewhere = [nn.Parameter(torch.empty(3, device="meta"))]
    assert use_fused(torch.optim.Adagrad(elsewhere)) == "foreach"  # has counted its steps on the CPU from the start
    assert use_fused(torch.optim.Adam(elsewhere)) == "fused"  # makes its state where the parameters are, later
    assert use_fused(torch.optim.Adagrad(make_parameters())) == "fused"
