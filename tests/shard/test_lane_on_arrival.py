"""A lane in async mode: gradients that are gathered, gradients that are late."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from psgd.config import Clip, OptimizerFactory
from psgd.core.corrections import Correction, DelayCompensation, GapAware, LagRate
from psgd.core.effects import How
from psgd.core.ids import Version
from psgd.core.layout import Layout, Role, TensorSpec, partition
from psgd.errors import InternalError
from psgd.shard.lane import Gradient, Lane
from psgd.shard.mean import average_in_chunks
from psgd.transport.flat import allocate, view

N = 64
LAYOUT = Layout(
    [
        TensorSpec("weight", (N,), "float32", Role.PARAMETER),
        TensorSpec("bias", (N,), "float32", Role.PARAMETER),
        TensorSpec("running", (N,), "float32", Role.BUFFER),
        TensorSpec("count", (1,), "int64", Role.COUNTER),
    ]
)
ONE = How(tick=0)
PLAIN = partial(torch.optim.SGD, lr=1.0)
MOMENTUM = partial(torch.optim.SGD, lr=0.125, momentum=0.9)
Floats = npt.NDArray[np.float32]


class Bench:
    """A lane over weights of zero."""

    def __init__(self, optimizer: OptimizerFactory = PLAIN, gathers: bool = True, **settings: Any) -> None:
        (part,) = partition(LAYOUT, 1)
        self.memory = allocate(part.bytes)
        self.lane = Lane(
            LAYOUT, part, optimizer, None, False, self.memory, average_in_chunks, gathers=gathers, **settings
        )
        self.lane.begin()

    def read(self, tensor: int, dtype: str = "float32") -> Tensor:
        elements = LAYOUT.tensors[tensor].elements
        return view(self.memory, LAYOUT.offsets[tensor], elements, dtype)

    @property
    def weights(self) -> Floats:
        read: Floats = torch.cat([self.read(0), self.read(1)]).numpy()
        return read


def pushed(values: Tensor, running: float = 0.0, count: int = 0, absent: tuple[int, ...] = ()) -> Gradient:
    """(2 N,) of gradient, then a buffer and a counter."""
    memory = allocate(LAYOUT.pushed_bytes)
    view(memory, 0, 2 * N, "float32").copy_(values)
    view(memory, LAYOUT.offsets[2], N, "float32").fill_(running)
    view(memory, LAYOUT.offsets[3], 1, "int64").fill_(count)
    return Gradient(memory, frozenset(absent))


def drawn(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(2 * N, generator=generator) for _ in range(count)]


# ------------------------------------------------------------------ gathering


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 8])
def test_the_mean_of_what_was_gathered_has_the_bits_of_the_formula(count: int) -> None:
    bench, gradients = Bench(), drawn(count)
    for values in gradients:
        assert bench.lane.gather(pushed(values), ONE, 1.0) == (1.0,)
    assert bench.weights.tolist() == [0.0] * 2 * N, "nothing moves before the update"
    assert bench.lane.apply_gathered(count, float(count), ONE) == (1.0,)
    total = gradients[0].numpy().copy()
    for other in gradients[1:]:
        total = (total + other.numpy()).astype(np.float32)
    assert np.array_equal(-bench.weights, total / np.float32(count))


def test_one_gathered_is_one_applied_bit_by_bit() -> None:
    gathering, plain = Bench(MOMENTUM), Bench(MOMENTUM, gathers=False)
    for number, values in enumerate(drawn(4)):
        push = pushed(values, running=number / 3, count=number)
        gathering.lane.gather(push, ONE, 1.0)
        gathering.lane.apply_gathered(1, 1.0, ONE)
        plain.lane.apply([push], ONE)
    assert torch.equal(gathering.memory, plain.memory)


def test_weights_of_late_gradients_make_the_papers_formula_for_sgd() -> None:
    bench, gradients, weights = Bench(), drawn(3), [1.0, 0.5, 0.125]
    for values, weight in zip(gradients, weights, strict=True):
        assert bench.lane.gather(pushed(values), How(tick=0, lr_factor=weight), weight) == (weight,)
    mean = sum(weights) / 3
    bench.lane.apply_gathered(3, sum(weights), How(tick=0, lr_factor=mean))
    expected = -sum(
        weight * values.numpy().astype(np.float64) for weight, values in zip(weights, gradients, strict=True)
    )
    np.testing.assert_allclose(bench.weights, expected / 3, rtol=1e-5, atol=1e-7)


def test_the_memory_of_a_gathered_gradient_is_left_as_it_is_and_free_at_once() -> None:
    bench = Bench(clip=Clip(value=0.5), correction=DelayCompensation())
    bench.lane.hold(Version(0), [Version(0)])
    first = pushed(torch.full((2 * N,), 2.0))
    before = first.memory.clone()
    bench.lane.gather(first, How(tick=0, clip_scale=0.5, pulled=Version(0)), 0.5)
    assert torch.equal(first.memory, before)
    first.memory.zero_()
    bench.lane.gather(pushed(torch.full((2 * N,), 2.0)), ONE, 0.5)
    bench.lane.apply_gathered(2, 1.0, ONE)
    assert bench.weights.tolist() == [-0.5] * 2 * N  # each was clipped on its own


def test_buffers_are_averaged_without_weights_and_the_last_arrivals_count() -> None:
    bench = Bench()
    bench.lane.gather(pushed(torch.ones(2 * N), running=1.0, count=9), How(tick=0, lr_factor=0.5), 0.5)
    bench.lane.gather(pushed(torch.ones(2 * N), running=4.0, count=7), ONE, 1.0)
    assert (bench.read(2)[0].item(), bench.read(3, "int64").item()) == (0.0, 0)
    bench.lane.apply_gathered(2, 1.5, ONE)
    assert (bench.read(2)[0].item(), bench.read(3, "int64").item()) == (2.5, 7)


def test_a_parameter_that_nobody_has_a_gradient_of_is_skipped_and_else_counts_as_zero() -> None:
    bench, zeros, ones = Bench(MOMENTUM), torch.zeros(N), torch.ones(N)
    bench.lane.gather(pushed(torch.ones(2 * N)), ONE, 1.0)
    bench.lane.apply_gathered(1, 1.0, ONE)
    first = bench.read(1).clone()
    for _ in range(2):
        bench.lane.gather(pushed(torch.cat([ones, zeros]), absent=(1,)), ONE, 1.0)
    bench.lane.apply_gathered(2, 2.0, ONE)
    assert torch.equal(bench.read(1), first), "momentum does not move what was skipped"
    bench.lane.gather(pushed(torch.cat([ones, zeros]), absent=(1,)), ONE, 1.0)
    bench.lane.gather(pushed(torch.cat([ones, ones])), ONE, 1.0)
    bench.lane.apply_gathered(2, 2.0, ONE)
    assert torch.equal(bench.read(1), first - 0.125 * (0.9 + 0.5))


def test_a_lane_for_single_gradients_does_not_gather() -> None:
    with pytest.raises(InternalError, match="a lane that was made for single ones"):
        Bench(gathers=False).lane.gather(pushed(torch.ones(2 * N)), ONE, 1.0)


# ------------------------------------------------------------------ late gradients


def train(bench: Bench, late: bool = True) -> None:
    """Five updates; every gradient but the first was computed one update ago."""
    for number, values in enumerate(drawn(5)):
        pulled = Version(number - 1) if late and number > 0 else None
        held = [Version(number), *([] if pulled is None else [pulled])]
        bench.lane.hold(Version(number), held)
        bench.lane.apply([pushed(values, running=number)], How(tick=0, lr_factor=0.5, pulled=pulled))


@pytest.mark.parametrize("optimizer", [MOMENTUM, partial(torch.optim.Adam, lr=0.01)], ids=["momentum", "adam"])
@pytest.mark.parametrize(
    "correction", [LagRate(), DelayCompensation(0.0), DelayCompensation(0.0, adaptive=True)], ids=str
)
def test_without_strength_a_late_gradient_is_applied_bit_by_bit(
    correction: Correction, optimizer: OptimizerFactory
) -> None:
    corrected, plain = Bench(optimizer, gathers=False, correction=correction), Bench(optimizer, gathers=False)
    train(corrected)
    train(plain)
    assert torch.equal(corrected.memory, plain.memory)


@pytest.mark.parametrize("correction", [DelayCompensation(), DelayCompensation(adaptive=True), GapAware()], ids=str)
def test_without_lag_every_correction_leaves_all_bits(correction: Correction) -> None:
    corrected, plain = Bench(MOMENTUM, gathers=False, correction=correction), Bench(MOMENTUM, gathers=False)
    train(corrected, late=False)
    train(plain, late=False)
    assert torch.equal(corrected.memory, plain.memory)


@pytest.mark.parametrize(
    "correction", [DelayCompensation(0.5), DelayCompensation(adaptive=True), GapAware(0.9)], ids=str
)
def test_late_gradients_of_sgd_are_corrected_by_the_formula(correction: Correction) -> None:
    bench = Bench(partial(torch.optim.SGD, lr=0.25), gathers=False, correction=correction)
    train(bench)
    lr = 0.25 * 0.5
    past, mean_square, average = [np.zeros(2 * N)], np.zeros(2 * N), np.zeros(2 * N)
    for number, values in enumerate(drawn(5)):
        g, now = values.numpy().astype(np.float64), past[-1]
        mean_square = 0.95 * mean_square + 0.05 * g * g
        if number > 0:
            way = now - past[-2]
            if isinstance(correction, GapAware):
                size = lr * (np.sqrt(average / (1 - 0.9**number)) + 1e-8)
                g = g / (1 + np.abs(way) / size)
            elif isinstance(correction, DelayCompensation):
                strength = 2 / np.sqrt(mean_square + 1e-7) if correction.adaptive else 0.5
                g = g + strength * g * g * way
        average = 0.9 * average + 0.1 * g * g
        past.append(now - lr * g)
    np.testing.assert_allclose(bench.weights, past[-1], rtol=1e-3, atol=1e-5)
    assert bench.read(2)[0].item() == 4.0, "buffers are not corrected"


def test_a_gradient_is_clipped_before_it_is_corrected() -> None:
    bench = Bench(gathers=False, clip=Clip(value=2.0), correction=DelayCompensation(0.25))
    bench.lane.hold(Version(0), [Version(0)])
    bench.lane.apply([pushed(torch.full((2 * N,), -8.0))], ONE)
    bench.lane.hold(Version(1), [Version(0)])
    bench.lane.apply([pushed(torch.full((2 * N,), 8.0))], How(tick=0, pulled=Version(0)))
    assert bench.weights.tolist() == [2.0 - (2.0 + 0.25 * 4 * 2.0)] * 2 * N


def test_each_group_counts_the_gap_in_its_own_steps() -> None:
    def two_groups(named: Any) -> torch.optim.Optimizer:
        (_, first), (_, second) = named
        groups: list[dict[str, Any]] = [{"params": [first]}, {"params": [second], "lr": 4.0}]
        return torch.optim.SGD(groups, lr=1.0)

    bench = Bench(two_groups, gathers=False, correction=GapAware())
    bench.lane.hold(Version(0), [Version(0)])
    bench.lane.apply([pushed(torch.ones(2 * N))], ONE)
    bench.lane.hold(Version(1), [Version(0)])
    bench.lane.apply([pushed(torch.ones(2 * N))], How(tick=0, pulled=Version(0)))
    # Each weight is one step of its own away, so that both gradients are halved.
    assert bench.read(0).tolist() == pytest.approx([-1.5] * N)
    assert bench.read(1).tolist() == pytest.approx([-6.0] * N)
