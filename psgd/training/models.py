"""The built-in models, and how a model is named on the command line."""

import inspect
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from psgd.config import ModelFactory
from psgd.errors import ConfigurationError
from psgd.training.imports import import_callable
from psgd.training.names import unknown


def linear(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Linear or softmax regression, as the loss has it: (B, *shape) to (B, outputs)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), outputs))


def mlp(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A perceptron with one hidden layer of 128: (B, *shape) to (B, outputs)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 128), nn.ReLU(), nn.Linear(128, outputs))


def cnn(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Two convolutions of 5 x 5, each with a pooling of 2 x 2, and a hidden layer: (B, C, H, W) to (B, outputs).

    Raises:
        ConfigurationError: the inputs are no images of at least 4 x 4.
    """
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise ConfigurationError(f"model cnn needs inputs of shape (C, H, W) with H and W >= 4, got {shape}; try mlp")
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, kernel_size=5, padding=2),
        nn.MaxPool2d(2),  # before the ReLU, which gives the same and has a quarter of the work
        nn.ReLU(),  # (B, 16, H/2, W/2)
        nn.Conv2d(16, 32, kernel_size=5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),  # (B, 32, H/4, W/4)
        nn.Flatten(),
        nn.Linear(32 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, outputs),
    )


MODELS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {"mlp": mlp, "cnn": cnn, "linear": linear}


def resolve_model(spec: str, shape: tuple[int, ...], outputs: int) -> ModelFactory:
    """Find the factory that a name stands for.

    Args:
        spec: ``mlp``, ``cnn``, ``linear``, or ``my.pkg:factory`` for a factory of your own, which is called
            with the keywords ``shape`` and ``outputs`` if it has both parameters, else without arguments.
        shape: of one input, without the batch.
        outputs: numbers that the model makes of one input: a score for each class, or one for each target.

    Returns:
        A picklable function without arguments that makes the model.

    Raises:
        ConfigurationError: there is no such name, module or attribute, the attribute is no such factory, or the
            built-in model does not take such inputs.

    Example:
        >>> resolve_model("linear", shape=(1, 8, 8), outputs=10)()[1]
        Linear(in_features=64, out_features=10, bias=True)
    """
    if spec in MODELS:
        factory = partial(MODELS[spec], shape, outputs)
        with torch.device("meta"):  # without memory or random numbers: only to hear what it refuses
            factory()
        return factory
    if ":" not in spec:
        raise unknown("model", spec, [*MODELS, "my.pkg:factory"])
    own = import_callable("model", spec)
    if isinstance(own, nn.Module):
        raise ConfigurationError(
            f"model {spec} must be a function or class that makes the model, got {type(own).__name__}"
        )
    parameters = inspect.signature(own).parameters
    if {"shape", "outputs"} <= parameters.keys():
        return partial(own, shape=shape, outputs=outputs)
    try:
        inspect.signature(own).bind()
    except TypeError:
        raise ConfigurationError(
            f"model {spec} must take no arguments, or shape and outputs, got ({', '.join(parameters)})"
        ) from None
    return own


def check_model(model: object) -> None:
    """Refuse what a factory made if it can not be trained on shards.

    Raises:
        ConfigurationError: it is no module, or has no parameter to train, or one that is not initialized, not
            float32, or of a layer that makes sparse gradients.
    """
    if not isinstance(model, nn.Module):
        raise ConfigurationError(f"model: the factory must return a torch.nn.Module, got {type(model).__name__}")
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if is_lazy(parameter):
            raise ConfigurationError(
                f"model: parameter {name} is not initialized; run the lazy module on one batch in the factory"
            )
        if parameter.dtype != torch.float32:
            raise ConfigurationError(
                f"model: parameter {name} must be float32, got {parameter.dtype}; "
                "call .float() in the factory, and use precision bf16 to compute in less"
            )
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse and layer.weight.requires_grad:
            parameter_name = f"{name}.weight" if name else "weight"
            raise ConfigurationError(
                f"model: parameter {parameter_name} has sparse gradients, but shards hold dense ones; "
                "make its layer with sparse=False"
            )
    if not any(parameter.requires_grad for parameter in parameters.values()):
        kind = "none that requires a gradient" if parameters else "none"
        raise ConfigurationError(f"model: {type(model).__name__} must have at least one parameter to train, got {kind}")
