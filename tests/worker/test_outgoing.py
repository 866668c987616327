from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor, nn

from psgd.config import Job
from psgd.core.ids import Shard
from psgd.core.layout import Span
from psgd.core.messages import Push
from psgd.core.slot import Computed
from psgd.transport.base import Deliver, Upload
from psgd.transport.flat import allocate, layout_of, tensors_of
from psgd.transport.wire_format import JobWire
from psgd.worker import outgoing
from psgd.worker.outgoing import Outgoing
from tests.jobs import make_job

CPU = torch.device("cpu")
NAMES = ("first", "second", "third", "fourth", "fifth")
FINE = Computed(finite=True, absent=())


class Five(nn.Module):
    """Five parameters of one block of the flat space each (256 bytes), and a buffer behind them."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            self.register_parameter(name, nn.Parameter(torch.zeros(60)))
        self.register_buffer("seen", torch.zeros(3))


@dataclass
class NotedUpload:
    """Notes what a slot says about a push."""

    heard: list[tuple[int, int] | None] = field(default_factory=list)

    def ready(self, span: Span) -> None:
        self.heard.append((span.start, span.stop))

    def withdraw(self) -> None:
        self.heard.append(None)

    def finish(self, push: Push, deliver: Deliver, into: object = ()) -> None:
        raise AssertionError("a slot's runner does that")


class Setup:
    """A slot's push to some shards, in buckets of 512 bytes."""

    def __init__(self, wire: str = "float32", shards: int = 1, names_norm: bool = False) -> None:
        layout = layout_of(tensors_of(Five()))
        self.job: Job = replace(make_job(shards=shards), layout=layout, wire=wire)
        self.wire = JobWire(self.job)
        self.memory = allocate(self.wire.pushes[-1].stop)
        self.outgoing = Outgoing(layout, self.job.parts(), self.wire, self.memory, CPU, names_norm)
        self.uploads: list[NotedUpload] = []

    def begin(self) -> None:
        self.uploads = [NotedUpload() for _ in self.wire.formats]
        uploads: list[Upload] = list(self.uploads)
        self.outgoing.begin(uploads)

    def fill(self, seed: int) -> None:
        """All gradients lie here."""
        generator = torch.Generator().manual_seed(seed)
        for name in (*NAMES, "seen"):
            size = 3 if name == "seen" else 60
            self.outgoing.gradient.keep(name, torch.randn(size, generator=generator))

    def set(self, name: str, value: float) -> None:
        self.outgoing.gradient.keep(name, torch.full((60,), value))

    def sent(self) -> list[bytes]:
        return [bytes(self.outgoing.payload(Shard(k))) for k in range(len(self.wire.formats))]

    def residual(self) -> Tensor:
        assert self.outgoing.residual is not None
        return self.outgoing.residual.values


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "BUCKET_BYTES", 512)


# ------------------------------------------------------------------ what leaves early


def test_gradients_leave_in_buckets_and_neighbours_in_one_span() -> None:
    setup = Setup()
    setup.begin()
    [upload] = setup.uploads
    setup.outgoing.leave("fifth")
    assert upload.heard == []
    setup.outgoing.leave("fourth")
    assert upload.heard == [(768, 1280)]
    setup.outgoing.leave("first")
    setup.outgoing.leave("third")
    assert upload.heard == [(768, 1280), (0, 256), (512, 768)]
    setup.outgoing.leave("second")  # the last bucket is not full: it goes with the end
    assert setup.outgoing.write(FINE) == FINE
    assert upload.heard == [(768, 1280), (0, 256), (512, 768)]


def test_each_shard_has_buckets_of_its_own() -> None:
    setup = Setup(shards=2)  # 768 bytes each: three parameters, and two with the buffer
    setup.begin()
    for name in ("first", "fourth", "second", "fifth", "third"):
        setup.outgoing.leave(name)
    assert [upload.heard for upload in setup.uploads] == [[(0, 512)], [(0, 512)]]


def test_a_parameter_that_is_cut_leaves_for_each_of_its_shards() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(512))

    setup = Setup()
    layout = layout_of(tensors_of(Wide()))
    job = replace(make_job(shards=2), layout=layout)
    setup.wire = JobWire(job)
    setup.outgoing = Outgoing(layout, job.parts(), setup.wire, allocate(setup.wire.pushes[-1].stop), CPU)
    setup.begin()
    setup.outgoing.leave("weight")
    assert [upload.heard for upload in setup.uploads] == [[(0, 1024)], [(0, 1024)]]


def test_each_push_begins_with_empty_buckets() -> None:
    setup = Setup()
    setup.begin()
    setup.outgoing.leave("first")
    setup.outgoing.write(FINE)
    setup.begin()
    setup.outgoing.leave("second")
    assert setup.uploads[0].heard == []


def test_a_slot_that_lets_nothing_leave_writes_all_in_the_end() -> None:
    setup, other = Setup("int8"), Setup("int8")
    setup.fill(1)
    other.fill(1)
    assert setup.outgoing.write(FINE) == FINE
    other.begin()
    for name in NAMES:
        other.outgoing.leave(name)
    assert other.outgoing.write(FINE) == FINE
    assert setup.sent() == other.sent()


# ------------------------------------------------------------------ what changes after it has left


@pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8", "topk:0.1"])
def test_a_gradient_that_changes_after_it_left_is_withdrawn_and_sent_as_it_is_in_the_end(wire: str) -> None:
    setup, expected = Setup(wire), Setup(wire)
    setup.fill(1)
    expected.fill(1)
    setup.begin()
    for name in NAMES:
        setup.outgoing.leave(name)
    for each in (setup, expected):
        each.outgoing.gradient.keep("third", torch.full((60,), 0.25))  # such as a clipped one
        assert each.outgoing.write(FINE) == FINE
    assert setup.uploads[0].heard[-1] is None
    assert setup.sent() == expected.sent()


def test_one_that_changes_without_having_left_is_not() -> None:
    setup = Setup()
    setup.begin()
    setup.outgoing.leave("first")
    setup.outgoing.leave("second")
    setup.set("third", 1.0)
    setup.outgoing.write(FINE)
    assert setup.uploads[0].heard == [(0, 512)]


def test_one_that_is_overwritten_with_what_it_is_counts_as_changed_too() -> None:
    setup = Setup()
    setup.begin()
    setup.outgoing.leave("first")
    setup.outgoing.gradient.keep("first", torch.zeros(60))
    setup.outgoing.write(FINE)
    assert setup.uploads[0].heard == [None]


@pytest.mark.parametrize("wire", ["float32", "int8"])
def test_a_second_backward_pass_withdraws_what_the_first_let_leave(wire: str) -> None:
    setup, expected = Setup(wire), Setup(wire)
    setup.begin()
    setup.fill(1)
    for name in ("fifth", "fourth", "third"):
        setup.outgoing.leave(name)
    heard = list(setup.uploads[0].heard)
    setup.fill(2)
    setup.outgoing.leave("fifth")  # third is in no bucket any more: it may still change
    assert setup.uploads[0].heard == [*heard, None]
    setup.outgoing.leave("first")
    setup.outgoing.leave("third")
    setup.outgoing.write(FINE)
    assert setup.uploads[0].heard.count(None) == 1
    if wire == "float32":
        assert setup.uploads[0].heard == [(768, 1280), None, (0, 256), (1024, 1280)]
    expected.fill(2)
    expected.outgoing.write(FINE)
    assert setup.sent() == expected.sent()


def test_withdrawing_is_told_to_every_shard() -> None:
    setup = Setup(shards=2)
    setup.begin()
    setup.outgoing.leave("first")
    setup.set("first", 1.0)
    setup.outgoing.write(FINE)
    assert [upload.heard for upload in setup.uploads] == [[None], [None]]


# ------------------------------------------------------------------ what the wire makes of it


@pytest.mark.parametrize("wire", ["bfloat16", "float16", "int8", "topk:0.1", "onebit"])
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_pieces_that_leave_are_those_of_the_whole(wire: str, shards: int) -> None:
    early, whole = Setup(wire, shards), Setup(wire, shards)
    for step in range(3):
        early.begin()
        early.fill(step)
        for name in ("fourth", "second"):
            early.outgoing.leave(name)
        whole.fill(step)
        assert early.outgoing.write(FINE) == whole.outgoing.write(FINE) == FINE
        assert early.sent() == whole.sent()
        for each in (early, whole):
            for shard in range(shards):
                each.outgoing.accepted(Shard(shard))


def test_an_absent_parameter_is_sent_as_zeros_and_its_residual_waits() -> None:
    setup = Setup("topk:0.1")
    setup.fill(1)
    setup.outgoing.write(FINE)
    setup.outgoing.accepted(Shard(0))
    before = setup.residual().clone()
    assert before[64:128].any()
    setup.begin()
    setup.fill(2)
    setup.outgoing.leave("first")
    setup.outgoing.gradient.zero("second")
    computed = Computed(finite=True, absent=(1,))
    assert setup.outgoing.write(computed) == computed
    part = setup.job.parts()[0]
    decoded = allocate(part.pushed.bytes)
    setup.wire.formats[0].push.decode(setup.memory, decoded)
    assert not decoded.view(torch.float32)[64:128].any()
    assert decoded.view(torch.float32)[:64].any()
    setup.outgoing.accepted(Shard(0))
    assert torch.equal(setup.residual()[64:128], before[64:128])
    assert not torch.equal(setup.residual()[:64], before[:64])


def test_a_parameter_whose_gradient_goes_away_after_it_left_is_absent() -> None:
    setup, expected = Setup("int8"), Setup("int8")
    setup.fill(1)
    setup.begin()
    setup.outgoing.leave("second")
    expected.fill(1)
    computed = Computed(finite=True, absent=(1,))
    for each in (setup, expected):
        each.outgoing.gradient.zero("second")
        each.outgoing.write(computed)
    assert setup.uploads[0].heard == [None]
    assert setup.sent() == expected.sent()


def test_the_residual_changes_only_where_a_shard_has_accepted() -> None:
    setup = Setup("onebit", shards=2)
    setup.fill(1)
    setup.outgoing.write(FINE)
    assert not setup.residual().any()
    setup.outgoing.accepted(Shard(1))
    boundary = setup.job.parts()[1].pushed.start // 4
    assert not setup.residual()[:boundary].any()
    assert setup.residual()[boundary:].any()


def test_without_feedback_there_is_no_residual() -> None:
    for wire in ("float32", "bfloat16", "int8"):
        setup = Setup(wire)
        setup.outgoing.accepted(Shard(0))
        assert setup.outgoing.residual is None


@pytest.mark.parametrize("wire", ["bfloat16", "float16", "int8", "topk:0.1", "onebit"])
@pytest.mark.parametrize("early", [False, True])
def test_what_is_not_finite_is_seen_whether_it_left_early_or_not(wire: str, early: bool) -> None:
    setup = Setup(wire)
    setup.begin()
    setup.fill(1)
    setup.set("second", float("nan"))
    if early:
        setup.outgoing.leave("second")
    assert setup.outgoing.write(FINE) == Computed(finite=False, absent=())
    setup.begin()
    setup.fill(2)
    setup.outgoing.leave("second")
    assert setup.outgoing.write(FINE) == FINE  # the next push is judged anew
    assert not any(part.isnan().any() for part in ([setup.residual()] if setup.outgoing.residual else []))


def test_an_overflow_in_the_codec_is_not_finite() -> None:
    for early in (False, True):
        setup = Setup("float16")
        setup.begin()
        setup.set("second", 70000.0)
        if early:
            setup.outgoing.leave("second")
        assert not setup.outgoing.write(FINE).finite


def test_what_was_not_finite_when_it_left_may_be_put_right() -> None:
    setup = Setup("int8")
    setup.begin()
    setup.fill(1)
    setup.set("second", float("inf"))
    setup.outgoing.leave("second")
    setup.set("second", 1.0)  # such as a loop that replaces infinities
    assert setup.outgoing.write(FINE) == FINE


def test_with_float32_the_gradient_is_sent_from_where_it_is_gathered() -> None:
    setup = Setup(shards=2)
    setup.fill(3)
    assert setup.outgoing.gradient.memory is setup.memory
    assert b"".join(setup.sent()) == setup.memory.numpy().tobytes()


@pytest.mark.parametrize("wire", ["float32", "bfloat16"])
def test_the_work_of_leaving_grows_with_the_number_of_parameters(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Many(nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            for number in range(count):
                self.register_parameter(f"p{number}", nn.Parameter(torch.zeros(4)))

    def looks(count: int) -> int:
        """How often something asks how long a span is, while all gradients leave."""
        layout = layout_of(tensors_of(Many(count)))
        job = replace(make_job(), layout=layout, wire=wire)
        job_wire = JobWire(job)
        slot = Outgoing(layout, job.parts(), job_wire, allocate(job_wire.pushes[-1].stop), CPU)
        slot.begin([NotedUpload()])
        asked = 0

        def size(span: Span) -> int:
            nonlocal asked
            asked += 1
            return span.stop - span.start

        with monkeypatch.context() as counting:
            counting.setattr(Span, "bytes", property(size))
            for spec in layout.tensors:
                slot.gradient.keep(spec.name, torch.ones(4))
                slot.leave(spec.name)
            slot.write(FINE)
        return asked

    assert looks(400) <= 4 * looks(100)


# ------------------------------------------------------------------ its norm


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8", "topk:0.1", "onebit"])
def test_the_norm_is_that_of_the_gradient_which_the_shards_read(wire: str, shards: int) -> None:
    setup = Setup(wire, shards, names_norm=True)
    setup.begin()
    setup.fill(seed=1)
    norm = setup.outgoing.write(FINE).norm
    read = torch.zeros(setup.job.layout.floating_bytes // 4)
    for part, format_, payload in zip(setup.job.parts(), setup.wire.formats, setup.sent(), strict=True):
        if format_.push.identity:
            read.view(torch.uint8)[part.pushed.start : part.pushed.stop] = torch.tensor(list(payload))
        else:
            decoded = read.view(torch.uint8)[part.pushed.start : part.pushed.stop]
            format_.push.decode(torch.tensor(list(payload), dtype=torch.uint8), decoded)
    parameters = [read[64 * k : 64 * k + 60] for k in range(5)]
    assert norm == pytest.approx(float(torch.cat(parameters).double().norm()), rel=1e-14)


def test_a_gradient_that_is_not_finite_has_no_norm() -> None:
    setup = Setup(names_norm=True)
    assert setup.outgoing.write(Computed(finite=False, absent=())).norm is None
    assert Setup().outgoing.write(FINE).norm is None
