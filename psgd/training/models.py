"""The built-in models, and how a model is named on the command line."""

import importlib
import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from psgd.config import ModelFactory
from psgd.errors import ConfigurationError


def linear(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Softmax regression: (B, *shape) to logits (B, classes)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))


def mlp(shape: tuple[int, ...], classes: int) -> nn.Module:
    """A perceptron with one hidden layer of 128: (B, *shape) to logits (B, classes)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 128), nn.ReLU(), nn.Linear(128, classes))


def cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two convolutions of 5 x 5, each with a pooling of 2 x 2, and a hidden layer: (B, C, H, W) to logits (B, classes).

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
        nn.Linear(128, classes),
    )


MODELS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {"mlp": mlp, "cnn": cnn, "linear": linear}


def resolve_model(spec: str, shape: tuple[int, ...], classes: int) -> ModelFactory:
    """Find the factory that a name stands for.

    Args:
        spec: ``mlp``, ``cnn``, ``linear``, or ``my.pkg:factory`` for a factory of your own, which is called
            with the keywords ``shape`` and ``classes`` if it has both parameters, else without arguments.
        shape: of one input, without the batch.
        classes: the number of labels.

    Returns:
        A picklable function without arguments that makes the model.

    Raises:
        ConfigurationError: there is no such name, module or attribute, or the attribute is no such factory.

    Example:
        >>> resolve_model("linear", shape=(1, 8, 8), classes=10)()[1]
        Linear(in_features=64, out_features=10, bias=True)
    """
    if spec in MODELS:
        return partial(MODELS[spec], shape, classes)
    module, colon, attribute = spec.partition(":")
    if not (module and colon and attribute):
        raise ConfigurationError(f"model must be one of {', '.join(MODELS)} or my.pkg:factory, got {spec!r}")
    factory = _import_factory(spec, module, attribute)
    parameters = inspect.signature(factory).parameters
    if {"shape", "classes"} <= parameters.keys():
        return partial(factory, shape=shape, classes=classes)
    try:
        inspect.signature(factory).bind()
    except TypeError:
        raise ConfigurationError(
            f"model {spec} must take no arguments, or shape and classes, got ({', '.join(parameters)})"
        ) from None
    return factory


def _import_factory(spec: str, module: str, attribute: str) -> Callable[..., Any]:
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # importing runs the user's code, which may raise anything
        found = f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"model {spec}: can not import {module} ({found})") from error
    factory: object = getattr(imported, attribute, None)
    if factory is None:
        raise ConfigurationError(f"model {spec}: module {module} has no attribute {attribute!r}")
    if isinstance(factory, nn.Module) or not callable(factory):
        raise ConfigurationError(
            f"model {spec} must be a function or class that makes the model, got {type(factory).__name__}"
        )
    return factory


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
