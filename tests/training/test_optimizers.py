import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from psgd.errors import ConfigurationError
from psgd.training.optimizers import EXPECTED, OPTIMIZERS, check_optimizer, optimizer, resolve_optimizer
from psgd.training.rules.ema_momentum import EMAMomentum
from psgd.training.rules.ftrl import FTRL
from psgd.training.rules.lamb import LAMB
from psgd.training.rules.rmsprop_inner import RMSpropInner

NAMES = (
    "adadelta, adafactor, adagrad, adam, adamax, adamw, asgd, ema-momentum, ftrl, lamb, muon, "
    "my.pkg:MyOptimizer, nadam, radam, rmsprop, rmsprop-inner, rprop, sgd"
)
OWN = """
import torch
from torch.optim import SGD, LBFGS

class Halving(torch.optim.SGD):
    def __init__(self, params, lr, factor=0.5):
        super().__init__(params, lr=lr * factor)

class Searching(LBFGS):
    pass

class Rateless(torch.optim.SGD):
    def __init__(self, params, factor=0.5):
        super().__init__(params)

class OpenEnded(torch.optim.SGD):
    def __init__(self, params, **options):
        super().__init__(params, **options)

class Model(torch.nn.Module):
    pass

def descend(param, grad, state, lr, factor=1.0):
    param.sub_(grad, alpha=lr * factor)

def scaled(named_params, lr, factor):
    return SGD([tensor for _, tensor in named_params], lr=lr * factor)

def lazy(named_params, lr):
    return [lr]

constant = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own."""
    (tmp_path / "own_optimizers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_optimizers"


def layer() -> nn.Linear:
    return nn.Linear(2, 1)


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        optimizer(*args, **options)
    return str(caught.value)


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("name", sorted(OPTIMIZERS.keys() - {"lbfgs", "sparseadam"}))
def test_every_optimizer_is_found_in_any_case_and_can_be_pickled(name: str) -> None:
    args = {"maximize": True} if name != "muon" else {"momentum": 0.5}
    factory = pickle.loads(pickle.dumps(resolve_optimizer(name.upper(), 0.25, args)))
    made = factory([("weight", nn.Parameter(torch.zeros(1, 1)))])
    assert type(made) is OPTIMIZERS[name]
    assert {"lr": 0.25, **args}.items() <= made.param_groups[0].items()
    assert made.param_groups[0]["param_names"] == ["weight"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("ema-momentum", "EMAMomentum"), EMAMomentum),
        (("rmsprop-inner", "RMSpropInner"), RMSpropInner),
        (("ftrl", "FTRL"), FTRL),
        (("lamb", "LAMB"), LAMB),
    ],
)
def test_own_rules_have_a_name_and_that_of_their_class(names: tuple[str, ...], expected: type[Optimizer]) -> None:
    for name in names:
        assert type(resolve_optimizer(name, 0.1, {})(layer().named_parameters())) is expected


def test_arguments_reach_the_optimizer() -> None:
    made = optimizer("sgd", 0.1, momentum=0.9, nesterov=True)(layer().named_parameters())
    assert (made.param_groups[0]["momentum"], made.param_groups[0]["nesterov"]) == (0.9, True)
    assert made.param_groups[0]["param_names"] == ["weight", "bias"]


@pytest.mark.parametrize(
    ("name", "lr", "args", "message"),
    [
        ("sdg", 0.1, {}, f"optimizer must be one of {NAMES}, got 'sdg'; did you mean sgd?"),
        ("newton", 0.1, {}, f"optimizer must be one of {NAMES}, got 'newton'"),
        ("sgd", -0.1, {}, "lr must be a finite number >= 0, got -0.1"),
        ("sgd", float("nan"), {}, "lr must be a finite number >= 0, got nan"),
        (
            "rmsprop",
            0.1,
            {"momentun": 0.9},
            "optimizer rmsprop has no argument 'momentun'; it takes alpha, eps, weight_decay, momentum, centered, "
            "capturable, foreach, maximize, differentiable; did you mean momentum?",
        ),
        (
            "ema-momentum",
            0.1,
            {"lr": 0.2},
            "optimizer ema-momentum: lr must be given as lr, not among the other arguments",
        ),
        ("sgd", 0.1, {"momentum": -1}, "optimizer sgd: Invalid momentum value: -1; got lr=0.1, momentum=-1"),
        (
            "sgd",
            0.1,
            {"nesterov": True},
            "optimizer sgd: Nesterov momentum requires a momentum and zero dampening; got lr=0.1, nesterov=True",
        ),
        ("ftrl", 0.1, {"beta": 0}, "optimizer ftrl: beta must be > 0, got 0; got lr=0.1, beta=0"),
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
    ("name", "args"),
    [
        ("sgd", {"momentum": "big"}),
        ("adam", {"betas": 1}),
        ("adam", {"betas": []}),
        ("adam", {"capturable": True, "foreach": True}),  # torch notices in the first step
        ("sgd", {"differentiable": True}),
    ],
)
def test_arguments_of_another_kind_are_refused(name: str, args: dict[str, Any]) -> None:
    assert re.match(rf"optimizer {name}: .*; got lr=0.1, ", refusal(name, 0.1, **args))


def test_parameters_that_an_optimizer_does_not_take_are_refused() -> None:
    factory = resolve_optimizer("muon", 0.1, {})
    with pytest.raises(ConfigurationError, match=r"^optimizer muon: Muon only supports 2D parameters .*; got lr=0.1$"):
        factory(layer().named_parameters())


def test_what_is_no_optimizer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"must return a torch\.optim\.Optimizer, got list$"):
        check_optimizer([])
    check_optimizer(SGD(layer().parameters()))


# ------------------------------------------------------------------ the user's own


def test_an_own_class_is_made_with_its_arguments(own: str) -> None:
    made = optimizer(f"{own}:Halving", 0.5, factor=0.25)(layer().named_parameters())
    assert (type(made).__name__, made.param_groups[0]["lr"]) == ("Halving", 0.125)


def test_an_own_factory_is_called_with_its_arguments(own: str) -> None:
    made = optimizer(f"{own}:scaled", 0.5, factor=0.25, l2=0.5)(layer().named_parameters())
    assert type(made) is SGD
    assert (made.param_groups[0]["lr"], made.param_groups[0]["l2"]) == (0.125, 0.5)


def test_an_own_update_function_becomes_an_optimizer(own: str) -> None:
    weight = nn.Parameter(torch.ones(2))
    made = optimizer(f"{own}:descend", 0.5, factor=0.5)([("weight", weight)])
    weight.grad = torch.ones(2)
    made.step()
    assert (type(made).__name__, weight.tolist()) == ("descend", [0.75, 0.75])


def test_an_open_ended_class_takes_whatever_it_takes(own: str) -> None:
    made = optimizer(f"{own}:OpenEnded", 0.5, momentum=0.25)(layer().named_parameters())
    assert made.param_groups[0]["momentum"] == 0.25
    assert refusal(f"{own}:OpenEnded", 0.5, mass=0.25).startswith(f"optimizer {own}:OpenEnded: ")


def test_classes_and_functions_need_no_name() -> None:
    def half(named: Any, lr: float) -> Optimizer:
        return SGD(named, lr=lr / 2)

    for spec, lr in ((SGD, 0.5), (half, 0.25)):
        made = optimizer(spec, 0.5)(layer().named_parameters())
        assert (type(made), made.param_groups[0]["lr"]) == (SGD, lr)


@pytest.mark.parametrize(
    ("attribute", "args", "message"),
    [
        (
            "Halving",
            {"facotr": 1},
            "optimizer own_optimizers:Halving has no argument 'facotr'; it takes factor; did you mean factor?",
        ),
        (
            "descend",
            {"scale": 1},
            "optimizer own_optimizers:descend has no argument 'scale'; it takes factor",
        ),
        ("scaled", {"scale": 1}, "optimizer own_optimizers:scaled has no argument 'scale'; it takes factor"),
        (
            "Rateless",
            {},
            "optimizer own_optimizers:Rateless must take lr, which schedules set, got (params, factor); " + EXPECTED,
        ),
        (
            "Searching",
            {},
            "optimizer must not be LBFGS: it evaluates the loss again during a step, which a shard can not; "
            "use another one, such as adam",
        ),
        (
            "Model",
            {},
            "optimizer own_optimizers:Model must be a torch.optim.Optimizer or a function, got another class",
        ),
        ("constant", {}, "optimizer own_optimizers:constant must be a function or class, got int"),
        ("absent", {}, "optimizer own_optimizers:absent: module own_optimizers has no attribute 'absent'"),
        (
            "scaled",
            {"groups": {"*": {}}},
            "groups must be left out with own_optimizers:scaled, a function: use psgd.param_groups in it",
        ),
    ],
)
def test_what_is_wrong_with_an_own_one_is_said(own: str, attribute: str, args: dict[str, Any], message: str) -> None:
    assert refusal(f"{own}:{attribute}", 0.1, **args) == message


def test_what_an_own_factory_returns_is_checked(own: str) -> None:
    with pytest.raises(ConfigurationError, match=r"must return a torch\.optim\.Optimizer, got list$"):
        optimizer(f"{own}:lazy", 0.1)(layer().named_parameters())
    with pytest.raises(ConfigurationError, match=rf"^optimizer {own}:scaled: .*missing .*'factor'; got lr=0.1; a "):
        optimizer(f"{own}:scaled", 0.1)(layer().named_parameters())


# ------------------------------------------------------------------ groups and regularization


def test_groups_have_their_own_options() -> None:
    factory = optimizer("adam", 0.1, weight_decay=0.5, groups={"*bias": {"weight_decay": 0.0, "lr": 0.2}})
    rest, biases = pickle.loads(pickle.dumps(factory))(layer().named_parameters()).param_groups
    assert (rest["param_names"], rest["weight_decay"], rest["lr"]) == (["weight"], 0.5, 0.1)
    assert (biases["param_names"], biases["weight_decay"], biases["lr"]) == (["bias"], 0.0, 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"weight_dacay": 0.0},
            "optimizer sgd, group '*bias', has no argument 'weight_dacay'; it takes lr, momentum, dampening, "
            "weight_decay, nesterov, maximize, foreach, differentiable, fused; did you mean weight_decay?",
        ),
        (
            {"momentum": -1},
            "optimizer sgd, group '*bias': Invalid momentum value: -1; got lr=0.1, weight_decay=0.5, momentum=-1",
        ),
        ({"l1": -1.0}, "l1 must be a finite number >= 0, got -1.0"),
        ({"decay": "much"}, "decay must be a finite number >= 0, got 'much'"),
    ],
)
def test_options_of_a_group_are_checked(options: dict[str, Any], message: str) -> None:
    assert refusal("sgd", 0.1, weight_decay=0.5, groups={"*bias": options}) == message


def test_regularization_goes_around_any_optimizer_and_groups_may_differ() -> None:
    factory = optimizer("sgd", 0.5, l1=0.25, decay=0.5, groups={"*bias": {"decay": 0.0, "l1": 0.0, "momentum": 0.5}})
    model = layer()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    made = pickle.loads(pickle.dumps(factory))(model.named_parameters())
    made.step()
    assert model.weight.tolist() == [[0.625, 0.625]]  # 1 - 0.5 * 0.5, then less 0.5 * 0.25
    assert model.bias.tolist() == [1.0]
    assert made.param_groups[1]["momentum"] == 0.5


def test_only_groups_may_be_regularized() -> None:
    made = optimizer("sgd", 0.5, groups={"weight": {"l2": 0.5}})(layer().named_parameters())
    assert [group["l2"] for group in made.param_groups] == [0.0, 0.5]


def test_without_regularization_an_optimizer_stays_as_it_is() -> None:
    made = optimizer("sgd", 0.5)(layer().named_parameters())
    assert not made._optimizer_step_pre_hooks
    assert made.defaults == SGD(layer().parameters(), lr=0.5).defaults


def test_an_optimizer_with_its_own_l1_and_l2_gets_them() -> None:
    made = optimizer("ftrl", 0.5, l1=0.25, l2=0.125, groups={"bias": {"l1": 0.0}})(layer().named_parameters())
    assert [(group["l1"], group["l2"]) for group in made.param_groups] == [(0.25, 0.125), (0.0, 0.125)]
    assert not made._optimizer_step_pre_hooks


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"l2": -0.5}, "l2 must be a finite number >= 0, got -0.5"),
        ({"l1": float("inf")}, "l1 must be a finite number >= 0, got inf"),
        ({"decay": float("nan")}, "decay must be a finite number >= 0, got nan"),
    ],
)
def test_regularization_is_no_negative_number(given: dict[str, float], message: str) -> None:
    assert refusal("sgd", 0.5, **given) == message


def test_l1_is_given_once() -> None:
    with pytest.raises(ConfigurationError, match=r"^l1 of optimizer ftrl must be given once, got 0\.5 and 0\.25$"):
        resolve_optimizer("ftrl", 0.5, {"l1": 0.25}, l1=0.5)
