"""How a function or class of the user's own is named on the command line: my.pkg:attribute."""

import importlib
from collections.abc import Callable
from typing import Any

from psgd.errors import ConfigurationError


def import_callable(what: str, spec: str) -> Callable[..., Any]:
    """Import the function or class that a spec names.

    Args:
        what: it is to be, such as ``model``; begins the message of an error.
        spec: ``my.pkg:attribute``.

    Raises:
        ConfigurationError: the spec is no such one, the module can not be imported, or has no such function.

    Example:
        >>> import_callable("optimizer", "torch.optim:SGD").__name__
        'SGD'
    """
    module, colon, attribute = spec.partition(":")
    if not (module and colon and attribute):
        raise ConfigurationError(f"{what} must be my.pkg:attribute, got {spec!r}")
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # importing runs the user's code, which may raise anything
        found = f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"{what} {spec}: can not import {module} ({found})") from error
    value: object = getattr(imported, attribute, None)
    if value is None:
        raise ConfigurationError(f"{what} {spec}: module {module} has no attribute {attribute!r}")
    if not callable(value):
        raise ConfigurationError(f"{what} {spec} must be a function or class, got {type(value).__name__}")
    return value
