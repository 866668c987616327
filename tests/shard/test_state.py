from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.optim.lr_scheduler import StepLR

from psgd.config import NamedTensors, OptimizerFactory, ScheduleFactory
from psgd.core.effects import How
from psgd.core.ids import Shard
from psgd.core.layout import Layout, Role, TensorSpec, partition
from psgd.core.modes import Async, Mode, Sync
from psgd.shard.lane import Gradient
from psgd.shard.state import ShardState, lanes_for
from psgd.transport.flat import allocate, pack, views
from tests.jobs import CNN, make_job

PLAIN = partial(torch.optim.SGD, lr=1.0)

LAYOUT = Layout(
    [
        TensorSpec("weight", (10, 20), "float32", Role.PARAMETER),
        TensorSpec("mean", (70,), "float32", Role.BUFFER),
        TensorSpec("count", (), "int64", Role.COUNTER),
        TensorSpec("fixed", (3,), "float32", Role.FROZEN),
        TensorSpec("bias", (5,), "float32", Role.PARAMETER),
        TensorSpec("flags", (2,), "bool", Role.COUNTER),
    ]
)
WEIGHT, BIAS = 0, 4


def make_state(
    first: dict[str, Tensor], optimizer: OptimizerFactory = PLAIN, schedule: ScheduleFactory | None = None
) -> ShardState:
    (part,) = partition(LAYOUT, 1)
    state = ShardState(LAYOUT, [part], optimizer, schedule, whole=False, memory=allocate(part.bytes))
    state.load(pack(first, LAYOUT))
    return state


def zeros() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in views(allocate(LAYOUT.bytes), LAYOUT).items()}


def tensors(state: ShardState) -> dict[str, Tensor]:
    return views(state.memory, LAYOUT)


def drawn(seed: int) -> dict[str, Tensor]:
    """What a slot pushes, by name."""
    generator = torch.Generator().manual_seed(seed)
    pushed = zeros()
    for tensor in pushed.values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return pushed


def gradient(pushed: dict[str, Tensor], absent: Sequence[int] = ()) -> Gradient:
    return Gradient(pack(pushed, LAYOUT)[: LAYOUT.pushed_bytes].clone(), frozenset(absent))


@pytest.mark.parametrize("name", ["weight", "bias", "mean"])
def test_the_mean_is_added_in_slot_order_and_then_divided(name: str) -> None:
    state = make_state(zeros())
    pushes = [drawn(seed) for seed in range(3)]
    state.apply([gradient(pushed) for pushed in pushes], How(tick=0))
    g0, g1, g2 = (pushed[name].numpy() for pushed in pushes)
    expected = ((g0 + g1) + g2) / np.float32(3)
    got = tensors(state)[name].numpy()
    np.testing.assert_array_equal(got if name == "mean" else -got, expected)  # SGD with lr 1, from zero


def test_another_order_of_the_same_sum_has_other_bits() -> None:
    g0, g1, g2 = (drawn(seed)["weight"].numpy() for seed in range(3))
    mean = ((g0 + g1) + g2) / np.float32(3)
    assert (mean != (g0 + (g1 + g2)) / np.float32(3)).any()  # else the test above shows nothing
    assert (mean != ((g0 + g1) + g2) * (np.float32(1) / np.float32(3))).any()


def test_one_gradient_is_its_own_mean() -> None:
    state = make_state(zeros())
    pushed = drawn(0)
    state.apply([gradient(pushed)], How(tick=0))
    assert torch.equal(tensors(state)["weight"], -pushed["weight"])
    assert torch.equal(tensors(state)["mean"], pushed["mean"])


def test_pushed_gradients_stay_as_they_are() -> None:
    state = make_state(zeros())
    pushes = [gradient(drawn(seed)) for seed in range(2)]
    before = [push.memory.clone() for push in pushes]
    state.apply(pushes, How(tick=0))
    assert all(torch.equal(push.memory, copy) for push, copy in zip(pushes, before, strict=True))


def test_a_parameter_without_gradient_in_any_slot_is_skipped() -> None:
    decaying = partial(torch.optim.SGD, lr=1.0, weight_decay=0.5)
    first = zeros()
    first["weight"].fill_(1)
    first["bias"].fill_(1)
    state = make_state(first, decaying)
    state.apply([gradient(zeros(), [BIAS]), gradient(zeros(), [BIAS])], How(tick=0))
    assert tensors(state)["bias"].tolist() == [1.0] * 5  # not even decayed
    assert torch.equal(tensors(state)["weight"], torch.full((10, 20), 0.5))


def test_where_only_some_slots_have_a_gradient_the_others_count_as_zero() -> None:
    state = make_state(zeros())
    with_bias, without = zeros(), zeros()
    with_bias["bias"].fill_(3)
    state.apply([gradient(without, [BIAS]), gradient(with_bias), gradient(without, [BIAS])], How(tick=0))
    assert tensors(state)["bias"].tolist() == [-1.0] * 5


def test_counters_come_from_the_first_slot_and_frozen_tensors_stay() -> None:
    first = zeros()
    first["fixed"].copy_(torch.tensor([1.0, 2.0, 3.0]))
    state = make_state(first)
    low, high = zeros(), zeros()
    low["count"].fill_(7)
    low["flags"].copy_(torch.tensor([True, False]))
    high["count"].fill_(9)
    state.apply([gradient(low), gradient(high)], How(tick=0))
    assert tensors(state)["count"].item() == 7
    assert tensors(state)["flags"].tolist() == [True, False]
    assert tensors(state)["fixed"].tolist() == [1.0, 2.0, 3.0]


def test_the_schedule_catches_up_with_the_tick_and_never_goes_back() -> None:
    state = make_state(zeros(), schedule=partial(StepLR, step_size=1, gamma=0.5))
    rates = [state.apply([gradient(zeros())], How(tick)) for tick in (2, 2, 5, 3, 6)]  # no warning that it ticked first
    assert rates == [(0.25,), (0.25,), (0.03125,), (0.03125,), (0.015625,)]


def test_the_learning_rate_of_every_group_is_told() -> None:
    def grouped(named: NamedTensors) -> torch.optim.Optimizer:
        groups = [{"params": [tensor], "lr": 0.5 if name == "bias" else 0.25} for name, tensor in named]
        return torch.optim.SGD(groups, lr=1.0)

    state = make_state(zeros(), grouped)
    assert sorted(state.apply([gradient(zeros())], How(tick=0))) == [0.25, 0.5]


class Watched:
    """An optimizer factory that shows what it was given and what became of it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.parameters: list[Tensor] = []
        self.first: list[Tensor] = []
        self.made: torch.optim.Optimizer | None = None

    def __call__(self, named: NamedTensors) -> torch.optim.Optimizer:
        for name, parameter in named:
            self.names.append(name)
            self.parameters.append(parameter)
            self.first.append(parameter.detach().clone())
        self.made = torch.optim.Adam(self.parameters)
        return self.made


def test_the_optimizer_is_made_over_the_first_weights_in_its_fastest_form() -> None:
    watched = Watched()
    first = drawn(5)
    make_state(first, watched)
    assert watched.names == ["weight", "bias"]  # nothing frozen, no buffer
    assert torch.equal(watched.first[0], first["weight"].flatten())
    assert watched.made is not None
    assert watched.made.param_groups[0]["fused"] is True


def test_no_gradient_is_kept_after_the_update() -> None:
    watched = Watched()
    make_state(zeros(), watched).apply([gradient(drawn(0))], How(tick=0))
    assert [parameter.grad for parameter in watched.parameters] == [None, None]


@pytest.mark.parametrize("whole", [False, True])
def test_parts_together_do_what_one_does(whole: bool) -> None:
    first, pushes = drawn(9), [drawn(seed) for seed in range(3)]
    one = make_state(first)
    one.apply([gradient(pushed) for pushed in pushes], How(tick=0))
    everything = pack(first, LAYOUT)
    for part in partition(LAYOUT, 3, whole):
        state = ShardState(LAYOUT, [part], PLAIN, None, whole, memory=allocate(part.bytes))
        spans = (part.pushed, part.frozen)
        state.load(torch.cat([everything[span.start : span.stop] for span in spans]))
        pushed = slice(part.pushed.start, part.pushed.stop)
        state.apply([Gradient(gradient(p).memory[pushed], frozenset()) for p in pushes], How(tick=0))
        expected = torch.cat([one.memory[span.start : span.stop] for span in spans])
        assert torch.equal(state.memory, expected)


def test_whole_tensors_keep_their_shape_and_slices_are_flat() -> None:
    for whole, shape in ((True, (10, 20)), (False, (200,))):
        watched = Watched()
        (part,) = partition(LAYOUT, 1, whole)
        ShardState(LAYOUT, [part], watched, None, whole, memory=allocate(part.bytes)).load(allocate(part.bytes))
        assert watched.parameters[0].shape == shape


def test_a_part_without_trainable_slices_has_no_learning_rate() -> None:
    layout = Layout([TensorSpec("w", (2,), "float32", Role.PARAMETER), TensorSpec("n", (4,), "int64", Role.COUNTER)])
    part = partition(layout, 2, whole=True)[1]
    state = ShardState(layout, [part], PLAIN, partial(StepLR, step_size=1), whole=True, memory=allocate(part.bytes))
    state.load(allocate(part.bytes))
    pushed = torch.arange(4, dtype=torch.int64).view(torch.uint8)
    memory = torch.cat([pushed, allocate(part.pushed.bytes - pushed.numel())])
    assert state.apply([Gradient(memory, frozenset())], How(tick=1)) == ()
    assert state.memory[:32].view(torch.int64).tolist() == [0, 1, 2, 3]


# ------------------------------------------------------------------ lanes

OPTIMIZERS: dict[str, OptimizerFactory] = {
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": partial(torch.optim.Adam, lr=0.01),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
    "adagrad": partial(torch.optim.Adagrad, lr=0.05),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01, momentum=0.5),
}
HALVING: ScheduleFactory = partial(StepLR, step_size=2, gamma=0.5)


def in_lanes(count: int, optimizer: OptimizerFactory, schedule: ScheduleFactory | None, whole: bool) -> ShardState:
    lanes = partition(LAYOUT, count, whole)
    state = ShardState(LAYOUT, lanes, optimizer, schedule, whole, memory=allocate(LAYOUT.bytes))
    state.load(pack(drawn(9), LAYOUT))
    return state


def trained(state: ShardState) -> list[tuple[float, ...]]:
    """Some steps, in one of which a parameter is absent, in another in some slots only."""
    rates = []
    absent = {1: ([BIAS], [BIAS], [BIAS]), 2: ([], [BIAS], []), 4: ([WEIGHT, BIAS],) * 3}
    for step in range(6):
        pushes = []
        for slot, missing in enumerate(absent.get(step, ([], [], []))):
            pushed = drawn(10 * step + slot)
            pushed["count"].fill_(step)
            for index in missing:
                pushed[LAYOUT.tensors[index].name].zero_()
            pushes.append(gradient(pushed, missing))
        rates.append(state.apply(pushes, How(tick=step)))
    return rates


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("schedule", [None, HALVING])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_lanes_have_the_bits_of_one(optimizer: str, schedule: ScheduleFactory | None, whole: bool, count: int) -> None:
    one = in_lanes(1, OPTIMIZERS[optimizer], schedule, whole)
    several = in_lanes(count, OPTIMIZERS[optimizer], schedule, whole)
    assert trained(several) == trained(one)
    assert torch.equal(several.memory, one.memory)
    assert tensors(one)["count"].item() == 5


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("whole", [False, True])
def test_lanes_together_are_the_shards_part(shards: int, count: int, whole: bool) -> None:
    job = make_job(CNN, shards=shards, whole=whole)
    for shard, part in enumerate(job.parts()):
        lanes = job.lanes(shard, count)
        assert len(lanes) == count
        assert (lanes[0].pushed.start, lanes[-1].pushed.stop) == (part.pushed.start, part.pushed.stop)
        assert all(a.pushed.stop == b.pushed.start for a, b in pairwise(lanes))
        assert sum(lane.bytes for lane in lanes) == part.bytes


@given(
    sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=8),
    counters=st.lists(st.integers(1, 100), max_size=2),
    shards=st.integers(1, 5),
    count=st.integers(1, 5),
    whole=st.booleans(),
)
def test_lanes_begin_and_end_with_their_shard(
    sizes: list[int], counters: list[int], shards: int, count: int, whole: bool
) -> None:
    layout = Layout(
        [TensorSpec(f"p{k}", (size,), "float32", Role.PARAMETER) for k, size in enumerate(sizes)]
        + [TensorSpec(f"n{k}", (size,), "int64", Role.COUNTER) for k, size in enumerate(counters)]
    )
    job = replace(make_job(shards=shards, whole=whole), layout=layout)
    for shard, part in enumerate(job.parts()):
        lanes = job.lanes(shard, count)
        assert (lanes[0].pushed.start, lanes[-1].pushed.stop) == (part.pushed.start, part.pushed.stop)


MIB = 2**20
LARGE = Layout([TensorSpec("weight", (10 * MIB // 4,), "float32", Role.PARAMETER)])


@pytest.mark.parametrize(
    ("mode", "shards", "cores", "expected"),
    [
        (Sync(), 1, 1, 1),
        (Sync(), 1, 2, 2),
        (Sync(), 1, 64, 2),  # a lane of less than 4 MiB is not worth its thread
        (Sync(backups=1), 1, 64, 2),
        (Sync(), 2, 2, 1),  # the shards of a host share its cores
        (Sync(), 2, 4, 1),
        (Sync(), 4, 2, 1),
        (Async(), 1, 64, 1),  # the workers go on computing
    ],
)
def test_as_many_lanes_as_pay(mode: Mode, shards: int, cores: int, expected: int) -> None:
    job = replace(make_job(mode=mode, shards=shards), layout=LARGE)
    assert lanes_for(job, Shard(0), cores) == expected


def test_on_a_gpu_one_lane_is_enough() -> None:
    job = replace(make_job(mode=Sync()), layout=LARGE)
    assert lanes_for(job, Shard(0), cores=2) == 2
    assert lanes_for(replace(job, shard_device="cuda"), Shard(0), cores=2) == 1


def test_an_optimizer_that_needs_all_slices_gets_them() -> None:
    layout = Layout(
        [
            TensorSpec("weight", (2 * MIB,), "float32", Role.PARAMETER),
            TensorSpec("bias", (64,), "float32", Role.PARAMETER),
        ]
    )

    def grouped(named: NamedTensors) -> torch.optim.Optimizer:
        pairs = list(named)
        groups = [{"params": [t for n, t in pairs if n == name], "lr": lr} for name, lr in (("weight", 1), ("bias", 2))]
        if not all(group["params"] for group in groups):
            raise ValueError("a group has no parameters")
        return torch.optim.SGD(groups)

    job = replace(make_job(optimizer=grouped), layout=layout)
    (part,) = job.parts()
    assert lanes_for(job, Shard(0), cores=2) == 2
    state = ShardState.of(job, Shard(0), allocate(part.bytes), cores=2)
    state.load(allocate(part.bytes))
    ones = torch.ones(layout.pushed_bytes // 4).view(torch.uint8)
    assert state.apply([Gradient(ones, frozenset())], How(tick=0)) == (1.0, 2.0)
    assert views(state.memory, layout)["weight"].unique().tolist() == [-1.0]
    assert views(state.memory, layout)["bias"].unique().tolist() == [-2.0]


def test_what_an_optimizer_raises_in_a_lane_is_heard_of() -> None:
    class Failing(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            raise RuntimeError("no more")

    state = in_lanes(2, partial(Failing, lr=0.1), None, whole=False)
    with pytest.raises(RuntimeError, match="no more"):
        state.apply([gradient(drawn(1))], How(tick=0))


@pytest.mark.parametrize("lanes", [1, 2, 3, 7])
@pytest.mark.parametrize("slots", [1, 3])
def test_lanes_measure_what_one_would(lanes: int, slots: int) -> None:
    layout = Layout(
        [
            TensorSpec("weight", (300, 400), "float32", Role.PARAMETER),
            TensorSpec("running", (99,), "float32", Role.BUFFER),
            TensorSpec("bias", (301,), "float32", Role.PARAMETER),
        ]
    )
    generator = torch.Generator().manual_seed(slots)
    pushes = []
    for _ in range(slots):
        memory = allocate(layout.pushed_bytes)
        for tensor in views(memory, layout, pushed_only=True).values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        pushes.append(memory)
    state = ShardState(layout, partition(layout, lanes), PLAIN, None, False, memory=allocate(layout.bytes))
    alone = ShardState(layout, partition(layout, 1), PLAIN, None, False, memory=allocate(layout.bytes))
    assert sum(state.measure(pushes)) == sum(alone.measure(pushes))
    named = [views(memory, layout, pushed_only=True) for memory in pushes]
    means = [torch.stack([each[name] for each in named]).double().mean(0) for name in ("weight", "bias")]
    assert sum(alone.measure(pushes)) == pytest.approx(sum(float((m**2).sum()) for m in means), rel=1e-6)


def test_a_mean_that_was_measured_of_other_gradients_is_taken_anew() -> None:
    state = make_state(zeros())
    pushes = [gradient(drawn(seed)) for seed in range(4)]
    state.measure([push.memory for push in pushes[:2]])
    state.forget()
    state.apply(pushes[2:], How(tick=0))
    plain = make_state(zeros())
    plain.apply(pushes[2:], How(tick=0))
    assert torch.equal(state.memory, plain.memory)
