import copy
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

from psgd.training.rules.base import Rule
from psgd.training.rules.ema_momentum import EMAMomentum
from psgd.training.rules.from_function import optimizer_from
from psgd.training.rules.ftrl import FTRL
from psgd.training.rules.lamb import LAMB
from psgd.training.rules.rmsprop_inner import RMSpropInner


def descend(param: Tensor, grad: Tensor, state: dict[str, Any], lr: float) -> None:
    average = state.setdefault("average", torch.zeros_like(param))
    param.sub_(average.lerp_(grad, 0.5), alpha=lr)


MakeRule = Callable[..., Rule]

RULES: list[MakeRule] = [EMAMomentum, RMSpropInner, FTRL, LAMB, optimizer_from(descend)]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 7), (13,))]


def give_gradients(trained: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in trained:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def values(trained: list[nn.Parameter]) -> list[list[float]]:
    return [parameter.flatten().tolist() for parameter in trained]


@every_rule
def test_gradients_are_not_written_to(rule: MakeRule) -> None:
    trained = parameters()
    optimizer = rule(trained, lr=0.1)
    for seed in range(2):
        give_gradients(trained, seed)
        grads = [parameter.grad for parameter in trained]
        before = [grad.clone() for grad in grads if grad is not None]
        optimizer.step()
        assert all(parameter.grad is grad for parameter, grad in zip(trained, grads, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(grads, before, strict=True) if a is not None)


@every_rule
def test_parameters_without_gradient_are_left_alone(rule: MakeRule) -> None:
    trained = parameters()
    first, second = values(trained)
    optimizer = rule(trained, lr=0.1)
    trained[0].grad = torch.ones(5, 7)
    optimizer.step()
    assert values(trained)[0] != first
    assert values(trained)[1] == second
    assert trained[1] not in optimizer.state


@every_rule
def test_groups_have_their_own_rate_and_schedules_set_it(rule: MakeRule) -> None:
    trained, apart = parameters(), parameters()
    together = rule([{"params": trained[:1]}, {"params": trained[1:], "lr": 0.5}], lr=0.1)
    alone = [rule(apart[:1], lr=0.1), rule(apart[1:], lr=0.5)]
    schedules = [StepLR(optimizer, step_size=1, gamma=0.5) for optimizer in (together, *alone)]
    for seed in range(3):
        give_gradients(trained, seed)
        give_gradients(apart, seed)
        for optimizer, schedule in zip((together, *alone), schedules, strict=True):
            optimizer.step()
            schedule.step()
    assert values(trained) == values(apart)


@every_rule
def test_a_closure_is_called_with_gradients_on(rule: MakeRule) -> None:
    trained, expected = parameters(), parameters()
    optimizer = rule(trained, lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = sum((parameter.square().sum() for parameter in trained), torch.zeros(()))
        loss.backward()
        return loss

    for parameter in expected:
        parameter.grad = 2 * parameter.detach()
    rule(expected, lr=0.1).step()
    loss = optimizer.step(closure)
    assert loss.item() == pytest.approx(sum(p.square().sum().item() for p in parameters()))
    assert values(trained) == values(expected)
    assert optimizer.step() is None


@every_rule
def test_training_goes_on_from_a_saved_state(rule: MakeRule) -> None:
    trained = parameters()
    optimizer = rule(trained, lr=0.1)
    give_gradients(trained, 0)
    optimizer.step()
    memory = io.BytesIO()
    torch.save(optimizer.state_dict(), memory)
    memory.seek(0)
    restored = copy.deepcopy(trained)
    going_on = rule(restored, lr=0.7)
    going_on.load_state_dict(torch.load(memory, weights_only=True))
    for continued, its_parameters in ((optimizer, trained), (going_on, restored)):
        give_gradients(its_parameters, 1)
        continued.step()
    assert values(restored) == values(trained)


@every_rule
@pytest.mark.parametrize("lr", [-0.1, float("nan")])
def test_a_negative_rate_is_refused(rule: MakeRule, lr: float) -> None:
    with pytest.raises(ValueError, match=f"^lr must be >= 0, got {lr}$"):
        rule(parameters(), lr=lr)


@every_rule
def test_named_parameters_keep_their_names(rule: MakeRule) -> None:
    optimizer = partial(rule, lr=0.1)(nn.Linear(2, 1).named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
