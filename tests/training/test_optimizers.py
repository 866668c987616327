import pickle
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from psgd.config import OptimizerFactory
from psgd.errors import ConfigurationError
from psgd.training.optimizers import (
    OPTIMIZERS,
    Form,
    check_optimizer,
    is_elementwise,
    resolve_optimizer,
    use_fused,
)

ELEMENTWISE = {
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "asgd",
    "nadam",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
}
FUSED = {"adagrad", "adam", "adamw", "sgd"}
SHAPES = {"conv.weight": (4, 1, 3, 3), "fc.weight": (5, 7), "fc.bias": (5,)}

Named = Iterable[tuple[str, Tensor]]


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


@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
def test_every_optimizer_is_found_in_any_case_and_can_be_pickled(name: str) -> None:
    factory = pickle.loads(
        pickle.dumps(resolve_optimizer(name.upper(), 0.25, {"weight_decay": 0.5} if name != "rprop" else {}))
    )
    optimizer = factory([("weight", nn.Parameter(torch.zeros(1)))])
    assert type(optimizer) is OPTIMIZERS[name]
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_arguments_reach_the_optimizer() -> None:
    optimizer = resolve_optimizer("sgd", 0.1, {"momentum": 0.9, "nesterov": True})(named(make_parameters()))
    assert (optimizer.param_groups[0]["momentum"], optimizer.param_groups[0]["nesterov"]) == (0.9, True)
    assert optimizer.param_groups[0]["param_names"] == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "lr", "args", "message"),
    [
        (
            "sdg",
            0.1,
            {},
            "optimizer must be one of adadelta, adafactor, adagrad, adam, adamax, adamw, asgd, muon, nadam, radam, "
            "rmsprop, rprop, sgd, got 'sdg'",
        ),
        ("sgd", -0.1, {}, "lr must be a finite number >= 0, got -0.1"),
        ("sgd", float("nan"), {}, "lr must be a finite number >= 0, got nan"),
        (
            "rmsprop",
            0.1,
            {"momentun": 0.9},
            "optimizer rmsprop has no argument 'momentun'; it takes alpha, eps, weight_decay, momentum, centered, "
            "capturable, foreach, maximize, differentiable",
        ),
        ("sgd", 0.1, {"momentum": -1}, "optimizer sgd: Invalid momentum value: -1; got momentum=-1"),
        (
            "sgd",
            0.1,
            {"nesterov": True},
            "optimizer sgd: Nesterov momentum requires a momentum and zero dampening; got nesterov=True",
        ),
        (
            "lbfgs",
            0.1,
            {},
            "optimizer must not be LBFGS: it evaluates the loss again during a step, which a shard can not; "
            "use another one, such as adam",
        ),
        (
            "sparseadam",
            0.1,
            {},
            "optimizer must not be SparseAdam: it takes sparse gradients only, and shards hold dense ones; "
            "use another one, such as adam",
        ),
    ],
)
def test_what_can_not_run_is_refused(name: str, lr: float, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_optimizer(name, lr, args)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "args"), [("sgd", {"momentum": "big"}), ("adam", {"betas": 1}), ("adam", {"betas": []})]
)
def test_arguments_of_another_kind_are_refused(name: str, args: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"^optimizer {name}: .*; got "):
        resolve_optimizer(name, 0.1, args)


def test_what_is_no_optimizer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"must return a torch\.optim\.Optimizer, got list$"):
        check_optimizer([])
    check_optimizer(SGD(make_parameters()))


@pytest.mark.parametrize("name", sorted(ELEMENTWISE | {"adafactor", "muon"}))
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


def test_a_tensor_as_learning_rate_keeps_the_plain_form() -> None:
    parameters = make_parameters()
    optimizer = torch.optim.NAdam(parameters, lr=torch.tensor(0.1))
    assert use_fused(optimizer) == "plain"
    assert train(optimizer, parameters).isfinite().all()


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"lbfgs", "sparseadam"}))
def test_torchs_optimizers_are_elementwise_but_two(name: str) -> None:
    assert is_elementwise(resolve_optimizer(name, 0.05, {}), SHAPES) == (name in ELEMENTWISE)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        ("adam", {"amsgrad": True, "weight_decay": 0.1}),
        ("rmsprop", {"momentum": 0.9, "centered": True}),
        ("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
        ("sgd", {"momentum": 0.9, "fused": False}),
        ("adam", {"foreach": True}),
    ],
)
def test_options_and_forms_stay_elementwise(name: str, args: dict[str, Any]) -> None:
    assert is_elementwise(resolve_optimizer(name, 0.05, args), SHAPES)


class Clipped(SGD):
    """Clips each tensor's gradient to a norm of 100."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # SGD's is overloaded
        for group in self.param_groups:
            for parameter in group["params"]:
                nn.utils.clip_grad_norm_(parameter, 100.0)
        super().step()


class Signed(SGD):
    """Follows the gradient's sign."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # SGD's is overloaded
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.sign_()
        super().step()


def sorted_by_shape(parameters: Named) -> Optimizer:
    tensors = [parameter for _, parameter in parameters]
    groups: list[dict[str, Any]] = [
        {"params": [tensor for tensor in tensors if tensor.dim() > 1], "weight_decay": 0.1},
        {"params": [tensor for tensor in tensors if tensor.dim() <= 1], "weight_decay": 0.0},
    ]
    return SGD(groups, lr=0.1)


def sorted_by_name(parameters: Named) -> Optimizer:
    by_name = dict(parameters)
    bias = by_name.pop("fc.bias")
    groups: list[dict[str, Any]] = [{"params": list(by_name.values())}, {"params": [bias], "lr": 0.2}]
    return SGD(groups, lr=0.1)


def grouped_by_suffix(parameters: Named) -> Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [parameter], "weight_decay": 0.0 if name.endswith("bias") else 0.1} for name, parameter in parameters
    ]
    return SGD(groups, lr=0.1)


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (lambda parameters: Signed(parameters, lr=0.1), True),
        (lambda parameters: Clipped(parameters, lr=0.1), False),
        (sorted_by_shape, False),
        (grouped_by_suffix, True),
        (sorted_by_name, False),  # a dict holds one of a name's slices only
    ],
)
def test_own_optimizers_are_tried_out(factory: OptimizerFactory, expected: bool) -> None:
    assert is_elementwise(factory, SHAPES) == expected


def test_trying_out_leaves_the_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()

    def noisy(parameters: Named) -> Optimizer:
        torch.rand(1)
        return SGD(parameters)

    assert is_elementwise(noisy, SHAPES)
    assert torch.equal(torch.get_rng_state(), before)


def test_state_that_was_made_elsewhere_keeps_an_optimizer_from_its_fused_form() -> None:
    elsewhere = [nn.Parameter(torch.empty(3, device="meta"))]
    assert use_fused(torch.optim.Adagrad(elsewhere)) == "foreach"  # has counted its steps on the CPU from the start
    assert use_fused(torch.optim.Adam(elsewhere)) == "fused"  # makes its state where the parameters are, later
    assert use_fused(torch.optim.Adagrad(make_parameters())) == "fused"
