"""What the tests of update rules share: the same gradients for a rule and for its formula in numpy."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

Array = np.ndarray
Step = Callable[[list[Array], list[Array], int], None]
"""(weights, gradients, how often, from 1) updates the weights in place; all float64."""

SHAPES = ((5, 7), (13,), ())
STEPS = 20


def weights_and_gradients(seed: int) -> tuple[list[Array], list[list[Array]]]:
    """First weights, and gradients of all sizes, some of them 0."""
    draw = np.random.default_rng(seed)
    weights = [np.asarray(draw.normal(size=shape)) for shape in SHAPES]
    scales = 10.0 ** draw.uniform(-4, 2, size=STEPS)
    gradients = [
        [np.asarray(scale * draw.normal(size=shape) * (draw.random(shape) < 0.8)) for shape in SHAPES]
        for scale in scales
    ]
    return weights, gradients


def check_against(reference: Step, make: Callable[[list[nn.Parameter]], Optimizer], seed: int = 0) -> None:
    """The optimizer's weights are the reference's after every step: in float64, and about so in float32."""
    first, gradients = weights_and_gradients(seed)
    weights = [weight.copy() for weight in first]
    expected = []
    for count, step in enumerate(gradients, start=1):
        reference(weights, step, count)
        expected.append([weight.copy() for weight in weights])
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        parameters = [nn.Parameter(torch.tensor(weight, dtype=dtype)) for weight in first]
        optimizer = make(parameters)
        for step, after in zip(gradients, expected, strict=True):
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter.grad = torch.tensor(gradient, dtype=dtype)
            optimizer.step()
            for parameter, weight in zip(parameters, after, strict=True):
                np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=tolerance, atol=tolerance)
