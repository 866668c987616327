import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from psgd.core.ids import Incarnation, Slot, Step, Version
from psgd.core.layout import Span
from psgd.core.messages import Ask, Ended, Granted, Join, Joined, Pull, Pulled, Push, Receipt, Refused, Status
from psgd.core.modes import Async, Mode, Sync
from psgd.core.slot import Compute
from psgd.data.sampler import draw_seed, seed_everything
from psgd.errors import LostError
from psgd.runlog import Iteration
from psgd.training.optimizers import resolve_optimizer
from psgd.transport.attachment import attach
from psgd.transport.base import PushId
from psgd.transport.flat import layout_of, sha256, tensors_of
from psgd.worker import outgoing
from psgd.worker.compute import Computation
from psgd.worker.loop import Worker
from psgd.worker.making import GradientMaker
from psgd.worker.record import Chronicle
from psgd.worker.replica import Replica
from psgd.worker.runner import Inbox, SlotRunner, Weights
from tests.jobs import MLP, SEED, SLOTS, STEPS, Parties, first_model, images, make_job, plan_of
from tests.worker.scripted import ScriptedConnection, Sent

CPU = torch.device("cpu")


class Scripted:
    """A worker with some slots, on one shard that a test answers for."""

    def __init__(
        self,
        mode: Mode = Async(staleness=1),  # noqa: B008, a frozen value
        slots: int = 2,
        overlap: bool = True,
    ) -> None:
        self.model = nn.Linear(2, 1, bias=False)
        job = replace(make_job(mode=mode, slots=slots), layout=layout_of(tensors_of(self.model)))
        job = replace(job, training=replace(job.training, overlap=overlap))
        self.now = 0.0
        self.compute_s = 0.0
        self.shard = ScriptedConnection()
        self.computed: list[tuple[int, int]] = []
        self.records: list[Iteration] = []
        self.slots = [Slot(number) for number in range(slots)]
        attachment = attach([self.shard], job, self.slots)
        replica = Replica(tensors_of(self.model), job.layout, CPU, attachment.weights)
        weights, inbox = Weights(attachment, job.parts()), Inbox()
        runners = [
            SlotRunner(job, slot, Incarnation(0), attachment, weights, inbox, CPU, Chronicle(7, slot, lambda: self.now))
            for slot in self.slots
        ]
        make = GradientMaker(replica, self.compute, overlap)
        self.worker = Worker(7, mode, runners, make, inbox, self.records.append)

    def compute(self, order: Compute, slot: Slot, before_last: Callable[[], None]) -> Computation:
        self.computed.append((order.step, slot))
        self.now += self.compute_s
        return Computation(loss=0.25, samples=6, seconds=self.compute_s)

    def join(self) -> None:
        """All slots introduce themselves, and ask."""
        self.worker.start()
        for _ in self.slots:
            sent = self.shard.take()
            assert isinstance(sent.request, Join)
            sent.answer(Joined(0))
            assert self.worker.advance(timeout_s=0)
        assert [sent.request for sent in self.shard.sent] == [Ask(slot, Incarnation(0), Step(0)) for slot in self.slots]

    def grant(self) -> None:
        """All slots join, and may start; the first one's pull is under way."""
        self.join()
        for sent in [self.shard.take() for _ in self.slots]:
            sent.answer(Granted(Step(0), 0))
            self.worker.advance(timeout_s=0)

    def pushes(self) -> list[Sent]:
        """The pushes that are under way, taken out."""
        pushes = [sent for sent in self.shard.sent if isinstance(sent.request, Push)]
        self.shard.sent = [sent for sent in self.shard.sent if sent not in pushes]
        return pushes

    def pull(self, slot: int, version: int) -> None:
        """The slot's pull is under way: answer it, so that the slot computes and pushes."""
        [sent] = [sent for sent in self.shard.sent if isinstance(sent.request, Pull)]
        self.shard.sent.remove(sent)
        assert isinstance(sent.request, Pull)
        assert sent.request.slot == slot
        sent.answer(Pulled(Version(version), sent.request.step, unchanged=False))
        assert self.worker.advance(timeout_s=0)

    def receipt(self, step: int, following: Granted | Ended, renewed: bool = False, version: int = 3) -> Receipt:
        return Receipt(Step(step), Status.ACCEPTED, "", Version(version), 2, (0.5,), following, renewed)


def test_the_slot_with_the_lowest_clock_runs_first_even_if_another_was_granted_before() -> None:
    scripted = Scripted()
    scripted.join()
    first, second = scripted.shard.take(), scripted.shard.take()
    second.answer(Granted(Step(0), 0))
    scripted.worker.advance(timeout_s=0)
    assert scripted.shard.sent == []  # slot 1 waits for its turn
    first.answer(Granted(Step(0), 0))
    scripted.worker.advance(timeout_s=0)
    scripted.pull(slot=0, version=0)
    assert scripted.computed == [(0, 0)]
    push = scripted.shard.take()
    assert isinstance(push.request, Push)
    scripted.pull(slot=1, version=0)  # while the push of slot 0 is under way
    assert scripted.computed == [(0, 0), (0, 1)]
    push.answer(scripted.receipt(0, Granted(Step(1), 1)))
    scripted.worker.advance(timeout_s=0)
    assert scripted.worker.clocks == {0: 1, 1: 0}
    other = scripted.shard.take()
    assert isinstance(other.request, Push)
    scripted.pull(slot=0, version=3)  # its next turn
    assert scripted.computed == [(0, 0), (0, 1), (1, 0)]


def test_one_slot_at_a_time_has_the_replica() -> None:
    scripted = Scripted()
    scripted.join()
    for sent in (scripted.shard.take(), scripted.shard.take()):
        sent.answer(Granted(Step(0), 0))
        scripted.worker.advance(timeout_s=0)
    assert [sent.request.slot for sent in scripted.shard.sent if isinstance(sent.request, Pull)] == [0]
    assert not scripted.worker.advance(timeout_s=0)
    assert len(scripted.shard.sent) == 1


def test_a_finished_iteration_is_observed_and_the_worker_is_done_when_all_slots_have_ended() -> None:
    scripted = Scripted()
    scripted.join()
    first, second = scripted.shard.take(), scripted.shard.take()
    second.answer(Ended())
    scripted.worker.advance(timeout_s=0)
    done_by_half = scripted.worker.done
    assert not done_by_half
    first.answer(Granted(Step(0), 0))
    scripted.worker.advance(timeout_s=0)
    scripted.pull(slot=0, version=1)
    scripted.shard.take().answer(scripted.receipt(0, Ended()))
    assert scripted.worker.advance(timeout_s=0)
    assert scripted.worker.done
    assert not scripted.worker.advance(timeout_s=0)
    (record,) = scripted.records
    assert record == Iteration(
        time_s=0.0,
        worker=7,
        slot=0,
        step=0,
        loss=0.25,
        samples=6,
        status="accepted",
        lag=2,
        version=3,
        lr=(0.5,),
        compute_s=0.0,
        wait_s=0.0,
        bytes=2 * 256,  # the shard's part of the weights, and of the gradient
    )


def test_a_slot_waits_while_the_worker_runs_another_and_a_receipt_that_came_meanwhile_is_no_transfer() -> None:
    scripted = Scripted(Async())
    scripted.grant()
    scripted.now += 1.0  # the first slot's pull is under way
    scripted.compute_s = 4.0
    scripted.pull(slot=0, version=0)
    [push] = scripted.pushes()
    scripted.now += 0.5
    push.answer(scripted.receipt(0, Ended()))
    scripted.pull(slot=1, version=0)  # the replies are taken in turn: this one lies behind the receipt
    scripted.worker.advance(timeout_s=0)
    [push] = scripted.pushes()
    scripted.now += 0.25
    push.answer(scripted.receipt(0, Ended()))
    scripted.worker.advance(timeout_s=0)
    first, second = scripted.records
    assert (first.time_s, first.compute_s, first.wait_s, first.transfer_s) == (5.5, 4.0, 0.0, 1.5)
    assert (second.time_s, second.compute_s, second.wait_s, second.transfer_s) == (9.75, 4.0, 5.0, 0.75)


def test_a_refused_slot_ends_the_worker_with_the_reason() -> None:
    scripted = Scripted()
    scripted.worker.start()
    scripted.shard.take().answer(Refused("incarnation 0 of slot 0 was replaced by incarnation 1"))
    with pytest.raises(LostError, match="slot 0 on worker 7 was refused: incarnation 0 of slot 0 was replaced by"):
        scripted.worker.advance(timeout_s=0)


def test_waiting_ends_with_the_timeout_and_with_a_reply() -> None:
    scripted = Scripted()
    scripted.worker.start()
    assert not scripted.worker.advance(timeout_s=0.001)
    scripted.shard.take().answer(Joined(0))
    assert scripted.worker.advance(timeout_s=60)


# ------------------------------------------------------------------ weights that come with a receipt


def renewals(pushes: list[Sent]) -> list[bool]:
    return [sent.request.renew for sent in pushes if isinstance(sent.request, Push)]


def test_in_rounds_only_the_last_push_of_a_worker_asks_for_weights() -> None:
    scripted = Scripted(Sync(), slots=3)
    scripted.grant()
    for slot in scripted.slots:
        scripted.pull(slot, version=0)
    assert renewals(scripted.pushes()) == [False, False, True]


def test_nobody_computes_while_new_weights_are_on_their_way() -> None:
    scripted = Scripted(Sync(), slots=3)
    scripted.grant()
    for slot in scripted.slots:
        scripted.pull(slot, version=0)
    first, second, renewing = scripted.pushes()
    for sent in (first, second):
        sent.answer(scripted.receipt(0, Granted(Step(1), 1)))
        scripted.worker.advance(timeout_s=0)
        scripted.worker.advance(timeout_s=0)
    assert (scripted.shard.sent, len(scripted.computed)) == ([], 3)  # slots 0 and 1 are ready, and wait
    renewing.answer(scripted.receipt(0, Granted(Step(1), 1), renewed=True), content(scripted))
    while scripted.worker.advance(timeout_s=0):
        pass
    assert scripted.computed[3:] == [(1, 0), (1, 1), (1, 2)]  # without a pull
    assert scripted.model.weight.tolist() == [[2.0, 2.0]]
    pushes = scripted.pushes()
    assert [sent.request.pulled for sent in pushes if isinstance(sent.request, Push)] == [3, 3, 3]
    assert renewals(pushes) == [False, False, True]
    assert scripted.shard.sent == []


def content(scripted: Scripted) -> bytes:
    """Weights of 2 everywhere."""
    return torch.full((layout_of(tensors_of(scripted.model)).pushed_bytes // 4,), 2.0).numpy().tobytes()


def test_a_receipt_of_other_weights_than_those_that_came_is_followed_by_a_pull() -> None:
    scripted = Scripted(Sync(), slots=2)
    scripted.grant()
    for slot in scripted.slots:
        scripted.pull(slot, version=0)
    for sent in scripted.pushes():
        sent.answer(scripted.receipt(0, Granted(Step(1), 1)))  # not renewed: it was a repeat
        scripted.worker.advance(timeout_s=0)
    [sent] = scripted.shard.sent
    assert isinstance(sent.request, Pull)


def test_on_arrival_a_lone_slot_asks_for_weights() -> None:
    scripted = Scripted(Async(), slots=1)
    scripted.grant()
    scripted.pull(slot=0, version=0)
    [push] = scripted.pushes()
    assert renewals([push]) == [True]
    push.answer(scripted.receipt(0, Granted(Step(1), 1), renewed=True), content(scripted))
    scripted.worker.advance(timeout_s=0)
    assert scripted.computed == [(0, 0), (1, 0)]  # without a pull
    assert renewals(scripted.pushes()) == [True]


def test_on_arrival_slots_beside_others_do_not() -> None:
    """The others have use for the time that new weights would take."""
    scripted = Scripted(Async(), slots=2)
    scripted.grant()
    scripted.pull(slot=0, version=0)
    scripted.pull(slot=1, version=0)
    first, second = scripted.pushes()
    assert renewals([first, second]) == [False, False]
    first.answer(scripted.receipt(0, Ended()))
    scripted.worker.advance(timeout_s=0)
    second.answer(scripted.receipt(0, Granted(Step(1), 1)))
    scripted.worker.advance(timeout_s=0)
    scripted.pull(slot=1, version=4)
    assert renewals(scripted.pushes()) == [True]  # alone by now


@pytest.mark.parametrize("mode", [Async(staleness=0), Async(staleness=1)])
@pytest.mark.parametrize("slots", [1, 2])
def test_with_a_bound_on_staleness_nobody_does(mode: Mode, slots: int) -> None:
    scripted = Scripted(mode, slots)
    scripted.grant()
    for slot in scripted.slots:
        scripted.pull(slot, version=0)
    assert renewals(scripted.pushes()) == [False] * slots


def test_with_backups_nobody_does() -> None:
    scripted = Scripted(Sync(backups=1), slots=2)
    scripted.grant()
    for slot in scripted.slots:
        scripted.pull(slot, version=0)
    assert renewals(scripted.pushes()) == [False, False]


def test_a_slot_that_has_its_weights_computes_without_waiting_for_anything() -> None:
    """On this plane every reply is there at once: whoever waits has overlooked a slot that may run."""
    patience_s = 5.0
    parties = Parties(make_job())
    while not parties.workers[0].done:
        began = time.perf_counter()
        parties.workers[0].advance(timeout_s=patience_s)
        assert time.perf_counter() - began < patience_s
    assert len(parties.records) == STEPS * SLOTS


# ------------------------------------------------------------------ gradients that leave early


class Overlapping(Scripted):
    """Computes in two backward passes."""

    def __init__(self, overlap: bool) -> None:
        super().__init__(Sync(), slots=2, overlap=overlap)
        self.begun: list[int] = []

    def compute(self, order: Compute, slot: Slot, before_last: Callable[[], None]) -> Computation:
        self.model(torch.ones(1, 2)).sum().backward()
        self.begun.append(len(self.shard.begun))
        before_last()
        self.model(torch.ones(1, 2)).sum().backward()
        return super().compute(order, slot, before_last)


def test_gradients_leave_from_the_last_backward_pass_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "BUCKET_BYTES", 1)
    scripted = Overlapping(overlap=True)
    scripted.grant()
    for slot in scripted.slots:
        scripted.pull(slot, version=0)
    assert scripted.begun == [0, 1]  # not before it
    assert [upload.push for upload in scripted.shard.begun] == [
        PushId(s, Incarnation(0), Step(0)) for s in scripted.slots
    ]
    assert [upload.ready_spans for upload in scripted.shard.begun] == [[Span(0, 256)], [Span(0, 256)]]
    for sent in scripted.pushes():
        assert torch.frombuffer(bytearray(sent.payload or b""), dtype=torch.float32)[:2].tolist() == [2.0, 2.0]


def test_without_overlap_nothing_leaves_before_the_end() -> None:
    scripted = Overlapping(overlap=False)
    scripted.grant()
    for slot in scripted.slots:
        scripted.pull(slot, version=0)
    assert scripted.shard.begun == []
    assert len(scripted.pushes()) == 2


# ------------------------------------------------------------------ with real shards


def noting(computed: list[tuple[int, int]]) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that notes the (step, slot) that it is computed for, which the random seed tells."""
    where = {draw_seed(SEED, step, slot): (step, slot) for step in range(SLOTS * STEPS) for slot in range(SLOTS)}

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        computed.append(where[torch.initial_seed()])
        return nn.functional.cross_entropy(outputs, targets)

    return loss


@pytest.mark.parametrize("mode", [Sync(), Async(), Async(0), Async(2)])
def test_slots_of_one_worker_take_turns(mode: Mode) -> None:
    computed: list[tuple[int, int]] = []
    parties = Parties(make_job(mode=mode, loss=noting(computed)))
    parties.exhaust(0)
    assert parties.workers[0].done
    assert computed == [(step, slot) for step in range(STEPS) for slot in range(SLOTS)]
    assert [(record.step, record.slot) for record in parties.records] == computed


def test_a_slot_left_out_of_a_step_goes_on_with_the_open_one() -> None:
    computed: list[tuple[int, int]] = []
    parties = Parties(make_job(mode=Sync(backups=1), slots=2, steps=3, loss=noting(computed)))
    parties.exhaust(0)
    assert [(record.step, record.slot) for record in parties.records] == computed == [(0, 0), (1, 0), (2, 0)]
    assert parties.figures().dropped == 3


def test_a_gradient_of_older_weights_is_applied_with_its_lag() -> None:
    rate = 0.1
    job = make_job(
        MLP, Async(), workers=2, slots=2, steps=4, optimizer=resolve_optimizer("sgd", rate, {"foreach": False})
    )
    parties = Parties(job)
    slow = parties.workers[1]
    for _ in range(2):
        slow.advance(timeout_s=0)  # joined, and granted: the pull is answered with version 0
    while parties.figures().version < 3:
        parties.workers[0].advance(timeout_s=0)
    parties.workers[0].advance(timeout_s=0)  # hears of its third receipt
    slow.advance(timeout_s=0)  # computes and pushes
    slow.advance(timeout_s=0)
    late = parties.records[-1]
    assert (late.slot, late.step, late.lag, late.version) == (1, 0, 3, 4)
    assert parties.weights_sha256() == _replayed(parties, rate)


def _replayed(parties: Parties, rate: float) -> str:
    """Every push of slot 0 from the newest weights, then the one of slot 1 from the first."""
    plan = plan_of(parties.job)
    newest, first = first_model(MLP), first_model(MLP)
    for record in parties.records:
        source = newest if record.slot == 0 else first
        source.zero_grad()
        seed_everything(SEED, record.step, record.slot)
        inputs, targets = images()[plan.indices(record.step, record.slot)]
        nn.functional.cross_entropy(source(inputs), targets).backward()
        with torch.no_grad():
            for into, of in zip(newest.parameters(), source.parameters(), strict=True):
                assert of.grad is not None
                into.add_(of.grad, alpha=-rate)
    return sha256(tensors_of(newest))
