import queue
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from psgd.core.ids import Incarnation, Shard, Slot, Step, Version
from psgd.core.layout import Span
from psgd.core.messages import Granted, Join, Joined, Pull, Pulled, Push, Receipt, Status
from psgd.core.slot import Compute, Computed, Finish, Replied
from psgd.runlog import Iteration
from psgd.transport.attachment import attach
from psgd.transport.base import PushId
from psgd.transport.flat import layout_of, pack, tensors_of, view_bytes
from psgd.worker import outgoing
from psgd.worker.record import Chronicle
from psgd.worker.replica import Replica
from psgd.worker.runner import Inbox, SlotRunner, Weights
from tests.jobs import make_job
from tests.worker.scripted import ScriptedConnection

CPU = torch.device("cpu")
SLOT, INCARNATION = Slot(3), Incarnation(1)
LEAD, SECOND = Shard(0), Shard(1)


class Model(nn.Module):
    """Three blocks of 64 that are trained, two that are frozen."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.trained = nn.Parameter(torch.full((192,), value))
        self.fixed = nn.Parameter(torch.full((128,), -value), requires_grad=False)


class Setup:
    """A runner over two scripted shards."""

    def __init__(self, wire: str = "float32", read_in_place: frozenset[Shard] = frozenset()) -> None:
        self.model = Model(0.0)
        self.layout = layout_of(tensors_of(self.model))
        self.job = replace(make_job(slots=6, shards=2), layout=self.layout, wire=wire)
        self.parts = self.job.parts()
        self.shards = [ScriptedConnection(), ScriptedConnection()]
        self.attachment = replace(attach(self.shards, self.job, [SLOT, Slot(5)]), read_in_place=read_in_place)
        self.replica = Replica(tensors_of(self.model), self.layout, CPU, self.attachment.weights)
        self.weights = Weights(self.attachment, self.parts)
        self.inbox: Inbox = queue.SimpleQueue()
        self.now = 0.0
        self.chronicle = Chronicle(0, SLOT, lambda: self.now)
        self.runner = SlotRunner(
            self.job, SLOT, INCARNATION, self.attachment, self.weights, self.inbox, CPU, self.chronicle
        )

    def take(self) -> list[object]:
        slot, event = self.inbox.get_nowait()
        assert slot == SLOT
        return list(self.runner.take(event))

    def content(self, shard: Shard, model: nn.Module) -> tuple[bytes, bytes]:
        """The shard's parts of the model's weights: pushed and frozen."""
        flat, part = view_bytes(pack(tensors_of(model), self.layout)), self.parts[shard]
        return (
            bytes(flat[part.pushed.start : part.pushed.stop]),
            bytes(flat[part.frozen.start : part.frozen.stop]),
        )

    def grant(self) -> None:
        """Through join and ask."""
        self.runner.start()
        for shard in self.shards:
            shard.take().answer(Joined(0))
        self.take()
        self.take()
        self.shards[LEAD].take().answer(Granted(Step(0), 0))
        self.take()

    def pull(self, model: nn.Module) -> list[object]:
        """The first pull, answered with the model's weights."""
        for number, shard in enumerate(self.shards):
            pushed, frozen = self.content(Shard(number), model)
            shard.take().answer(Pulled(Version(4), Step(0), unchanged=False), pushed + frozen)
        return [effect for _ in self.shards for effect in self.take()]


def test_replies_wait_in_the_inbox_for_the_workers_own_thread() -> None:
    setup = Setup()
    setup.runner.start()
    sent = setup.shards[SECOND].take()
    assert sent.request == Join(SLOT, INCARNATION)
    sent.answer(Joined(0))
    assert setup.inbox.get_nowait() == (SLOT, Replied(SECOND, Join(SLOT, INCARNATION), Joined(0)))


def test_the_first_pull_brings_everything_and_the_next_what_is_trained() -> None:
    setup = Setup()
    setup.grant()
    setup.runner.take(setup.runner.choice())
    assert setup.shards[SECOND].sent[0].request == Pull(SLOT, INCARNATION, Step(0), have=None, whole=True)
    assert setup.pull(Model(1.0)) == [Compute(Step(0), 0)]
    assert setup.model.trained.tolist() == [1.0] * 192
    assert setup.model.fixed.tolist() == [-1.0] * 128
    assert setup.weights.versions == [4, 4]
    pull = Pull(SLOT, INCARNATION, Step(1), have=Version(4), whole=False)
    for number in (LEAD, SECOND):
        (into,) = setup.weights.into(number, pull)
        assert into.nbytes == setup.parts[number].pushed.bytes
        into[:] = setup.content(number, Model(2.0))[0]  # lands in the replica's memory without a copy
        setup.weights.landed(number, pull, Pulled(Version(5), Step(1), unchanged=False))
    assert setup.model.trained.tolist() == [2.0] * 192
    assert setup.model.fixed.tolist() == [-1.0] * 128
    assert setup.weights.versions == [5, 5]


def test_weights_of_one_version_are_pulled_once_for_all_slots_of_a_worker() -> None:
    setup = Setup()
    setup.grant()
    setup.runner.take(setup.runner.choice())
    setup.pull(Model(1.0))
    chronicle = Chronicle(0, Slot(5))
    neighbour = SlotRunner(
        setup.job, Slot(5), INCARNATION, setup.attachment, setup.weights, setup.inbox, CPU, chronicle
    )
    neighbour.start()
    for shard in setup.shards:
        shard.take().answer(Joined(0))
    neighbour.take(setup.inbox.get_nowait()[1])
    neighbour.take(setup.inbox.get_nowait()[1])
    setup.shards[LEAD].take().answer(Granted(Step(0), 0))
    neighbour.take(setup.inbox.get_nowait()[1])
    neighbour.take(neighbour.choice())
    for shard in setup.shards:
        sent = shard.take()
        assert sent.request == Pull(Slot(5), INCARNATION, Step(0), have=Version(4), whole=False)
        sent.answer(Pulled(Version(4), Step(0), unchanged=True))
    assert neighbour.take(setup.inbox.get_nowait()[1]) == []
    assert neighbour.take(setup.inbox.get_nowait()[1]) == [Compute(Step(0), 0)]
    assert setup.model.trained.tolist() == [1.0] * 192
    assert setup.weights.versions == [4, 4]


def test_each_shard_gets_its_part_of_the_gradient_and_its_own_version_back() -> None:
    setup = Setup()
    setup.grant()
    setup.runner.take(setup.runner.choice())
    setup.pull(Model(1.0))
    setup.runner.outgoing.gradient.memory.copy_(torch.arange(setup.layout.pushed_bytes) % 251)
    setup.runner.take(Computed(finite=True, absent=()))
    sent = [shard.take() for shard in setup.shards]
    expected = Push(SLOT, INCARNATION, Step(0), 0, Version(4), finite=True)
    assert [each.request for each in sent] == [expected, expected]
    assert b"".join(each.payload or b"" for each in sent) == setup.runner.outgoing.gradient.memory.numpy().tobytes()
    assert [len(each.payload or b"") for each in sent] == [part.pushed.bytes for part in setup.parts]


def test_weights_are_on_their_way_from_a_push_that_asks_for_them_to_its_last_receipt() -> None:
    setup = Setup()
    setup.grant()
    setup.runner.take(setup.runner.choice())
    setup.pull(Model(1.0))
    renewing = [setup.runner.renewing]
    setup.runner.take(Computed(finite=True, absent=(), renew=True))
    for number, shard in enumerate(setup.shards):
        renewing.append(setup.runner.renewing)
        sent = shard.take()
        assert [piece.nbytes for piece in sent.into] == [setup.parts[number].pushed.bytes]
        following = Granted(Step(1), 1) if number == LEAD else None
        receipt = Receipt(Step(0), Status.ACCEPTED, "", Version(5), 0, (0.1,), following, renewed=True)
        sent.answer(receipt, setup.content(Shard(number), Model(2.0))[0])
        setup.take()
    assert [*renewing, setup.runner.renewing] == [False, True, True, False]
    assert setup.weights.versions == [5, 5]
    assert setup.model.trained.tolist() == [2.0] * 192
    assert setup.runner.take(setup.runner.choice()) == [Compute(Step(1), 1)]  # without a pull
    assert all(shard.sent == [] for shard in setup.shards)


def test_a_receipt_without_weights_leaves_the_old_ones() -> None:
    setup = Setup()
    setup.grant()
    setup.runner.take(setup.runner.choice())
    setup.pull(Model(1.0))
    setup.runner.take(Computed(finite=True, absent=()))
    for number, shard in enumerate(setup.shards):
        sent = shard.take()
        assert sent.into == ()
        following = Granted(Step(1), 1) if number == LEAD else None
        sent.answer(Receipt(Step(0), Status.ACCEPTED, "", Version(5), 0, (0.1,), following))
        setup.take()
    assert setup.weights.versions == [4, 4]
    setup.runner.take(setup.runner.choice())
    assert [type(shard.take().request) for shard in setup.shards] == [Pull, Pull]


# ------------------------------------------------------------------ the account


TRAINED, FROZEN = 192 * 4, 128 * 4
"""Bytes of the model."""


def iterate(setup: Setup, renewed: bool) -> Iteration:
    """Compute and push; the receipts bring weights if they are to."""
    setup.runner.take(Computed(finite=True, absent=(), renew=renewed))
    finished = []
    for number, shard in enumerate(setup.shards):
        following = Granted(Step(1), 1) if number == LEAD else None
        receipt = Receipt(Step(0), Status.ACCEPTED, "", Version(5), 0, (0.1,), following, renewed)
        shard.take().answer(receipt, setup.content(Shard(number), Model(2.0))[0] if renewed else b"")
        finished += [effect for effect in setup.take() if isinstance(effect, Finish)]
    [finish] = finished
    return setup.chronicle.iteration(finish, None, 4, compute_s=0.0)


def test_a_record_counts_the_gradient_and_the_weights_that_came() -> None:
    setup = Setup()
    setup.grant()
    setup.runner.take(setup.runner.choice())
    setup.pull(Model(1.0))
    assert iterate(setup, renewed=False).bytes == TRAINED + FROZEN + TRAINED
    setup.runner.take(setup.runner.choice())
    for number, shard in enumerate(setup.shards):
        shard.take().answer(
            Pulled(Version(6), Step(1), unchanged=number == LEAD),
            b"" if number == LEAD else setup.content(SECOND, Model(2.0))[0],
        )
        setup.take()
    second = setup.parts[SECOND].pushed.bytes
    assert iterate(setup, renewed=True).bytes == second + TRAINED + TRAINED


def test_bytes_are_those_of_the_wire() -> None:
    setup = Setup("bfloat16")
    setup.grant()
    setup.runner.take(setup.runner.choice())
    for number, shard in enumerate(setup.shards):
        sent = shard.take()
        pushed, frozen = (piece.nbytes for piece in sent.into)
        assert pushed == setup.parts[number].pushed.bytes // 2
        sent.answer(Pulled(Version(4), Step(0), unchanged=False), bytes(pushed + frozen))
        setup.take()
    assert iterate(setup, renewed=False).bytes == TRAINED // 2 + FROZEN + TRAINED // 2


def test_weights_that_are_read_where_the_shard_has_them_do_not_move() -> None:
    setup = Setup(read_in_place=frozenset({LEAD}))
    setup.grant()
    setup.runner.take(setup.runner.choice())
    setup.pull(Model(1.0))
    second = setup.parts[SECOND].pushed.bytes
    assert iterate(setup, renewed=True).bytes == FROZEN + second + TRAINED + second


# ------------------------------------------------------------------ gradients that leave early


def test_a_push_that_has_begun_says_whose_it_is_and_ends_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "BUCKET_BYTES", 1)
    setup = Setup()
    setup.grant()
    setup.runner.take(setup.runner.choice())
    setup.pull(Model(1.0))
    setup.runner.begin_push()
    setup.runner.outgoing.gradient.keep("trained", torch.arange(192.0))
    setup.runner.outgoing.leave("trained")
    uploads = [shard.begun[0] for shard in setup.shards]
    assert [upload.push for upload in uploads] == [PushId(SLOT, INCARNATION, Step(0))] * 2
    assert [upload.ready_spans for upload in uploads] == [[Span(0, part.pushed.bytes)] for part in setup.parts]
    setup.runner.take(Computed(finite=True, absent=(), renew=True))
    sent = [shard.take() for shard in setup.shards]
    expected = Push(SLOT, INCARNATION, Step(0), 0, Version(4), finite=True, renew=True)
    assert [each.request for each in sent] == [expected, expected]
    assert b"".join(each.payload or b"" for each in sent) == torch.arange(192.0).numpy().tobytes()
    assert [sum(piece.nbytes for piece in each.into) for each in sent] == [part.pushed.bytes for part in setup.parts]


def pushing(wire: str) -> Setup:
    """A slot whose push is under way."""
    setup = Setup(wire)
    setup.grant()
    setup.runner.take(setup.runner.choice())
    setup.pull(Model(1.0))
    setup.runner.outgoing.gradient.keep("trained", torch.linspace(-1, 2, 192))
    setup.runner.take(Computed(finite=True, absent=()))
    return setup


def residuals(setup: Setup) -> list[Tensor]:
    """By shard, what has not been sent yet."""
    assert setup.runner.outgoing.residual is not None
    values = setup.runner.outgoing.residual.values
    return [values[part.pushed.start // 4 : part.pushed.stop // 4] for part in setup.parts]


@pytest.mark.parametrize("wire", ["topk:0.1", "onebit"])
def test_what_was_not_sent_is_carried_where_a_receipt_says_that_the_push_was_accepted(wire: str) -> None:
    setup = pushing(wire)
    carried = [[bool(part.any()) for part in residuals(setup)]]
    for number in (SECOND, LEAD):
        following = Granted(Step(1), 1) if number == LEAD else None
        receipt = Receipt(Step(0), Status.ACCEPTED, "", Version(5), 0, (0.1,), following)
        setup.shards[number].take().answer(receipt)
        setup.take()
        carried.append([bool(part.any()) for part in residuals(setup)])
    assert carried == [[False, False], [False, True], [True, True]]


@pytest.mark.parametrize("wire", ["topk:0.1", "onebit"])
@pytest.mark.parametrize("status", [status for status in Status if status is not Status.ACCEPTED])
def test_what_was_not_sent_waits_if_the_push_was_not_accepted(wire: str, status: Status) -> None:
    setup = pushing(wire)
    for number, shard in enumerate(setup.shards):
        following = Granted(Step(1), 1) if number == LEAD else None
        shard.take().answer(Receipt(Step(0), status, "", Version(4), 0, (), following))
        setup.take()
    assert not any(part.any() for part in residuals(setup))
