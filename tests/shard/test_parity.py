"""Sharded updates against torch on one process, for every optimizer and setting that torch tests its own with."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.testing._internal.common_optimizers import optim_db

from psgd.config import OptimizerFactory
from psgd.core.effects import How
from psgd.core.layout import Layout, Role, TensorSpec, partition
from psgd.shard.lane import Gradient
from psgd.shard.state import ShardState
from psgd.training.elementwise import is_elementwise
from psgd.training.forms import use_fused
from psgd.training.optimizers import OPTIMIZERS, REFUSED, optimizer
from psgd.training.rules.ema_momentum import EMAMomentum
from psgd.training.rules.ftrl import FTRL
from psgd.training.rules.lamb import LAMB
from psgd.training.rules.rmsprop_inner import RMSpropInner
from psgd.transport.flat import allocate, pack, views

STEPS, SLOTS, SHARDS = 10, 2, (1, 2, 3)
SHAPES: dict[str, tuple[int, ...]] = {
    "conv.weight": (5, 3, 3, 3),
    "conv.bias": (5,),
    "hidden.weight": (13, 37),  # is cut by two shards, and twice by three
    "scale": (),
    "out.weight": (7, 13),
    "out.bias": (7,),
}
MATRICES: dict[str, tuple[int, ...]] = {name: shape for name, shape in SHAPES.items() if len(shape) == 2}

NOT_BITWISE: dict[str, str] = {}
"""Settings whose bits differ on shards, and why: on a CPU none of torch 2.13's do. The others may not be listed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A class with arguments."""

    make: type[Optimizer]
    args: dict[str, Any]

    def __str__(self) -> str:
        args = ",".join(f"{name}={value}" for name, value in self.args.items())
        return f"{self.make.__name__}({args})".replace(" ", "")

    @property
    def factory(self) -> OptimizerFactory:
        return partial(self.make, **self.args)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return MATRICES if self.make is torch.optim.Muon else SHAPES


def settings() -> Iterator[Setting]:
    """Torch's, in each form that the class has on a CPU; the empty one is chosen by the shard. And our own rules'."""
    for info in optim_db:
        make = cast(type[Optimizer], info.optim_cls)
        if make not in REFUSED:
            for given in info.optim_inputs_func(device="cpu"):
                yield Setting(make, given.kwargs)
                numbers = not any(isinstance(value, Tensor) for value in given.kwargs.values())
                if "foreach" in info.supported_impls and numbers:  # foreach takes no tensors for numbers
                    yield Setting(make, {**given.kwargs, "foreach": True})
                    yield Setting(make, {**given.kwargs, "foreach": False})
    for rule in (EMAMomentum, RMSpropInner, FTRL, LAMB):
        yield Setting(rule, {})
        yield Setting(rule, {"lr": 0.05, "maximize": True})
    yield Setting(FTRL, {"l1": 0.5, "l2": 0.25})


def layout_of(shapes: dict[str, tuple[int, ...]]) -> Layout:
    return Layout([TensorSpec(name, shape, "float32", Role.PARAMETER) for name, shape in shapes.items()])


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def gradient(shapes: dict[str, tuple[int, ...]], step: int, slot: int) -> dict[str, Tensor]:
    return drawn(shapes, 1 + step * SLOTS + slot)


def on_one_process(factory: OptimizerFactory, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    parameters = {name: nn.Parameter(tensor) for name, tensor in drawn(shapes, 0).items()}
    made = factory(parameters.items())
    use_fused(made)
    for step in range(STEPS):
        first, second = (gradient(shapes, step, slot) for slot in range(SLOTS))
        for name, parameter in parameters.items():
            parameter.grad = (first[name] + second[name]) / SLOTS
        made.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


def on_shards(
    factory: OptimizerFactory, shapes: dict[str, tuple[int, ...]], shards: int
) -> tuple[dict[str, Tensor], list[tuple[float, ...]]]:
    """The weights, and the learning rates that each shard told last."""
    layout, whole = layout_of(shapes), not is_elementwise(factory, shapes)
    memory, rates = allocate(layout.bytes), []
    steps = [[pack(gradient(shapes, step, slot), layout) for slot in range(SLOTS)] for step in range(STEPS)]
    for part in partition(layout, shards, whole):
        here = slice(part.pushed.start, part.pushed.stop)
        state = ShardState(layout, [part], factory, None, whole, memory=allocate(part.bytes))
        state.load(pack(drawn(shapes, 0), layout)[here])
        for pushes in steps:
            told = state.apply([Gradient(push[here], frozenset()) for push in pushes], How(tick=0))
        memory[here] = state.memory
        rates.append(told)
    return views(memory, layout), rates


@pytest.mark.parametrize("setting", list(settings()), ids=str)
def test_ten_steps_on_shards_are_ten_steps_of_torch(setting: Setting) -> None:
    expected = on_one_process(setting.factory, setting.shapes)
    first = drawn(setting.shapes, 0)
    assert not any(torch.equal(expected[name], first[name]) for name in setting.shapes)
    for shards in SHARDS:
        weights, _ = on_shards(setting.factory, setting.shapes, shards)
        for name, tensor in expected.items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-6, atol=0)
        bitwise = all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
        assert bitwise == (str(setting) not in NOT_BITWISE), f"{shards} shards"


def test_every_optimizer_of_torch_is_among_them() -> None:
    tested = {setting.make for setting in settings()}
    assert tested == set(OPTIMIZERS.values()) - REFUSED.keys()


def test_only_settings_that_exist_are_listed() -> None:
    assert NOT_BITWISE.keys() <= {str(setting) for setting in settings()}


@pytest.mark.parametrize("shards", [2, 3])
def test_a_tensor_is_cut_between_shards(shards: int) -> None:
    pieces = [piece for part in partition(layout_of(SHAPES), shards) for piece in part.slices]
    assert sum(list(SHAPES)[piece.tensor] == "hidden.weight" for piece in pieces) == shards


@pytest.mark.parametrize("name", ["adam", "sgd", "ema-momentum", "lamb"])
@pytest.mark.parametrize("shards", SHARDS)
def test_groups_and_regularization_on_shards(name: str, shards: int) -> None:
    groups = {"*bias": {"l2": 0.0, "lr": 0.5}, "scale": {"decay": 0.0, "l1": 0.5}}
    factory = optimizer(name, 0.25, groups=groups, l1=0.125, l2=0.25, decay=0.5)
    expected = on_one_process(factory, SHAPES)
    weights, rates = on_shards(factory, SHAPES, shards)
    assert all(torch.equal(weights[tensor], expected[tensor]) for tensor in SHAPES)
    assert rates == [(0.25, 0.5, 0.25)] * shards  # the same groups, whatever a shard holds
    assert any((tensor == 0).any() for tensor in weights.values())
