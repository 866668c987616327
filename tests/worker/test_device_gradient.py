from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from psgd import inprocess
from psgd.config import Job
from psgd.core.layout import Layout, Role, TensorSpec
from psgd.core.modes import Async, Sync
from psgd.runlog import Iteration, Record
from psgd.training.policies import Policies
from psgd.transport.flat import allocate, layout_of, sha256, tensors_of, views
from psgd.transport.wire_format import JobWire
from psgd.worker import outgoing, replica
from psgd.worker.device_gradient import DeviceGradient
from psgd.worker.device_weights import WeightsOnDevice
from psgd.worker.gradient import SlotGradient
from tests.jobs import CNN, MLP, NormAndDropout, first_model, keep_nothing, make_job
from tests.worker.hand_driven import HandDrivenStream, PromptStream
from tests.worker.own_loops import shards_of

LAYOUT = Layout(
    [
        TensorSpec("weight", (3,), "float32", Role.PARAMETER),
        TensorSpec("bias", (2,), "float32", Role.PARAMETER),
        TensorSpec("mean", (2,), "float32", Role.BUFFER),
        TensorSpec("count", (), "int64", Role.COUNTER),
        TensorSpec("fixed", (4,), "float32", Role.FROZEN),
    ]
)
PULLED = {"mean": torch.zeros(2)}


class Setup:
    """A slot's gradient, and its copies' stream."""

    def __init__(self) -> None:
        self.stream = HandDrivenStream()
        self.gradient = DeviceGradient(allocate(LAYOUT.pushed_bytes), LAYOUT, self.stream)

    @property
    def host(self) -> dict[str, list[float]]:
        there = views(self.gradient.memory, LAYOUT, pushed_only=True)
        return {name: there[name].tolist() for name in ("weight", "bias", "mean")}

    def keep(self, name: str, *values: float) -> Tensor:
        return self.gradient.keep(name, torch.tensor(values))


@pytest.fixture
def setup() -> Setup:
    return Setup()


# ------------------------------------------------------------------ copies


def test_a_gradient_stays_where_it_is_and_nobody_waits_for_its_copy(setup: Setup) -> None:
    value = torch.tensor([1.0, 2.0, 3.0])
    assert setup.gradient.keep("weight", value) is value
    assert setup.host["weight"] == [0.0] * 3
    assert setup.gradient.arrived("weight") == []
    setup.keep("bias", 4.0, 5.0)
    setup.gradient.zero("mean")
    assert (setup.stream.made, setup.stream.waits) == (0, 0)


def test_all_copies_have_come_when_finiteness_is_known(setup: Setup) -> None:
    setup.keep("weight", 1.0, 2.0, 3.0)
    setup.keep("mean", 6.0, 7.0)
    setup.gradient.keep("count", torch.tensor(8))
    assert setup.gradient.is_finite(PULLED)
    assert setup.host == {"weight": [1.0, 2.0, 3.0], "bias": [0.0, 0.0], "mean": [6.0, 7.0]}
    assert views(setup.gradient.memory, LAYOUT, pushed_only=True)["count"].item() == 8
    assert setup.stream.waits == 1  # for the last of them: the others came before it


def test_a_value_that_did_not_change_is_copied_once(setup: Setup) -> None:
    value = setup.keep("weight", 1.0, 2.0, 3.0)
    setup.gradient.keep("weight", value)
    assert len(setup.stream.begun) == 1
    value.mul_(2)  # clipped, say
    setup.gradient.keep("weight", value)
    assert len(setup.stream.begun) == 2
    setup.gradient.keep("weight", value.clone())
    assert len(setup.stream.begun) == 3


def test_what_was_pushed_is_copied_again_for_the_next_push(setup: Setup) -> None:
    value = setup.keep("weight", 1.0, 2.0, 3.0)
    setup.gradient.is_finite(PULLED)
    views(setup.gradient.memory, LAYOUT, pushed_only=True)["weight"].zero_()
    setup.gradient.keep("weight", value)
    setup.gradient.is_finite(PULLED)
    assert setup.host["weight"] == [1.0, 2.0, 3.0]


def test_the_newest_copy_counts_though_an_older_one_was_never_waited_for(setup: Setup) -> None:
    setup.keep("weight", float("nan"), 0.0, 0.0)
    setup.keep("bias", 1.0, 1.0)
    setup.keep("weight", 1.0, 2.0, 3.0)
    assert setup.gradient.is_finite(PULLED)
    assert setup.host["weight"] == [1.0, 2.0, 3.0]


# ------------------------------------------------------------------ what has arrived


def test_names_arrive_in_the_order_of_their_copies_and_once(setup: Setup) -> None:
    for name in ("bias", "weight", "mean"):
        setup.keep(name, *([1.0] * (3 if name == "weight" else 2)))
    setup.stream.complete(2)
    assert setup.gradient.arrived("mean") == ["bias", "weight"]
    assert setup.gradient.arrived("mean") == []
    setup.stream.complete(1)
    assert setup.gradient.arrived("mean") == ["mean"]
    assert setup.stream.waits == 0


def test_what_is_copied_again_arrives_with_its_last_copy(setup: Setup) -> None:
    setup.keep("weight", 1.0, 1.0, 1.0)
    setup.keep("bias", 1.0, 1.0)
    setup.keep("weight", 2.0, 2.0, 2.0)
    setup.stream.complete(2)
    assert setup.gradient.arrived("weight") == ["bias"]
    setup.stream.complete(1)
    assert setup.gradient.arrived("weight") == ["weight"]


def test_what_an_earlier_backward_pass_left_does_not_arrive(setup: Setup) -> None:
    setup.keep("weight", 1.0, 1.0, 1.0)
    setup.keep("bias", 1.0, 1.0)
    setup.gradient.begin()  # the last pass, which will change both
    setup.keep("bias", 2.0, 2.0)
    setup.stream.complete(3)
    assert setup.gradient.arrived("bias") == ["bias"]


def test_nothing_arrives_after_the_end(setup: Setup) -> None:
    setup.keep("weight", 1.0, 1.0, 1.0)
    setup.gradient.is_finite(PULLED)
    assert setup.gradient.arrived("weight") == []


# ------------------------------------------------------------------ versions


def test_the_version_changes_with_every_copy_and_only_then(setup: Setup) -> None:
    versions = [setup.gradient.version("weight")]
    value = setup.keep("weight", 1.0, 2.0, 3.0)
    versions.append(setup.gradient.version("weight"))
    setup.gradient.keep("weight", value)
    assert setup.gradient.version("weight") == versions[-1]
    value.add_(1)
    setup.gradient.keep("weight", value)
    versions.append(setup.gradient.version("weight"))
    setup.gradient.zero("weight")
    versions.append(setup.gradient.version("weight"))
    assert len(set(versions)) == 4
    assert setup.gradient.version("bias") == 0


# ------------------------------------------------------------------ no gradient


def test_zeros_are_not_written_over_by_a_copy_under_way(setup: Setup) -> None:
    setup.keep("weight", 1.0, 2.0, 3.0)
    setup.gradient.zero("weight")  # .grad was set to None after it had left
    assert setup.gradient.arrived("weight") == []
    assert setup.gradient.is_finite(PULLED)
    assert setup.host["weight"] == [0.0] * 3


def test_zeros_wait_for_no_copy_of_another_gradient(setup: Setup) -> None:
    setup.keep("weight", 1.0, 2.0, 3.0)
    setup.gradient.zero("bias")
    assert setup.stream.waits == 0


def test_a_gradient_that_is_gone_is_not_judged(setup: Setup) -> None:
    setup.keep("weight", float("nan"), 0.0, 0.0)
    setup.gradient.zero("weight")
    assert setup.gradient.is_finite(PULLED)


# ------------------------------------------------------------------ finiteness


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["weight", "bias", "mean"])
def test_one_value_that_is_not_finite_is_found(setup: Setup, name: str, value: float) -> None:
    setup.keep("weight", 1.0, 2.0, 3.0)
    setup.keep("bias", 1.0, 2.0)
    setup.gradient.keep(name, torch.tensor([1.0, value, 1.0][: 3 if name == "weight" else 2]))
    assert not setup.gradient.is_finite(PULLED)
    assert setup.stream.made == 3  # a push whose gradient is refused has its bytes, too
    for each in ("weight", "bias", "mean"):
        setup.gradient.zero(each)
    assert setup.gradient.is_finite(PULLED)


def test_large_values_are_finite_though_their_norm_is_not(setup: Setup) -> None:
    setup.keep("weight", 3.0e38, -3.0e38, 3.0e38)
    assert setup.gradient.is_finite(PULLED)


def test_a_buffer_may_be_infinite_where_it_was(setup: Setup) -> None:
    mask = {"mean": torch.tensor([-float("inf"), 0.0])}
    setup.gradient.keep("mean", mask["mean"].clone())
    assert setup.gradient.is_finite(mask)
    setup.gradient.keep("mean", torch.tensor([-float("inf"), float("inf")]))
    assert not setup.gradient.is_finite(mask)


def test_without_any_gradient_all_is_finite(setup: Setup) -> None:
    assert setup.gradient.is_finite(PULLED)
    assert setup.stream.waits == 0


def test_a_gradient_with_a_graph_of_its_own_is_judged(setup: Setup) -> None:
    base = torch.ones(3, requires_grad=True)
    setup.gradient.keep("weight", base * 2)
    assert setup.gradient.is_finite(PULLED)
    assert setup.host["weight"] == [2.0] * 3


# ------------------------------------------------------------------ in its place between replica and push


def test_a_push_begins_with_what_the_last_backward_pass_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = HandDrivenStream()
    monkeypatch.setattr(outgoing, "gradient_on", lambda device, memory, layout: DeviceGradient(memory, layout, stream))
    job = make_job(MLP)
    wire = JobWire(job)
    push = outgoing.Outgoing(job.layout, job.parts(), wire, allocate(wire.pushes[-1].stop), torch.device("cpu"))
    names = [spec.name for spec in job.layout.tensors]
    for name, spec in zip(names, job.layout.tensors, strict=True):
        push.gradient.keep(name, torch.zeros(spec.shape))
    push.begin([])
    stream.complete(len(names))
    assert push.gradient.arrived(names[-1]) == []


def test_weights_may_be_pulled_again_though_nothing_was_computed_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = HandDrivenStream()
    monkeypatch.setattr(
        replica, "weights_on", lambda device, memory, layout: WeightsOnDevice(memory, layout, device, stream)
    )
    model = first_model(MLP)
    layout = layout_of(tensors_of(model))
    bound = replica.Replica(tensors_of(model), layout, torch.device("cpu"), allocate(layout.bytes))
    bound.renew()
    assert stream.made == 0
    bound.gather(SlotGradient(allocate(layout.pushed_bytes), layout))
    assert (stream.made, stream.waits) == (1, 1)


# ------------------------------------------------------------------ whole runs, as if on a device


@pytest.fixture
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Workers compute on what they take for a device; some copies are made early, the others when they have to be."""

    def prepare(early: int) -> None:
        class Stream(HandDrivenStream):
            def copy(self, source: Tensor, target: Tensor) -> object:  # type: ignore[override]
                place = super().copy(source, target)
                if len(self.begun) % 3 < early:
                    self.complete(len(self.begun) - self.made)
                return place

        def gradient_on(device: object, memory: Tensor, layout: Layout) -> DeviceGradient:
            return DeviceGradient(memory, layout, Stream())  # type: ignore[arg-type]

        def weights_on(device: torch.device, memory: Tensor, layout: Layout) -> WeightsOnDevice:
            return WeightsOnDevice(memory, layout, device, PromptStream())

        monkeypatch.setattr(outgoing, "gradient_on", gradient_on)
        monkeypatch.setattr(replica, "weights_on", weights_on)

    return prepare


def run(job: Job) -> tuple[str, list[tuple[int, int, float]]]:
    records: list[Record] = []
    outcome = inprocess.run(job, tensors_of(first_model(job.model)), Policies(), records.append, keep_nothing)
    losses = [(each.step, each.slot, each.loss or 0.0) for each in records if isinstance(each, Iteration)]
    return sha256(outcome.weights), sorted(losses)


JOBS = {
    "mlp": make_job(MLP, workers=2, shards=2),
    "cnn, one after another": make_job(CNN, workers=1, shards=3),
    "buffers, micro-batches": make_job(NormAndDropout, workers=4, shards=1, accumulate=3),
    "backup": make_job(MLP, Sync(backups=1), workers=2),
    "async": make_job(MLP, Async(), workers=1, slots=1),
}


@pytest.mark.parametrize("early", [0, 1, 3])
@pytest.mark.parametrize("name", JOBS)
def test_bits_do_not_depend_on_when_copies_come(name: str, early: int, as_on_a_device: Callable[[int], None]) -> None:
    job = JOBS[name]
    expected = run(job)
    as_on_a_device(early)
    assert run(job) == expected


@pytest.mark.parametrize("early", [0, 1])
def test_bits_do_not_depend_on_when_copies_come_through_shared_memory(
    early: int, as_on_a_device: Callable[[int], None]
) -> None:
    job = replace(JOBS["cnn, one after another"], workers=2, plane="shm")
    expected, _ = run(replace(job, plane="memory"))
    as_on_a_device(early)
    with shards_of(job, tensors_of(first_model(job.model))) as shards:
        shards.train()
        assert sha256(shards.weights) == expected
