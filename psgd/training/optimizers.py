"""Optimizers: how they are named, in which form they run, and whether they may be cut into slices."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from psgd.config import OptimizerFactory
from psgd.errors import ConfigurationError

Form = Literal["fused", "foreach", "plain"]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    name.lower(): value
    for name, value in vars(torch.optim).items()
    if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer
}
REFUSED: dict[type[Optimizer], str] = {
    torch.optim.LBFGS: "it evaluates the loss again during a step, which a shard can not",
    torch.optim.SparseAdam: "it takes sparse gradients only, and shards hold dense ones",
}
FORMS: tuple[Form, ...] = ("plain", "foreach", "fused")  # slowest first

PROBE_SHAPE = (5, 77)  # 385 elements: with a vector tail, whole and cut
PROBE_CUT = 192  # inside the third row, on a 64-element boundary like every slice
PROBE_GRADIENTS = (1.0, 1e4, 1e-4)  # each step's scale: below and above what an optimizer might clip at


def resolve_optimizer(name: str, lr: float, args: Mapping[str, Any]) -> OptimizerFactory:
    """Find the optimizer of ``torch.optim`` that a name stands for.

    Args:
        name: the class's name, in any case: ``sgd``, ``adam``, ``rmsprop``, ``adagrad``, ...
        lr: the learning rate.
        args: the other arguments of the class, such as ``{"momentum": 0.9}``.

    Returns:
        A picklable function that makes the optimizer from named parameters.

    Raises:
        ConfigurationError: there is no such optimizer, it can not run on shards, or an argument is unknown
            or invalid.

    Example:
        >>> factory = resolve_optimizer("sgd", 0.1, {"momentum": 0.9})
        >>> factory([("weight", nn.Parameter(torch.zeros(2)))]).param_groups[0]["momentum"]
        0.9
    """
    if name.lower() not in OPTIMIZERS:
        known = ", ".join(sorted(key for key, value in OPTIMIZERS.items() if value not in REFUSED))
        raise ConfigurationError(f"optimizer must be one of {known}, got {name!r}")
    if not (math.isfinite(lr) and lr >= 0):
        raise ConfigurationError(f"lr must be a finite number >= 0, got {lr}")
    optimizer_class = OPTIMIZERS[name.lower()]
    known_args = [key for key in inspect.signature(optimizer_class).parameters if key not in {"params", "lr"}]
    for key in args:
        if key not in known_args:
            raise ConfigurationError(f"optimizer {name} has no argument {key!r}; it takes {', '.join(known_args)}")
    factory = partial(_build, optimizer_class, lr, dict(args))
    check_optimizer(_build_once(name, factory, args))
    return factory


def _build(
    optimizer_class: Callable[..., Optimizer],
    lr: float,
    args: dict[str, Any],
    parameters: Iterable[tuple[str, Tensor]],
) -> Optimizer:
    return optimizer_class(parameters, lr=lr, **args)


def _build_once(name: str, factory: OptimizerFactory, args: Mapping[str, Any]) -> Optimizer:
    """Let torch check the arguments, on a parameter that nobody needs."""
    try:
        return factory([("weight", nn.Parameter(torch.zeros(2, 2)))])
    except (ValueError, TypeError, IndexError, RuntimeError) as error:  # torch checks with all of them
        given = ", ".join(f"{key}={value!r}" for key, value in args.items())
        raise ConfigurationError(f"optimizer {name}: {error}; got {given}") from None


def check_optimizer(optimizer: object) -> None:
    """Refuse what a factory made if it can not run on a shard.

    Raises:
        ConfigurationError: it is no optimizer, or one that needs what a shard has not.
    """
    if not isinstance(optimizer, Optimizer):
        raise ConfigurationError(
            f"optimizer: the factory must return a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    for refused, reason in REFUSED.items():
        if isinstance(optimizer, refused):
            raise ConfigurationError(
                f"optimizer must not be {refused.__name__}: {reason}; use another one, such as adam"
            )


def use_fused(optimizer: Optimizer) -> Form:
    """Switch an optimizer to the fastest form of update that its class has: fused, else foreach.

    The forms differ in the last bits, so whoever wants a shard's bits must call this, too. Groups whose user
    chose a form keep it.

    Returns:
        The form in use; the slowest one where groups differ.
    """
    return min((_use_fused(group, optimizer.state) for group in optimizer.param_groups), key=FORMS.index)


def _use_fused(group: dict[str, Any], state: Mapping[Tensor, Mapping[str, Any]]) -> Form:
    chosen = group.get("fused") is not None or group.get("foreach") is not None
    # Neither form can be differentiated through, and foreach takes no tensors for numbers.
    unfit = group.get("differentiable", False) or any(isinstance(option, Tensor) for option in group.values())
    if not chosen and not unfit:
        if "fused" in group and all(
            _may_be_fused(parameter, state.get(parameter, {})) for parameter in group["params"]
        ):
            group["fused"] = True
        elif "foreach" in group:
            group["foreach"] = True
    return "fused" if group.get("fused") else "foreach" if group.get("foreach") else "plain"


def _may_be_fused(parameter: Tensor, state: Mapping[str, Any]) -> bool:
    """Adagrad makes its state at once, and on a GPU such that only the other forms can go on with it."""
    beside = all(value.device == parameter.device for value in state.values() if isinstance(value, Tensor))
    return parameter.is_floating_point() and beside


def is_elementwise(factory: OptimizerFactory, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether an optimizer gives the same bits on slices of tensors as on the tensors.

    Tried out rather than looked up by class, because a factory may give tensors other options by their shape
    (weight decay for matrices only), which slices have lost. Three steps with small stand-ins for the model's
    parameters, whole and cut in two, must end with the same bits. Whatever fails on the stand-ins counts as
    not elementwise. The global random state is left alone.

    Args:
        factory: makes the optimizer from named parameters.
        shapes: the trained parameters' shapes by name; stand-ins take over the number of dimensions.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            whole = _train_probes(factory, shapes, cut=False)
            sliced = _train_probes(factory, shapes, cut=True)
        except Exception:  # the user's factory may raise anything; on the real tensors it will raise again
            return False
    return torch.equal(whole.view(torch.int32), sliced.view(torch.int32))


def _train_probes(factory: OptimizerFactory, shapes: Mapping[str, Sequence[int]], *, cut: bool) -> Tensor:
    """All stand-ins after three steps, flat, float32 (parameters * 385,)."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    probes: list[tuple[str, nn.Parameter]] = []
    for name, shape in shapes.items():
        flat = torch.randn(math.prod(PROBE_SHAPE), generator=generator)
        if not cut:
            probes.append((name, nn.Parameter(flat.view(_probe_shape(len(shape))))))
        else:
            probes += [(name, nn.Parameter(flat[:PROBE_CUT])), (name, nn.Parameter(flat[PROBE_CUT:]))]
    optimizer = factory(iter(probes))
    use_fused(optimizer)
    for scale in PROBE_GRADIENTS:
        gradient = torch.randn(len(shapes) * math.prod(PROBE_SHAPE), generator=generator).mul_(scale)
        pieces = torch.split(gradient, [probe.numel() for _, probe in probes])
        for (_, probe), piece in zip(probes, pieces, strict=True):
            probe.grad = piece.view(probe.shape)
        optimizer.step()
    return torch.cat([probe.detach().flatten() for _, probe in probes])


def _probe_shape(dimensions: int) -> tuple[int, ...]:
    return PROBE_SHAPE + (1,) * (dimensions - 2) if dimensions > 1 else (math.prod(PROBE_SHAPE),)
