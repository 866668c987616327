from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from psgd.training.rules.rmsprop_inner import RMSpropInner
from tests.training.rules.references import SHAPES, Array, Step, check_against


def reference(lr: float, beta: float, eps: float, sign: float = 1.0) -> Step:
    squares = [np.zeros(shape) for shape in SHAPES]

    def step(weights: list[Array], gradients: list[Array], count: int) -> None:
        for k, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            squares[k] = beta * squares[k] + (1 - beta) * gradient**2
            weight -= lr * sign * gradient / np.sqrt(squares[k] + eps)

    return step


@pytest.mark.parametrize(("lr", "beta", "eps"), [(1e-3, 0.9, 1e-6), (0.1, 0.5, 1e-2), (0.01, 0.0, 1.0)])
def test_it_is_the_textbooks_formula(lr: float, beta: float, eps: float) -> None:
    check_against(reference(lr, beta, eps), lambda parameters: RMSpropInner(parameters, lr, beta, eps))


def test_maximizing_turns_the_gradient_around() -> None:
    check_against(reference(0.1, 0.9, 1e-6, -1.0), lambda parameters: RMSpropInner(parameters, 0.1, maximize=True))


def test_it_differs_from_torchs_where_gradients_are_small() -> None:
    ours, torchs = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    ours.grad = torchs.grad = torch.tensor([1e-4])
    RMSpropInner([ours], lr=1.0, beta=0.0, eps=1e-2).step()
    torch.optim.RMSprop([torchs], lr=1.0, alpha=0.0, eps=1e-2).step()
    assert ours.item() == pytest.approx(-1e-4 / 0.1, rel=1e-4)
    assert torchs.item() == pytest.approx(-1e-4 / 0.0101, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, r"^lr must be >= 0, got -1\.0$"),
        ({"beta": 1.0}, r"^beta must be in \[0, 1\), got 1\.0$"),
        ({"eps": -1e-6}, r"^eps must be >= 0, got -1e-06$"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RMSpropInner([nn.Parameter(torch.zeros(1))], **arguments)
