import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import StepLR

from psgd.errors import ConfigurationError
from psgd.training.regularization import regularize
from psgd.training.rules.from_function import optimizer_from

SHAPES = ((5, 7), (13,))


def parameters(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def train(optimizer: Optimizer, trained: list[nn.Parameter], steps: int = 5, scale: float = 1.0) -> list[list[float]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in trained:
            parameter.grad = torch.randn(parameter.shape, generator=generator).mul_(scale)
        optimizer.step()
    return [parameter.flatten().tolist() for parameter in trained]


def one(value: float, grad: float = 0.0) -> nn.Parameter:
    weight = nn.Parameter(torch.tensor([value]))
    weight.grad = torch.tensor([grad])
    return weight


def test_l2_is_torchs_weight_decay() -> None:
    ours, torchs = parameters(), parameters()
    for maximize in (False, True):
        sgd = partial(SGD, lr=0.1, momentum=0.9, maximize=maximize, foreach=True)
        regularized = train(regularize(sgd(ours), l2=0.25), ours)
        assert regularized == train(sgd(torchs, weight_decay=0.25), torchs)


def test_decay_is_that_of_adamw() -> None:
    ours, torchs = parameters(), parameters()
    regularized = train(regularize(Adam(ours, lr=0.1, foreach=True), decay=0.25), ours)
    assert regularized == train(AdamW(torchs, lr=0.1, weight_decay=0.25, foreach=True), torchs)


def test_the_l2_gradient_is_that_of_the_weights_before_decay() -> None:
    weight = one(1.0)
    regularize(SGD([weight], lr=0.5), l2=0.5, decay=1.0).step()
    assert weight.item() == 0.5 - 0.25


@pytest.mark.parametrize(
    ("before", "after"), [(1.0, 0.875), (-1.0, -0.875), (0.125, 0.0), (0.0625, 0.0), (-0.0625, 0.0), (0.0, 0.0)]
)
def test_l1_moves_weights_towards_zero_and_stops_there(before: float, after: float) -> None:
    weight = one(before)
    regularize(SGD([weight], lr=0.25), l1=0.5).step()
    assert weight.item() == after


def test_l1_comes_after_the_step() -> None:
    weight = one(1.0, grad=2.0)
    regularize(SGD([weight], lr=0.5), l1=0.5).step()
    assert weight.item() == 0.0  # 1 - 0.5 * 2; shrunk first, it would be -0.25


def test_l1_makes_most_weights_exactly_zero() -> None:
    trained = parameters()
    weights = train(regularize(Adam(trained, lr=0.01), l1=1.0), trained, steps=500, scale=0.01)
    assert sum(weight == 0.0 for tensor in weights for weight in tensor) > 40  # of 48


def test_elastic_net_is_both() -> None:
    weight = one(1.0)
    regularize(SGD([weight], lr=0.5), l1=0.25, l2=0.5).step()
    assert weight.item() == 1.0 - 0.25 - 0.125


def test_maximizing_is_regularized_towards_zero_all_the_same() -> None:
    for options in ({"l2": 0.5}, {"decay": 0.5}, {"l1": 0.5}):
        weight = one(1.0)
        regularize(SGD([weight], lr=0.5, maximize=True), **options).step()
        assert weight.item() == 0.75


def test_the_rate_is_that_of_the_step() -> None:
    weight = one(1.0)
    optimizer = regularize(SGD([weight], lr=0.5), l1=0.5)
    schedule = StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.step()
    schedule.step()
    assert weight.item() == 0.75
    optimizer.step()
    assert weight.item() == 0.625
    optimizer.param_groups[0]["lr"] = 0.125  # as a shard does for one step
    optimizer.step()
    assert weight.item() == 0.5625


def test_groups_may_differ() -> None:
    first, second, third = one(1.0), one(1.0), one(1.0)
    groups: list[dict[str, Any]] = [{"params": [first]}, {"params": [second], "l1": 0.0}]
    optimizer = regularize(SGD(groups, lr=0.5), l1=0.5)
    optimizer.add_param_group({"params": [third]})
    optimizer.step()
    assert (first.item(), second.item(), third.item()) == (0.75, 1.0, 0.75)


def test_a_parameter_without_gradient_is_left_alone() -> None:
    weight = one(1.0)
    weight.grad = None
    regularize(SGD([weight], lr=0.5), l1=0.5, l2=0.5, decay=0.5).step()
    assert weight.item() == 1.0


class Greedy(SGD):
    """Writes to its gradients."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # SGD's is overloaded
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.add_(1.0)
        super().step()


def test_the_gradient_is_not_written_to() -> None:
    weight = one(1.0, grad=3.0)
    grad = weight.grad
    assert grad is not None
    regularize(Greedy([weight], lr=0.5), l1=0.5, l2=0.5).step()
    assert weight.grad is grad
    assert grad.item() == 3.0


@pytest.mark.parametrize("options", [{"l2": 0.5}, {"decay": 0.5}, {"l1": 0.5}])
def test_a_step_that_calls_its_bases_step_is_regularized_once(options: dict[str, float]) -> None:
    class Outer(SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]  # SGD's is overloaded
            super().step()

    SGD([one(1.0)], lr=0.5)  # from now on torch runs the hooks in the base's step, too
    weight = one(1.0)
    regularize(Outer([weight], lr=0.5), **options).step()
    assert weight.item() == 0.75


def test_a_step_that_failed_does_not_end_regularization() -> None:
    class Failing(SGD):
        fails = True

        def step(self, closure: None = None) -> None:  # type: ignore[override]  # SGD's is overloaded
            if self.fails:
                raise RuntimeError("no more")
            super().step()

    weight = one(1.0)
    optimizer = regularize(Failing([weight], lr=0.5), l1=0.5)
    with pytest.raises(RuntimeError, match="no more"):
        optimizer.step()
    Failing.fails = False
    optimizer.step()
    assert weight.item() == 0.75


def test_own_update_functions_are_regularized() -> None:
    def descend(param: Tensor, grad: Tensor, state: dict[str, Any], lr: float) -> None:
        param.sub_(grad, alpha=lr)

    ours, torchs = parameters(), parameters()
    regularized = train(regularize(optimizer_from(descend)(ours, lr=0.1), l1=0.1, l2=0.2, decay=0.3), ours)
    assert regularized == train(regularize(SGD(torchs, lr=0.1, foreach=False), l1=0.1, l2=0.2, decay=0.3), torchs)


def test_slices_get_the_bits_of_whole_tensors() -> None:
    whole = [nn.Parameter(torch.randn(385, generator=torch.Generator().manual_seed(0)))]
    sliced = [nn.Parameter(part.clone()) for part in whole[0].detach().split([192, 193])]
    options = {"l1": 0.1, "l2": 0.2, "decay": 0.3}
    (expected,) = train(regularize(Adam(whole, lr=0.1), **options), whole)
    first, second = train(regularize(Adam(sliced, lr=0.1), **options), sliced)
    assert first + second == expected


@pytest.mark.parametrize("option", ["l1", "l2", "decay"])
@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf"), "1", None])
def test_only_numbers_from_0_are_taken(option: str, value: Any) -> None:
    message = f"^{option} must be a finite number >= 0, got {value!r}$"
    with pytest.raises(ConfigurationError, match=message):
        regularize(SGD([one(1.0)], lr=0.5), **{option: value})
    with pytest.raises(ConfigurationError, match=message):
        regularize(SGD([{"params": [one(1.0)], option: value}], lr=0.5))


def test_an_option_that_the_optimizer_has_itself_stays_its_own() -> None:
    class Sparse(SGD):
        def __init__(self, params: list[nn.Parameter], lr: float, l1: float) -> None:
            super().__init__(params, lr=lr)
            self.defaults["l1"] = self.param_groups[0]["l1"] = l1

    with pytest.raises(ConfigurationError, match=r"^l1 must be given to Sparse itself, which has an l1 of its own$"):
        regularize(Sparse([one(1.0)], 0.5, 0.25), l1=0.5)
    weight = one(1.0)
    regularize(Sparse([weight], 0.5, 0.25), decay=0.5).step()
    assert weight.item() == 0.75


def test_a_closure_is_refused() -> None:
    weight = one(1.0)
    optimizer = regularize(SGD([weight], lr=0.5), l2=0.5)
    for step in (partial(optimizer.step, lambda: 0.0), partial(optimizer.step, closure=lambda: 0.0)):
        with pytest.raises(ConfigurationError, match="must step without a closure"):
            step()
    optimizer.step(None)
    assert weight.item() == 0.75


def test_state_is_the_optimizers_alone() -> None:
    weight = one(1.0, grad=1.0)
    optimizer = regularize(SGD([weight], lr=0.5, momentum=0.5), l1=0.5)
    optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    assert list(state["state"][0]) == ["momentum_buffer"]
    assert state["param_groups"][0]["l1"] == 0.5
