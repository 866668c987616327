from functools import partial

import pytest
import torch
from torch import Tensor

from psgd import inprocess
from psgd.config import Job
from psgd.core.corrections import Correction, DelayCompensation, GapAware
from psgd.core.effects import How
from psgd.core.ids import Version
from psgd.core.layout import Layout, Role, Span, TensorSpec, partition
from psgd.core.modes import Async, Mode, Sync
from psgd.errors import ResourceError
from psgd.shard import state
from psgd.shard.lane import Gradient
from psgd.shard.state import ShardState
from psgd.shard.workplace import InPlace, MakeWorkplace, OnDevice, workplace_on
from psgd.training.optimizers import resolve_optimizer
from psgd.training.policies import Policies
from psgd.transport.flat import allocate, sha256, tensors_of
from tests.jobs import CNN, MLP, SGD, NormAndDropout, first_model, keep_nothing, make_job

CPU = torch.device("cpu")
PUSHED, FROZEN = 8, 4
ALL = Span(0, PUSHED)


def bytes_of(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)


class Setup:
    """A device's copy of a shard's memory."""

    def __init__(self) -> None:
        self.host = allocate(PUSHED + FROZEN)
        self.place = OnDevice(self.host, PUSHED, CPU)


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_weights_on_the_host_are_updated_where_planes_serve_them() -> None:
    host, gradient = allocate(PUSHED), allocate(PUSHED)
    place = InPlace(host, PUSHED)
    assert place.memory is host
    assert place.bring([gradient], ALL)[0] is gradient


def test_planes_see_weights_when_they_are_published(setup: Setup) -> None:
    setup.host.fill_(1)
    setup.place.load()
    assert torch.equal(setup.place.memory, setup.host)
    setup.place.memory.fill_(2)
    assert setup.host.tolist() == [1] * (PUSHED + FROZEN)
    setup.place.publish()
    assert setup.host.tolist() == [2] * PUSHED + [1] * FROZEN  # what is frozen stays as it is


def test_each_byte_of_a_gradient_is_copied_once(setup: Setup) -> None:
    gradient = bytes_of(1, 2, 3, 4, 5, 6, 7, 8)
    [early] = setup.place.bring([gradient], Span(2, 5))
    gradient.fill_(9)
    [there] = setup.place.bring([gradient], ALL)
    assert there is early
    assert there.tolist() == [9, 9, 3, 4, 5, 9, 9, 9]


def test_gradients_do_not_mix(setup: Setup) -> None:
    first, second = torch.full((PUSHED,), 1, dtype=torch.uint8), torch.full((PUSHED,), 2, dtype=torch.uint8)
    setup.place.bring([second], Span(0, 4))
    here = setup.place.bring([first, second], ALL)
    assert [each.unique().tolist() for each in here] == [[1], [2]]


def test_what_was_forgotten_is_copied_anew(setup: Setup) -> None:
    gradient = torch.full((PUSHED,), 1, dtype=torch.uint8)
    setup.place.bring([gradient], ALL)
    setup.place.forget()
    gradient.fill_(2)
    [there] = setup.place.bring([gradient], ALL)
    assert there.unique().tolist() == [2]


def test_memory_on_the_device_is_used_again(setup: Setup) -> None:
    places = set()
    for step in range(5):
        gradients = [torch.full((PUSHED,), step, dtype=torch.uint8) for _ in range(2)]
        places |= {here.data_ptr() for here in setup.place.bring(gradients, ALL)}
        setup.place.forget()
    assert len(places) == 2


def test_without_a_gpu_a_shard_on_one_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert workplace_on("cpu") is InPlace
    with pytest.raises(ResourceError) as caught:
        workplace_on("cuda")
    assert str(caught.value) == (
        f"shard_device cuda needs a GPU that torch can use, torch {torch.__version__} finds none in the shard's "
        "process: give it a GPU and a CUDA build of torch, or use shard_device cpu"
    )


# ------------------------------------------------------------------ a shard's state on a device

LAYOUT = Layout(
    [TensorSpec("weight", (300,), "float32", Role.PARAMETER), TensorSpec("mean", (10,), "float32", Role.BUFFER)]
)
EVERYTHING = Span(0, LAYOUT.pushed_bytes)


def make_state(make_workplace: MakeWorkplace) -> ShardState:
    (part,) = partition(LAYOUT, 1)
    shard_state = ShardState(
        LAYOUT, [part], partial(torch.optim.Adam, lr=0.1), None, False, allocate(part.bytes), make_workplace
    )
    shard_state.load(drawn(99).memory)
    return shard_state


def drawn(seed: int) -> Gradient:
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randn(LAYOUT.pushed_bytes // 4, generator=generator).view(torch.uint8)
    return Gradient(memory, frozenset())


def memories(gradients: list[Gradient]) -> list[Tensor]:
    return [gradient.memory for gradient in gradients]


def states() -> tuple[ShardState, ShardState]:
    """One on a device, and one that does without, to compare with."""
    return make_state(partial(OnDevice, device=CPU)), make_state(InPlace)


def test_what_all_slots_had_early_changes_no_bit() -> None:
    on_device, plain = states()
    slots = [drawn(-1 - slot) for slot in range(3)]  # the same memory in every step, as of segments
    for step in range(4):
        for slot, gradient in enumerate(slots):
            gradient.memory.copy_(drawn(3 * step + slot).memory)
        for ready in (Span(256, 600), Span(600, 1024), Span(0, 3))[:step]:
            on_device.prepare(memories(slots), ready)
        assert on_device.apply(slots, How(tick=step)) == plain.apply(slots, How(tick=step))
        assert torch.equal(on_device.memory, plain.memory)


def test_gradients_that_changed_after_they_had_left_are_read_again() -> None:
    on_device, plain = states()
    slots = [drawn(slot) for slot in range(3)]
    on_device.prepare(memories(slots), EVERYTHING)
    on_device.forget()  # the plane said so
    slots[1].memory.copy_(drawn(7).memory)
    on_device.apply(slots, How(tick=0))
    plain.apply(slots, How(tick=0))
    assert torch.equal(on_device.memory, plain.memory)


def test_an_update_with_other_gradients_than_those_announced_reads_these() -> None:
    on_device, plain = states()
    on_device.prepare(memories([drawn(1), drawn(2)]), EVERYTHING)
    slots = [drawn(3), drawn(4)]
    on_device.apply(slots, How(tick=0))
    plain.apply(slots, How(tick=0))
    assert torch.equal(on_device.memory, plain.memory)


# ------------------------------------------------------------------ whole runs


def run(job: Job) -> str:
    outcome = inprocess.run(job, tensors_of(first_model(job.model)), Policies(), lambda record: None, keep_nothing)
    return sha256(outcome.weights)


OPTIMIZERS = {
    "sgd": SGD,
    "adam": resolve_optimizer("adam", 0.01, {}),
    "adagrad": resolve_optimizer("adagrad", 0.05, {}),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("mode", "workers", "shards", "slots"),
    [(Sync(), 2, 2, 3), (Sync(), 4, 1, 4), (Sync(backups=1), 1, 1, 3), (Async(), 1, 2, 1)],
)
@pytest.mark.parametrize("model", [MLP, CNN, NormAndDropout])
def test_a_device_that_gets_copies_has_the_bits_of_the_host(
    model: object, mode: Mode, workers: int, shards: int, slots: int, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(
        model,  # type: ignore[arg-type]
        mode,
        workers=workers,
        shards=shards,
        slots=slots,
        optimizer=OPTIMIZERS[optimizer],
    )
    expected = run(job)
    monkeypatch.setattr(state, "workplace_on", lambda device: partial(OnDevice, device=CPU))
    assert run(job) == expected


# ------------------------------------------------------------------ gradients that are gathered, or late


def train_on_arrival(make_workplace: MakeWorkplace, correction: Correction) -> Tensor:
    """The weights in the end; two gradients an update come in the same memory, one right behind the other."""
    (part,) = partition(LAYOUT, 1)
    factory, memory = partial(torch.optim.SGD, lr=0.1, momentum=0.9), allocate(part.bytes)
    shard_state = ShardState(
        LAYOUT, [part], factory, None, False, memory, make_workplace, correction=correction, gathers=True
    )
    shard_state.load(drawn(99).memory)
    push = drawn(0)
    for update in range(4):
        pulled = None if update == 0 else Version(update - 1)
        shard_state.hold(Version(update), [Version(update), *([] if pulled is None else [pulled])])
        for seed in (2 * update, 2 * update + 1):
            push.memory.copy_(drawn(seed).memory)
            shard_state.gather(push, How(tick=0, pulled=pulled), 0.5)
        shard_state.apply_gathered(2, 1.0, How(tick=0))
    return shard_state.memory.view(torch.float32)


@pytest.mark.parametrize("correction", [DelayCompensation(0.5), DelayCompensation(adaptive=True), GapAware()], ids=str)
def test_on_a_device_gradients_are_gathered_and_corrected_with_the_same_bits(correction: Correction) -> None:
    found = train_on_arrival(partial(OnDevice, device=CPU), correction)
    assert torch.equal(found, train_on_arrival(InPlace, correction))


# ------------------------------------------------------------------ on a real GPU

CUDA = partial(OnDevice, device=torch.device("cuda", 0))


@pytest.mark.gpu
@pytest.mark.parametrize("slots", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("scale", [1.0, 1e-38, 3e-44, 1e37])
def test_the_mean_has_the_same_bits_on_a_gpu(slots: int, scale: float) -> None:
    gradients = [drawn(slot).memory.view(torch.float32) * scale for slot in range(slots)]
    pushes = [Gradient(gradient.view(torch.uint8), frozenset()) for gradient in gradients]
    (part,) = partition(LAYOUT, 1)
    results = []
    for make_workplace in (CUDA, InPlace):
        shard_state = ShardState(
            LAYOUT, [part], partial(torch.optim.SGD, lr=1.0), None, False, allocate(part.bytes), make_workplace
        )
        shard_state.load(allocate(part.bytes))
        shard_state.apply(pushes, How(tick=0))
        results.append(shard_state.memory)
    assert torch.equal(*results)  # from zero, with learning rate 1: what was subtracted is the mean


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adadelta", "adagrad", "adam", "adamw", "nadam", "rmsprop", "sgd"])
def test_an_optimizer_is_as_fast_as_torch_has_it_on_a_gpu_and_close_to_the_cpu(optimizer: str) -> None:
    (part,) = partition(LAYOUT, 1)
    results = []
    for make_workplace in (CUDA, InPlace):
        factory = resolve_optimizer(optimizer, 0.01, {})
        shard_state = ShardState(LAYOUT, [part], factory, None, False, allocate(part.bytes), make_workplace)
        shard_state.load(drawn(99).memory)
        for step in range(3):
            shard_state.apply([drawn(step), drawn(step + 10)], How(tick=step))
        results.append(shard_state.memory.view(torch.float32))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("correction", [DelayCompensation(0.5), DelayCompensation(adaptive=True), GapAware()], ids=str)
def test_on_a_gpu_gradients_are_gathered_and_corrected_as_on_the_cpu(correction: Correction) -> None:
    results = [train_on_arrival(place, correction) for place in (CUDA, InPlace)]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_early_bytes_change_no_bit_on_a_gpu() -> None:
    states_ = [make_state(CUDA), make_state(CUDA)]
    slots = [drawn(slot) for slot in range(3)]
    for ready in (Span(256, 600), Span(600, 1024)):
        states_[0].prepare(memories(slots), ready)
    for each in states_:
        each.apply(slots, How(tick=0))
    assert torch.equal(states_[0].memory, states_[1].memory)
