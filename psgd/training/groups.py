"""Parameter groups by name pattern: other options for some of the parameters."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from psgd.config import NamedTensors
from psgd.errors import ConfigurationError

Groups = Mapping[str, Mapping[str, Any]]
"""Patterns to the options of what they match, such as ``{"*bias": {"weight_decay": 0.0}}``."""

NORMALIZATIONS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.SyncBatchNorm,
)
MOST_NAMES = 12
"""That an error lists."""


def param_groups(named: NamedTensors, groups: Groups) -> list[dict[str, Any]]:
    """Sort parameters into groups, as every ``torch.optim`` optimizer takes them.

    The first group holds what no pattern matches, then comes one a pattern. All are there even if nothing falls into
    them: a shard holds only some of the model's tensors, and its groups must be those of the others.

    Args:
        named: (name, tensor) pairs.
        groups: patterns as of a shell (``*``, ``?``, ``[abc]``), or several with commas between, to the options of
            the parameters whose name they match; the first match wins.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> made = param_groups(model.named_parameters(), {"*bias": {"weight_decay": 0.0}})
        >>> [(group["params"][0][0], group.get("weight_decay")) for group in made]
        [('weight', None), ('bias', 0.0)]
    """
    patterns = list(groups)
    members: list[list[tuple[str, Tensor]]] = [[] for _ in range(1 + len(patterns))]
    for name, tensor in named:
        members[1 + _first_match(name, patterns)].append((name, tensor))
    options: list[Mapping[str, Any]] = [{}, *groups.values()]
    return [_group(pairs, chosen) for pairs, chosen in zip(members, options, strict=True)]


def spare(
    groups: Groups, names: Sequence[str], spared: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """Groups in which some parameters have other options, whatever group they are in.

    Args:
        groups: as of `param_groups`.
        names: of all parameters.
        spared: of those with the options, where their group says nothing else about them.

    Example:
        >>> spare({"0.*": {"lr": 0.5}}, ["0.weight", "0.bias", "1.bias"], ["0.bias", "1.bias"], {"decay": 0.0})
        {'0.bias': {'decay': 0.0, 'lr': 0.5}, '0.*': {'lr': 0.5}, '1.bias': {'decay': 0.0}}
    """
    patterns = list(groups)
    made: dict[str, Mapping[str, Any]] = {}
    for index, (pattern, own) in enumerate(groups.items()):
        members = [name for name in names if _first_match(name, patterns) == index]
        inside = [name for name in members if name in spared]
        if inside and options:
            made[",".join(inside)] = {**options, **own}
        if members != inside or not (inside and options):
            made[pattern] = own
    rest = [name for name in spared if _first_match(name, patterns) < 0]
    return {**made, ",".join(rest): options} if rest and options else made


def _first_match(name: str, patterns: Sequence[str]) -> int:
    """The index of the first pattern that matches; -1: none does."""
    return next((index for index, pattern in enumerate(patterns) if _matches(name, pattern)), -1)


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatchcase(name, part.strip()) for part in pattern.split(","))


def _group(pairs: list[tuple[str, Tensor]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Torch takes the names from the pairs, and refuses a group without names beside one that has some."""
    return {"params": pairs, **options} if pairs else {"params": [], "param_names": [], **options}


def check_groups(names: Iterable[str], groups: Groups) -> None:
    """Refuse a pattern that nothing falls to.

    Args:
        names: of all of the model's trainable parameters.

    Raises:
        ConfigurationError: a pattern matches no parameter, or only such as the patterns before it take.
    """
    known, patterns = list(names), list(groups)
    taken = {_first_match(name, patterns) for name in known}
    for index, pattern in enumerate(patterns):
        matched = [name for name in known if _matches(name, pattern)]
        if not matched:
            raise ConfigurationError(
                f"groups: pattern {pattern!r} must match a parameter, the model has {_listed(known)}"
            )
        if index not in taken:
            raise ConfigurationError(
                f"groups: pattern {pattern!r} must match a parameter that no pattern before it matches, "
                f"got only {_listed(matched)}; put it first"
            )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def undecayed(model: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that weight decay is usually kept from: biases, and all of normalization layers.

    Biases are what is called so: ``bias``, ``in_proj_bias``, ``bias_ih_l0``. A tied parameter has its first name.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
        >>> undecayed(model)
        ('0.bias', '1.weight', '1.bias')
        >>> groups = {",".join(undecayed(model)): {"weight_decay": 0.0}}
    """
    normalizing = {
        id(parameter)
        for layer in model.modules()
        if isinstance(layer, NORMALIZATIONS)
        for parameter in layer.parameters(recurse=False)
    }
    return tuple(
        name
        for name, parameter in model.named_parameters()
        if id(parameter) in normalizing or _is_bias(name.rpartition(".")[2])
    )


def _is_bias(name: str) -> bool:
    return name.startswith("bias") or name.endswith("bias")
