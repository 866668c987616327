from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from psgd.training.rules.ema_momentum import EMAMomentum
from tests.training.rules.references import SHAPES, Array, Step, check_against


def reference(lr: float, beta: float, sign: float = 1.0) -> Step:
    velocities = [np.zeros(shape) for shape in SHAPES]

    def step(weights: list[Array], gradients: list[Array], count: int) -> None:
        for k, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            velocities[k] = beta * velocities[k] + (1 - beta) * sign * gradient
            weight -= lr * velocities[k]

    return step


@pytest.mark.parametrize(("lr", "beta"), [(1e-3, 0.9), (0.5, 0.0), (0.01, 0.99)])
def test_it_is_the_textbooks_formula(lr: float, beta: float) -> None:
    check_against(reference(lr, beta), lambda parameters: EMAMomentum(parameters, lr, beta))


def test_maximizing_turns_the_gradient_around() -> None:
    check_against(reference(0.1, 0.9, -1.0), lambda parameters: EMAMomentum(parameters, 0.1, maximize=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, r"^lr must be >= 0, got -1\.0$"),
        ({"lr": float("nan")}, r"^lr must be >= 0, got nan$"),
        ({"beta": 1.0}, r"^beta must be in \[0, 1\), got 1\.0$"),
        ({"beta": -0.1}, r"^beta must be in \[0, 1\), got -0\.1$"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EMAMomentum([nn.Parameter(torch.zeros(1))], **arguments)
