from typing import Any

import pytest
import torch
from torch import nn

from psgd.errors import ConfigurationError
from psgd.training.groups import check_groups, param_groups, spare, undecayed
from psgd.training.optimizers import OPTIMIZERS, MakeOptimizer

NAMES = ("conv.weight", "conv.bias", "norm.weight", "norm.bias", "fc.weight", "fc.bias")


def pairs(*names: str) -> list[tuple[str, torch.Tensor]]:
    return [(name, nn.Parameter(torch.zeros(2, 2))) for name in names]


def sort(names: tuple[str, ...], *patterns: str) -> list[list[str]]:
    """The names in each group."""
    made = torch.optim.SGD(param_groups(pairs(*names), {pattern: {} for pattern in patterns}))
    return [group["param_names"] for group in made.param_groups]


def test_the_first_group_is_the_rest_and_the_first_match_wins() -> None:
    assert sort(NAMES, "norm.*", "*.bias") == [
        ["conv.weight", "fc.weight"],
        ["norm.weight", "norm.bias"],
        ["conv.bias", "fc.bias"],
    ]


def test_several_patterns_may_share_a_group() -> None:
    assert sort(NAMES, "norm.*, *.bias") == [
        ["conv.weight", "fc.weight"],
        ["conv.bias", "norm.weight", "norm.bias", "fc.bias"],
    ]


def test_patterns_match_the_whole_name_and_its_case() -> None:
    assert sort(("bias", "a.bias", "a.Bias"), "bias", "?.bias") == [["a.Bias"], ["bias"], ["a.bias"]]


def test_options_go_to_their_group() -> None:
    _, biases = param_groups(pairs("weight", "bias"), {"bias": {"lr": 0.5, "weight_decay": 0.0}})
    assert (biases["lr"], biases["weight_decay"]) == (0.5, 0.0)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"lbfgs", "sparseadam"}))
@pytest.mark.parametrize("held", [("fc.weight",), ("fc.bias",)])
def test_a_shard_without_tensors_of_a_group_has_the_group(name: str, held: tuple[str, ...]) -> None:
    groups: dict[str, dict[str, Any]] = {"*.bias": {"lr": 0.5}, "norm.*": {"lr": 0.25}}
    named = pairs(*held)
    make: MakeOptimizer = OPTIMIZERS[name]
    optimizer = make(param_groups(named, groups), lr=0.125)
    for _, parameter in named:
        parameter.grad = torch.ones(2, 2)
    optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.5, 0.25]
    assert named[0][1].abs().sum() > 0 or name == "lamb"  # whose steps from zero are as long as the weights


def test_every_pattern_must_match_a_parameter() -> None:
    check_groups(NAMES, {"*.bias": {}, "norm.*": {}})
    with pytest.raises(ConfigurationError) as caught:
        check_groups(NAMES, {"*.bias": {}, "*.bais": {}})
    assert str(caught.value) == (
        "groups: pattern '*.bais' must match a parameter, the model has "
        "conv.weight, conv.bias, norm.weight, norm.bias, fc.weight, fc.bias"
    )


def test_many_parameters_are_not_all_listed() -> None:
    with pytest.raises(ConfigurationError, match=r"the model has (p\d+, ){11}p11 and 3 more$"):
        check_groups([f"p{k}" for k in range(15)], {"q*": {}})


def test_a_pattern_that_others_leave_nothing_to_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_groups(NAMES, {"*.bias": {}, "*.weight": {}, "fc.*": {}})
    assert str(caught.value) == (
        "groups: pattern 'fc.*' must match a parameter that no pattern before it matches, "
        "got only fc.weight, fc.bias; put it first"
    )


def make_norm(norm: type[nn.Module]) -> nn.Module:
    arguments = {nn.GroupNorm: (2, 4), nn.LocalResponseNorm: (2,)}
    affine = {"affine": True} if "Instance" in norm.__name__ else {}
    return norm(*arguments.get(norm, () if "Lazy" in norm.__name__ else (4,)), **affine)


@pytest.mark.parametrize("name", [name for name in dir(nn) if "Norm" in name])
def test_all_of_torchs_normalization_layers_stay_undecayed(name: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), make_norm(getattr(nn, name)))
    if "Lazy" in name:
        model[1](torch.zeros(2, 4, *[3] * int(name[-2])) if name[-2:] != "1d" else torch.zeros(2, 4, 3))
    expected = [f"1.{name}" for name, _ in model[1].named_parameters()]
    assert list(undecayed(model)) == ["0.bias", *expected]
    assert bool(expected) == (name != "LocalResponseNorm")


def test_biases_are_what_is_called_so() -> None:
    model = nn.ModuleDict(
        {"attention": nn.MultiheadAttention(4, 2), "memory": nn.GRU(4, 4), "unbiased": nn.Bilinear(2, 2, 2)}
    )
    assert undecayed(model) == (
        "attention.in_proj_bias",
        "attention.out_proj.bias",
        "memory.bias_ih_l0",
        "memory.bias_hh_l0",
        "unbiased.bias",
    )


def test_a_tied_parameter_has_its_first_name() -> None:
    first, second = nn.LayerNorm(4), nn.LayerNorm(4)
    second.weight = first.weight
    assert undecayed(nn.Sequential(first, second)) == ("0.weight", "0.bias", "1.bias")


def test_names_joined_by_commas_are_one_group() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    rest, chosen = param_groups(model.named_parameters(), {",".join(undecayed(model)): {"weight_decay": 0.0}})
    assert [name for name, _ in rest["params"]] == ["0.weight"]
    assert [name for name, _ in chosen["params"]] == ["0.bias", "1.weight", "1.bias"]


OFF = {"decay": 0.0}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({}, {"conv.bias,fc.bias": OFF}),
        ({"conv.*": {"lr": 1.0}}, {"conv.bias": {**OFF, "lr": 1.0}, "conv.*": {"lr": 1.0}, "fc.bias": OFF}),
        ({"*bias": {"lr": 1.0}}, {"conv.bias,norm.bias,fc.bias": {**OFF, "lr": 1.0}}),
        ({"*bias": {"decay": 1.0}}, {"conv.bias,norm.bias,fc.bias": {"decay": 1.0}}),
        ({"none": {"lr": 1.0}}, {"none": {"lr": 1.0}, "conv.bias,fc.bias": OFF}),
    ],
)
def test_spared_parameters_keep_what_their_group_says(groups: Any, expected: Any) -> None:
    spared = [name for name in NAMES if name.endswith("bias") and (name != "norm.bias" or "*bias" in groups)]
    assert spare(groups, NAMES, spared, OFF) == expected
    assert spare(groups, NAMES, spared, {}) == groups
