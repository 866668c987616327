from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from psgd.config import Clip, NamedTensors
from psgd.core.effects import How
from psgd.core.layout import Layout, Part, Role, TensorSpec, partition
from psgd.shard.lane import Gradient, Lane
from psgd.shard.mean import Average, average_at_once, average_in_chunks
from psgd.transport.flat import allocate, view

ELEMENTS = 1000
LAYOUT = Layout([TensorSpec("weight", (ELEMENTS,), "float32", Role.PARAMETER)])
PLAIN = partial(torch.optim.SGD, lr=1.0)
Floats = npt.NDArray[np.float32]
TINY = np.float32(1e-45)  # the smallest number above zero


def make_lane(memory: Tensor, layout: Layout = LAYOUT, average: Average = average_in_chunks) -> Lane:
    (part,) = partition(layout, 1)
    lane = Lane(layout, part, PLAIN, None, False, memory, average)
    lane.begin()
    return lane


def gradient(values: Tensor) -> Gradient:
    memory = allocate(LAYOUT.pushed_bytes)
    view(memory, 0, ELEMENTS, "float32").copy_(values)
    return Gradient(memory, frozenset())


def update(gradients: list[Tensor], average: Average = average_in_chunks) -> Floats:
    """What SGD with learning rate 1 takes from weights of zero."""
    memory = allocate(LAYOUT.pushed_bytes)
    make_lane(memory, average=average).apply([gradient(values) for values in gradients], How(tick=0))
    return -view(memory, 0, ELEMENTS, "float32").numpy()


def written_out(gradients: list[Tensor]) -> Floats:
    """(g₀ + g₁ + …)/n in float32, in that order."""
    total = gradients[0].numpy().copy()
    for other in gradients[1:]:
        total = (total + other.numpy()).astype(np.float32)
    return (total / np.float32(len(gradients))).astype(np.float32)


def same_bits(a: Floats, b: Floats) -> bool:
    return a.tobytes() == b.tobytes()


def drawn(count: int, scale: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(ELEMENTS, generator=generator) * scale for _ in range(count)]


@pytest.mark.parametrize("average", [average_in_chunks, partial(average_in_chunks, chunk=7), average_at_once])
@pytest.mark.parametrize("scale", [1.0, 1e-38, 3e-44, 1e37])
@pytest.mark.parametrize("slots", [1, 2, 3, 4, 5, 6, 7, 8])
def test_the_mean_has_the_bits_of_the_formula(slots: int, scale: float, average: Average) -> None:
    gradients = drawn(slots, scale)
    expected = written_out(gradients)
    if scale == 3e-44:
        assert 0 < np.abs(expected[expected != 0]).max() < np.finfo(np.float32).tiny  # subnormal
    assert np.array_equal(update(gradients, average), expected)


@pytest.mark.parametrize("slots", [2, 3, 4, 5, 6])
def test_odd_multiples_of_the_smallest_number_are_rounded_as_division_rounds_them(slots: int) -> None:
    first = torch.from_numpy(np.arange(ELEMENTS, dtype=np.float32) * TINY)
    gradients = [first, *(torch.zeros(ELEMENTS) for _ in range(slots - 1))]
    expected = written_out(gradients)
    assert np.array_equal(update(gradients), expected)
    assert 0 < expected[5] < 5 * TINY


def test_buffers_keep_the_sign_of_zero_and_the_bits_of_the_mean() -> None:
    layout = Layout(
        [
            TensorSpec("weight", (1,), "float32", Role.PARAMETER),
            TensorSpec("mean", (3,), "float32", Role.BUFFER),
        ]
    )
    memory = allocate(layout.pushed_bytes)
    values = torch.tensor([-0.0, 1e-45, 3.0])
    pushed = []
    for _ in range(4):
        push = allocate(layout.pushed_bytes)
        view(push, layout.offsets[1], 3, "float32").copy_(values)
        pushed.append(Gradient(push, frozenset()))
    make_lane(memory, layout).apply(pushed, How(tick=0))
    assert same_bits(view(memory, layout.offsets[1], 3, "float32").numpy(), values.numpy())


def test_the_mean_of_one_is_read_where_it_is() -> None:
    seen: list[int] = []

    class Watching(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            [parameter] = self.param_groups[0]["params"]
            seen.append(parameter.grad.data_ptr())

    (part,) = partition(LAYOUT, 1)
    lane = Lane(LAYOUT, part, partial(Watching, lr=1.0), None, False, allocate(part.bytes), average_in_chunks)
    lane.begin()
    push = gradient(torch.ones(ELEMENTS))
    lane.apply([push], How(tick=0))
    assert seen == [push.memory.data_ptr()]


# ------------------------------------------------------------------ who takes a share of the slices


def grouped(named: NamedTensors) -> torch.optim.Optimizer:
    """Needs a tensor for each of its groups."""
    pairs = list(named)
    weights = [tensor for name, tensor in pairs if name == "weight"]
    others = [tensor for name, tensor in pairs if name != "weight"]
    if not (weights and others):
        raise ValueError("a group has no parameters")
    groups: list[dict[str, object]] = [{"params": weights, "lr": 0.5}, {"params": others}]
    return torch.optim.SGD(groups, lr=1.0)


def test_a_lane_has_no_groups_if_the_optimizer_does_not_take_its_slices() -> None:
    layout = Layout(
        [TensorSpec(name, (64,), "float32", Role.PARAMETER) for name in ("weight", "bias")]
        + [TensorSpec("count", (64,), "int64", Role.COUNTER)]
    )
    (both,) = partition(layout, 1)
    halves = partition(layout, 4)

    def groups(part: Part) -> int | None:
        return Lane(layout, part, grouped, None, False, allocate(part.bytes), average_in_chunks).groups()

    assert groups(both) == 2
    assert [groups(part) for part in halves] == [None, None, 0, 0]  # counters need no optimizer


def test_asking_for_its_groups_changes_nothing() -> None:
    memory = allocate(LAYOUT.pushed_bytes)
    lane = make_lane(memory)
    before = memory.clone()
    assert lane.groups() == 1
    assert torch.equal(memory, before)
    lane.apply([gradient(torch.ones(ELEMENTS))], How(tick=0))
    assert view(memory, 0, ELEMENTS, "float32").tolist() == [-1.0] * ELEMENTS


# ------------------------------------------------------------------ clipping


@pytest.mark.parametrize(
    ("clip", "how"),
    [
        (None, How(tick=0, clip_scale=0.5)),
        (Clip(value=0.25), How(tick=0)),
        (Clip(tensor_norm=0.25), How(tick=0)),
    ],
)
def test_the_memory_of_a_clipped_gradient_is_left_as_it_is(clip: Clip | None, how: How) -> None:
    memory = allocate(LAYOUT.pushed_bytes)
    (part,) = partition(LAYOUT, 1)
    lane = Lane(LAYOUT, part, PLAIN, None, True, memory, average_in_chunks, clip)
    lane.begin()
    pushed = gradient(torch.full((ELEMENTS,), 2.0))
    lane.apply([pushed], how)
    assert torch.equal(view(pushed.memory, 0, ELEMENTS, "float32"), torch.full((ELEMENTS,), 2.0))
    assert not torch.equal(view(memory, 0, ELEMENTS, "float32"), torch.full((ELEMENTS,), -2.0))


def test_buffers_are_averaged_and_never_clipped() -> None:
    layout = Layout(
        [
            TensorSpec("weight", (64,), "float32", Role.PARAMETER),
            TensorSpec("running", (64,), "float32", Role.BUFFER),
        ]
    )
    (part,) = partition(layout, 1)
    memory = allocate(layout.pushed_bytes)
    lane = Lane(layout, part, PLAIN, None, False, memory, average_in_chunks, Clip(value=0.5))
    lane.begin()
    pushes = [Gradient(torch.full((128,), value).view(torch.uint8), frozenset()) for value in (2.0, 4.0)]
    squares = lane.square_sums([push.memory for push in pushes])
    assert squares == [64 * 3.0**2]
    lane.apply(pushes, How(tick=0, clip_scale=0.125))
    assert view(memory, 0, 64, "float32").tolist() == [-0.375] * 64
    assert view(memory, 256, 64, "float32").tolist() == [3.0] * 64


def test_what_was_measured_is_not_averaged_again() -> None:
    taken: list[int] = []

    def counting(gradients: Sequence[Tensor], mean: Tensor) -> None:
        taken.append(mean.numel())
        average_in_chunks(gradients, mean)

    memory = allocate(LAYOUT.pushed_bytes)
    lane = make_lane(memory, average=counting)
    pushes = [gradient(torch.full((ELEMENTS,), value)) for value in (1.0, 2.0)]
    assert sum(lane.square_sums([push.memory for push in pushes])) == ELEMENTS * 1.5**2
    before = list(taken)
    lane.apply(pushes, How(tick=0))
    assert taken == before
    assert view(memory, 0, ELEMENTS, "float32").tolist() == [-1.5] * ELEMENTS


def test_the_learning_rate_is_scaled_for_one_step_only() -> None:
    memory = allocate(LAYOUT.pushed_bytes)
    lane = make_lane(memory)
    ones = gradient(torch.ones(ELEMENTS))
    assert lane.apply([ones], How(tick=0, lr_factor=0.25)) == (0.25,)
    assert lane.apply([ones], How(tick=0)) == (1.0,)
    assert view(memory, 0, ELEMENTS, "float32").tolist() == [-1.25] * ELEMENTS
