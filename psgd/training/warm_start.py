"""Starting from weights that exist already."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from psgd.errors import ConfigurationError, DataError

NAMES_SHOWN = 5


def load_weights(source: Mapping[str, Tensor] | Path | str) -> dict[str, Tensor]:
    """Read the weights to start from.

    Args:
        source: a ``state_dict``, or the path of a ``.safetensors`` file. Pickled files (.pt, .pth) are not
            read, because reading one runs what its author put into it.

    Raises:
        ConfigurationError: the source is something else, or there is no such file.
        DataError: the file is damaged.
    """
    if isinstance(source, Mapping):
        for name, value in source.items():
            if not isinstance(value, Tensor):
                raise ConfigurationError(f"weights: {name} must be a tensor, got {type(value).__name__}")
        return dict(source)
    path = Path(source)
    if path.suffix != ".safetensors":
        raise ConfigurationError(
            f"weights must be a state_dict or a .safetensors file, got {path}; "
            "convert it with safetensors.torch.save_file(model.state_dict(), ...)"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path}: expected a safetensors file, found a damaged one ({error}); save it again") from None
    except OSError as error:
        raise ConfigurationError(f"weights: can not read {path}: {error.strerror or 'no such file'}") from None


def apply_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model; all of them or, where they do not fit, none.

    Of a tensor that the model holds under several names, one is enough, as safetensors files store it.

    Raises:
        ConfigurationError: tensors are missing, unexpected or of another shape.
    """
    own: dict[str, Tensor] = model.state_dict()
    given = {(own[name].data_ptr(), own[name].shape) for name in weights if name in own}
    missing = [
        name for name, tensor in own.items() if name not in weights and (tensor.data_ptr(), tensor.shape) not in given
    ]
    unexpected = [name for name in weights if name not in own]
    reshaped = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "wrong shape": reshaped}
    if any(faults.values()):
        found = "; ".join(f"{kind}: {_shorten(names)}" for kind, names in faults.items() if names)
        raise ConfigurationError(f"weights must fit the model {type(model).__name__}, got {found}")
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)


def _shorten(names: Collection[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(list(names)[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
