from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from psgd.training.rules.lamb import LAMB
from tests.training.rules.references import SHAPES, Array, Step, check_against


def algorithm_2(lr: float, betas: tuple[float, float], eps: float, weight_decay: float, sign: float = 1.0) -> Step:
    m, v = [np.zeros(shape) for shape in SHAPES], [np.zeros(shape) for shape in SHAPES]

    def step(weights: list[Array], gradients: list[Array], count: int) -> None:
        for k, (x, gradient) in enumerate(zip(weights, gradients, strict=True)):
            m[k] = betas[0] * m[k] + (1 - betas[0]) * sign * gradient
            v[k] = betas[1] * v[k] + (1 - betas[1]) * gradient**2
            m_hat, v_hat = m[k] / (1 - betas[0] ** count), v[k] / (1 - betas[1] ** count)
            update = m_hat / (np.sqrt(v_hat) + eps) + weight_decay * x
            x -= lr * np.linalg.norm(x) / np.linalg.norm(update) * update

    return step


@pytest.mark.parametrize(
    ("lr", "betas", "eps", "weight_decay"),
    [(1e-3, (0.9, 0.999), 1e-6, 0.01), (0.1, (0.5, 0.9), 1e-3, 0.0), (0.01, (0.0, 0.99), 1e-6, 0.5)],
)
def test_it_is_algorithm_2(lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    check_against(
        algorithm_2(lr, betas, eps, weight_decay),
        lambda parameters: LAMB(parameters, lr, betas, eps, weight_decay),
        seed=2,  # whose one number has a gradient from the first step on
    )


def test_maximizing_turns_the_gradient_around() -> None:
    check_against(
        algorithm_2(0.01, (0.9, 0.999), 1e-6, 0.01, -1.0),
        lambda parameters: LAMB(parameters, 0.01, maximize=True),
        seed=2,
    )


def test_the_ratio_counts_as_1_where_a_norm_is_0() -> None:
    at_zero, still = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.ones(4))
    at_zero.grad, still.grad = torch.ones(4), torch.zeros(4)
    LAMB([at_zero, still], lr=0.25, eps=1e-12, weight_decay=0.0).step()
    assert at_zero.tolist() == pytest.approx([-0.25] * 4, rel=1e-6)
    assert still.tolist() == [1.0] * 4


def test_steps_are_counted_for_each_tensor() -> None:
    late, always = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    alone = nn.Parameter(torch.ones(4))
    together, by_itself = LAMB([late, always]), LAMB([alone])
    for count in range(3):
        late.grad, always.grad, alone.grad = torch.ones(4), torch.ones(4), torch.ones(4)
        if count == 0:
            late.grad = None
        else:
            by_itself.step()
        together.step()
    assert late.tolist() == alone.tolist()
    assert [together.state[p]["step"].item() for p in (late, always)] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1.0}, r"^lr must be >= 0, got -1\.0$"),
        ({"betas": (0.9, 1.0)}, r"^betas\[1\] must be in \[0, 1\), got 1\.0$"),
        ({"eps": -1e-6}, r"^eps must be >= 0, got -1e-06$"),
        ({"weight_decay": -1.0}, r"^weight_decay must be >= 0, got -1\.0$"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LAMB([nn.Parameter(torch.zeros(1))], **arguments)
