from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from psgd.training.rules.ftrl import FTRL
from tests.training.rules.references import SHAPES, Array, Step, check_against, weights_and_gradients


def algorithm_1(alpha: float, beta: float, l1: float, l2: float, sign: float = 1.0) -> Step:
    """As it is printed: the weights of a step are made of z and n before it, coordinate by coordinate."""
    z, n = [np.zeros(shape) for shape in SHAPES], [np.zeros(shape) for shape in SHAPES]

    def step(weights: list[Array], gradients: list[Array], count: int) -> None:
        for k, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            for i in np.ndindex(weight.shape):
                g, w = sign * gradient[i], weight[i]
                sigma = (np.sqrt(n[k][i] + g**2) - np.sqrt(n[k][i])) / alpha
                z[k][i] += g - sigma * w
                n[k][i] += g**2
                if abs(z[k][i]) <= l1:
                    weight[i] = 0.0
                else:
                    weight[i] = -(z[k][i] - np.sign(z[k][i]) * l1) / ((beta + np.sqrt(n[k][i])) / alpha + l2)

    return step


def from_zero(step: Step) -> Step:
    """The algorithm begins with all weights at 0."""

    def first(weights: list[Array], gradients: list[Array], count: int) -> None:
        if count == 1:
            for weight in weights:
                weight[...] = 0.0
        step(weights, gradients, count)

    return first


def make(parameters: list[nn.Parameter], **arguments: Any) -> FTRL:
    for parameter in parameters:
        nn.init.zeros_(parameter)
    return FTRL(parameters, **arguments)


@pytest.mark.parametrize(
    ("alpha", "beta", "l1", "l2"), [(0.1, 1.0, 0.0, 0.0), (0.5, 1.0, 1.0, 0.0), (0.05, 0.1, 0.3, 2.0)]
)
def test_from_zero_it_is_algorithm_1(alpha: float, beta: float, l1: float, l2: float) -> None:
    check_against(
        from_zero(algorithm_1(alpha, beta, l1, l2)),
        lambda parameters: make(parameters, lr=alpha, beta=beta, l1=l1, l2=l2),
    )


def test_maximizing_turns_the_gradient_around() -> None:
    check_against(
        from_zero(algorithm_1(0.1, 1.0, 0.5, 0.0, -1.0)),
        lambda parameters: make(parameters, lr=0.1, l1=0.5, maximize=True),
    )


def starting_anywhere(rates: list[float], beta: float, l1: float, l2: float) -> Step:
    """What the class's docstring adds to the algorithm: first weights that are not 0, and a rate that changes."""
    z: list[Array] = []
    n = [np.zeros(shape) for shape in SHAPES]

    def step(weights: list[Array], gradients: list[Array], count: int) -> None:
        alpha, before = rates[count - 1], rates[max(count - 2, 0)]
        if count == 1:
            z.extend(-(weight * (beta / alpha + l2) + np.sign(weight) * l1) for weight in weights)
        for k, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            old = (beta + np.sqrt(n[k])) / before
            n[k] += gradient**2
            new = (beta + np.sqrt(n[k])) / alpha
            z[k] += gradient - (new - old) * weight
            weight[...] = np.where(np.abs(z[k]) <= l1, 0.0, -(z[k] - np.sign(z[k]) * l1) / (new + l2))

    return step


def test_it_starts_at_the_first_weights_and_follows_a_schedule() -> None:
    rates = [0.1 * 0.9**count for count in range(20)]

    def scheduled(parameters: list[nn.Parameter]) -> FTRL:
        optimizer = FTRL(parameters, lr=0.1, l1=0.25, l2=0.5)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        optimizer.register_step_post_hook(lambda *_: schedule.step())
        return optimizer

    check_against(starting_anywhere(rates, 1.0, 0.25, 0.5), scheduled)


def test_without_gradients_weights_keep_their_value_at_any_rate() -> None:
    first, _ = weights_and_gradients(0)
    parameters = [nn.Parameter(torch.tensor(weight)) for weight in first]
    optimizer = FTRL(parameters, l1=0.5)
    for lr in (0.1, 1.0, 0.01, 0.0, 1e-9, 0.1):
        optimizer.param_groups[0]["lr"] = lr
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    for parameter, weight in zip(parameters, first, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-12)


def test_a_rate_of_0_changes_nothing() -> None:
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    optimizer = FTRL([weight], lr=0.0)
    optimizer.step()
    assert (weight.item(), dict(optimizer.state)) == (1.0, {})


def test_l1_makes_weights_exactly_zero() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = FTRL([weight], lr=1.0, l1=1.0)
    for _ in range(3):
        weight.grad = torch.tensor([0.3, 2.0])
        optimizer.step()
    assert weight[0].item() == 0.0
    assert weight[1].item() < -0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, r"^lr must be >= 0, got -1\.0$"),
        ({"beta": 0.0}, r"^beta must be > 0, got 0\.0$"),
        ({"l1": -1.0}, r"^l1 must be >= 0, got -1\.0$"),
        ({"l2": -1.0}, r"^l2 must be >= 0, got -1\.0$"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FTRL([nn.Parameter(torch.zeros(1))], **arguments)
