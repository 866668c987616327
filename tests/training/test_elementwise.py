from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from psgd.config import OptimizerFactory
from psgd.training.elementwise import explain_whole, is_elementwise
from psgd.training.optimizers import OPTIMIZERS, optimizer, resolve_optimizer

WHOLE = {"adafactor", "lamb", "muon"}
SHAPES = {"conv.weight": (4, 1, 3, 3), "fc.weight": (5, 7), "fc.bias": (5,)}

Named = Iterable[tuple[str, Tensor]]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"lbfgs", "sparseadam"}))
def test_optimizers_are_elementwise_but_three(name: str) -> None:
    assert is_elementwise(resolve_optimizer(name, 0.05, {}), SHAPES) == (name not in WHOLE)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        ("adam", {"amsgrad": True, "weight_decay": 0.1}),
        ("rmsprop", {"momentum": 0.9, "centered": True}),
        ("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
        ("sgd", {"momentum": 0.9, "fused": False}),
        ("adam", {"foreach": True}),
        ("sgd", {"momentum": 0.9, "l1": 0.1, "l2": 0.1, "decay": 0.1}),
        ("adam", {"groups": {"fc.*": {"lr": 0.5}, "*bias": {"weight_decay": 0.1}}}),
        ("ftrl", {"l1": 0.1, "l2": 0.1}),
    ],
)
def test_options_and_forms_stay_elementwise(name: str, args: dict[str, Any]) -> None:
    assert is_elementwise(optimizer(name, 0.05, **args), SHAPES)


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


@pytest.mark.parametrize("lr", [0.0, 1e-12])
def test_a_rate_with_which_nothing_moves_hides_nothing(lr: float) -> None:
    assert not is_elementwise(resolve_optimizer("lamb", lr, {}), SHAPES)


def test_why_tensors_must_be_whole_is_said() -> None:
    assert explain_whole(resolve_optimizer("sgd", 0.1, {}), SHAPES) is None
    reason = explain_whole(resolve_optimizer("muon", 0.1, {}), {"fc.weight": (5, 7)})
    assert reason == (
        "layout must be auto or whole with optimizer muon, got sliced: it gives other weights on slices of tensors"
    )
    reason = explain_whole(sorted_by_shape, SHAPES)
    assert (
        reason
        == "layout must be auto or whole with this optimizer, got sliced: it gives other weights on slices of tensors"
    )


def test_trying_out_leaves_the_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()

    def noisy(parameters: Named) -> Optimizer:
        torch.rand(1)
        return SGD(parameters)

    assert is_elementwise(noisy, SHAPES)
    assert torch.equal(torch.get_rng_state(), before)
