import random
import weakref
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from psgd.core.ids import LEAD, Boundary, Generation, Incarnation, Shard, Slot, Step, Version
from psgd.core.layout import Layout, Role, Span, TensorSpec, partition
from psgd.core.messages import (
    Announce,
    Ask,
    Commit,
    Confirm,
    Done,
    Figures,
    Granted,
    Held,
    Inspect,
    Join,
    Joined,
    Load,
    Loaded,
    PeerMessage,
    Pull,
    Pulled,
    Push,
    Read,
    Receipt,
    Refused,
    Reply,
    Request,
    Snapshot,
    Status,
)
from psgd.core.modes import Async, Mode, Rules, Sync
from psgd.shard.shard import ParameterShard
from psgd.shard.state import ShardState
from psgd.transport.base import PushId
from psgd.transport.flat import allocate
from psgd.transport.wire_format import WireFormat
from tests.jobs import CNN, make_job

LAYOUT = Layout(
    [TensorSpec("weight", (64,), "float32", Role.PARAMETER), TensorSpec("fixed", (64,), "float32", Role.FROZEN)]
)
ONE, TWO = Incarnation(1), Incarnation(2)
SLOT, OTHER = Slot(0), Slot(1)


class Peers:
    """Notes what is told to whom."""

    def __init__(self) -> None:
        self.told: list[tuple[int, PeerMessage]] = []

    def tell(self, shard: int, message: PeerMessage) -> None:
        self.told.append((shard, message))

    def close(self) -> None:
        """Nothing to close."""


class Party:
    """A shard, and everybody who asks it something."""

    def __init__(
        self,
        mode: Mode,
        *,
        slots: int = 1,
        shards: int = 1,
        shard: Shard = LEAD,
        steps: int | None = 10,
        evaluate_every: int | None = None,
        loaded: bool = True,
        wire: str = "float32",
    ) -> None:
        self.peers = Peers()
        self.boundaries: list[tuple[int, int]] = []
        self.now = 0.0
        part = partition(LAYOUT, 1)[0]  # all of it, so that payloads look alike whichever shard it is
        state = ShardState(
            LAYOUT, [part], partial(torch.optim.SGD, lr=1.0), None, whole=False, memory=allocate(part.bytes)
        )
        self.shard = ParameterShard(
            Rules(mode, slots, shards, steps, evaluate_every),
            shard,
            state,
            WireFormat(LAYOUT, part, wire),
            self.peers,
            lambda boundary, step: self.boundaries.append((boundary, step)),
            lambda: self.now,
        )
        if loaded:
            assert self.ask(Load(), full(0.0, 128)) == (Loaded(), None)

    def send(self, request: Request, payload: Tensor | None = None) -> list[tuple[Reply, Tensor | None]]:
        """Replies to the request, as they come, each with a copy of its floats."""
        replies: list[tuple[Reply, Tensor | None]] = []

        def deliver(reply: Reply, content: memoryview | None) -> None:
            floats = None if content is None else torch.frombuffer(bytearray(content), dtype=torch.float32)
            replies.append((reply, floats))

        sent = None if payload is None else memoryview(bytearray(payload.numpy().tobytes()))
        self.shard.submit(request, deliver, sent)
        return replies

    def ask(self, request: Request, payload: Tensor | None = None) -> tuple[Reply, Tensor | None]:
        """The reply to a request that is answered at once."""
        (reply,) = self.send(request, payload)
        return reply

    def push(self, step: int, value: float, slot: Slot = SLOT, finite: bool = True) -> Sequence[tuple[Reply, object]]:
        push = Push(slot, ONE, Step(step), step, Version(0), finite)
        return self.send(push, full(value, 64))

    def pull(self, step: int, have: int | None = None, whole: bool = False) -> tuple[Reply, Tensor | None]:
        return self.ask(Pull(SLOT, ONE, Step(step), None if have is None else Version(have), whole))


def full(value: float, elements: int) -> Tensor:
    return torch.full((elements,), value)


@pytest.mark.parametrize("mode", [Sync(), Async()])
@pytest.mark.parametrize("elements", [0, 63, 65, 128])
def test_a_push_of_another_size_is_refused_and_changes_nothing(mode: Mode, elements: int) -> None:
    party = Party(mode)
    push = Push(SLOT, ONE, Step(0), 0, Version(0), finite=True)
    reply, _ = party.ask(push, full(1.0, elements))
    assert reply == Refused(f"the payload of Push has {4 * elements} bytes, expected 256")
    assert isinstance(party.push(0, 1.0)[0][0], Receipt)  # neither fenced nor taken for a repeat
    weights = party.pull(1)[1]
    assert weights is not None
    assert weights.tolist() == [-1.0] * 64


def test_a_push_without_payload_is_refused() -> None:
    push = Push(SLOT, ONE, Step(0), 0, Version(0), finite=True)
    assert Party(Sync()).ask(push)[0] == Refused("the payload of Push has 0 bytes, expected 256")


@pytest.mark.parametrize("request_", [Join(SLOT, ONE), Pull(SLOT, ONE, Step(0)), Inspect(), Read(Boundary(0))])
def test_bytes_that_belong_to_nothing_are_refused(request_: Request) -> None:
    reply, _ = Party(Sync()).ask(request_, full(1.0, 1))
    assert reply == Refused(f"the payload of {type(request_).__name__} has 4 bytes, expected 0")


def test_a_load_of_another_size_is_refused() -> None:
    party = Party(Sync(), loaded=False)
    assert party.ask(Load(), full(0.0, 64))[0] == Refused("the payload of Load has 256 bytes, expected 512")
    assert party.ask(Load(), full(0.0, 128))[0] == Loaded()


def test_first_weights_are_taken_once_and_a_repeat_hears_the_same() -> None:
    party = Party(Sync())
    assert party.ask(Load(), full(0.0, 128))[0] == Loaded()
    assert party.ask(Load(), full(1.0, 128))[0] == Refused("the shard has its first weights already")
    party.push(0, 1.0)
    assert party.ask(Load(), full(0.0, 128))[0] == Refused("the shard has its first weights already")


@pytest.mark.parametrize(
    "request_",
    [
        Join(SLOT, ONE),
        Ask(SLOT, ONE, Step(0)),
        Pull(SLOT, ONE, Step(0)),
        Read(Boundary(0)),
    ],
)
def test_nothing_is_served_before_the_first_weights(request_: Request) -> None:
    party = Party(Sync(), loaded=False)
    assert party.ask(request_)[0] == Refused("the shard has no weights yet: the driver loads them first")
    assert party.push(0, 1.0)[0][0] == Refused("the shard has no weights yet: the driver loads them first")


def test_membership_and_figures_are_served_before_the_first_weights() -> None:
    party = Party(Sync(), loaded=False)
    assert party.ask(Announce(Generation(1), (TWO,)))[0] == Done()
    assert party.ask(Inspect())[0] == Figures(Version(0), 0, 0, 0, 0, (0,))
    party.ask(Load(), full(0.0, 128))
    refused, _ = party.ask(Join(SLOT, ONE))
    assert refused == Refused("incarnation 1 of slot 0 was replaced by incarnation 2")


def test_a_slot_goes_through_join_ask_pull_push_on_arrival() -> None:
    party = Party(Async())
    assert party.ask(Join(SLOT, ONE))[0] == Joined(0)
    assert party.ask(Ask(SLOT, ONE, Step(0)))[0] == Granted(Step(0), 0)
    reply, weights = party.pull(0)
    assert reply == Pulled(Version(0), Step(0), unchanged=False)
    assert weights is not None
    assert weights.tolist() == [0.0] * 64
    ((receipt, _),) = party.push(0, 0.5)
    assert receipt == Receipt(Step(0), Status.ACCEPTED, "iteration 0 applied on arrival", Version(1), 0, (1.0,), None)
    reply, weights = party.pull(1, have=0)
    assert reply == Pulled(Version(1), Step(1), unchanged=False)
    assert weights is not None
    assert weights.tolist() == [-0.5] * 64


def test_a_pull_of_the_version_that_is_there_moves_no_bytes() -> None:
    party = Party(Async())
    party.push(0, 0.5)
    assert party.pull(1, have=1) == (Pulled(Version(1), Step(1), unchanged=True), None)


def test_a_whole_pull_brings_the_frozen_part() -> None:
    party = Party(Async(), loaded=False)
    party.ask(Load(), torch.cat([full(1.0, 64), full(2.0, 64)]))
    _, weights = party.pull(0, whole=True)
    assert weights is not None
    assert weights.tolist() == [1.0] * 64 + [2.0] * 64


def test_a_pull_waits_for_its_step_and_is_answered_with_the_weights_behind_it() -> None:
    party = Party(Sync(), slots=2)
    waiting = party.send(Pull(SLOT, ONE, Step(1)))
    assert waiting == []
    party.push(0, 1.0)
    party.push(0, 3.0, slot=OTHER)
    ((reply, weights),) = waiting
    assert reply == Pulled(Version(1), Step(1), unchanged=False)
    assert weights is not None
    assert weights.tolist() == [-2.0] * 64


def test_a_repeated_push_is_applied_once_and_both_hear_the_same() -> None:
    party = Party(Sync(), slots=2)
    first, repeat = party.push(0, 1.0), party.push(0, 1.0)
    assert (first, repeat) == ([], [])
    party.push(0, 3.0, slot=OTHER)
    again = party.push(0, 1.0)
    assert first == repeat == again
    assert party.ask(Inspect())[0] == Figures(Version(1), 1, 2, 0, 0, (1, 1))


def test_a_late_gradient_is_dropped() -> None:
    party = Party(Sync(backups=1), slots=2)
    party.push(0, 1.0)
    ((receipt, _),) = party.push(0, 100.0, slot=OTHER)
    assert isinstance(receipt, Receipt)
    assert receipt.status is Status.LATE
    weights = party.pull(1)[1]
    assert weights is not None
    assert weights.tolist() == [-1.0] * 64


@pytest.mark.parametrize("slot", [SLOT, OTHER])
def test_the_memory_of_a_gradient_is_let_go_whether_it_was_taken_or_late(slot: Slot) -> None:
    party = Party(Sync(backups=1), slots=2, shards=2, shard=Shard(1))
    content = np.zeros(64, np.float32)
    kept = weakref.ref(content)
    push = Push(slot, ONE, Step(0), 0, Version(0), finite=True)
    party.shard.submit(push, lambda reply, payload: None, content.view(np.uint8).data)
    del content
    party.push(0, 1.0, slot=OTHER if slot == SLOT else SLOT)
    assert kept() is not None
    party.ask(Commit(Step(0), (SLOT,), update=True))
    assert kept() is None


def test_a_shard_that_is_not_the_lead_applies_on_the_commit_only() -> None:
    party = Party(Sync(backups=1), slots=2, shards=2, shard=Shard(1))
    accepted, late = party.push(0, 1.0), party.push(0, 5.0, slot=OTHER)
    assert (accepted, late) == ([], [])
    assert party.peers.told == [
        (LEAD, Held(Shard(1), SLOT, Step(0), finite=True)),
        (LEAD, Held(Shard(1), OTHER, Step(0), finite=True)),
    ]
    assert party.ask(Commit(Step(0), (SLOT,), update=True)) == (Done(), None)
    assert party.peers.told[2:] == [(LEAD, Confirm(Shard(1), Step(0)))]
    assert [reply.status for reply, _ in [*accepted, *late] if isinstance(reply, Receipt)] == [
        Status.ACCEPTED,
        Status.LATE,
    ]
    weights = party.pull(1)[1]
    assert weights is not None
    assert weights.tolist() == [-1.0] * 64
    party.push(1, 1.0, slot=OTHER)  # what was late is not in the way of the next one
    party.ask(Commit(Step(1), (OTHER,), update=True))
    weights = party.pull(2)[1]
    assert weights is not None
    assert weights.tolist() == [-2.0] * 64


def test_what_was_not_confirmed_is_told_again_when_time_has_passed() -> None:
    party = Party(Sync(), slots=2, shards=2, shard=Shard(1))
    party.push(0, 1.0)
    party.shard.tick()
    assert len(party.peers.told) == 1
    party.now = 1.0
    party.shard.tick()
    assert party.peers.told == [(LEAD, Held(Shard(1), SLOT, Step(0), finite=True))] * 2


def test_a_snapshot_stays_as_it_was_while_training_goes_on() -> None:
    party = Party(Sync(), evaluate_every=2)
    for step in range(3):
        party.push(step, 1.0)
    reply, weights = party.ask(Read(Boundary(1)))
    assert reply == Snapshot(Boundary(1), Version(2))
    assert weights is not None
    assert weights.tolist() == [-2.0] * 64 + [0.0] * 64
    reply, weights = party.ask(Read(Boundary(0)))
    assert reply == Snapshot(Boundary(0), Version(3))  # the state as it is
    assert weights is not None
    assert weights.tolist() == [-3.0] * 64 + [0.0] * 64
    assert party.boundaries == [(1, 2)]


def test_a_snapshot_is_waited_for_and_an_old_one_is_gone() -> None:
    party = Party(Sync(), evaluate_every=1)
    waiting = party.send(Read(Boundary(2)))
    party.push(0, 1.0)
    assert waiting == []
    party.push(1, 1.0)
    ((reply, weights),) = waiting
    assert reply == Snapshot(Boundary(2), Version(2))
    assert weights is not None
    assert weights[:64].tolist() == [-2.0] * 64
    assert party.ask(Read(Boundary(1)))[0] == Refused("the snapshot of boundary 1 is gone")


def test_on_arrival_a_snapshot_is_the_state_as_it_is() -> None:
    party = Party(Async(), evaluate_every=1)
    party.push(0, 1.0)
    party.push(1, 1.0)
    reply, weights = party.ask(Read(Boundary(1)))
    assert reply == Snapshot(Boundary(1), Version(2))
    assert weights is not None
    assert weights[:64].tolist() == [-2.0] * 64


@pytest.mark.parametrize("mode", [Sync(), Async()])
def test_a_gradient_that_is_not_finite_updates_nothing(mode: Mode) -> None:
    party = Party(mode)
    ((receipt, _),) = party.push(0, float("nan"), finite=False)
    assert isinstance(receipt, Receipt)
    assert (receipt.status, receipt.version, receipt.lr) == (Status.NONFINITE, 0, ())
    assert party.pull(1, have=0) == (Pulled(Version(0), Step(1), unchanged=True), None)


# ------------------------------------------------------------------ bytes that are final before the push


class Early:
    """Two slots whose gradients lie in memory that a test may change after a shard has averaged some of it.

    A shard that has done so does not look again: so what it used is seen.
    """

    def __init__(self, mode: Mode | None = None, wire: str = "float32") -> None:
        self.party = Party(Sync() if mode is None else mode, slots=2, wire=wire)
        size = self.party.shard.sizes.push
        self.memory = [torch.zeros(size, dtype=torch.uint8) for _ in range(2)]
        self.fill(1.0)

    def fill(self, value: float) -> None:
        for memory in self.memory:
            memory.view(torch.float32).fill_(value)

    def prepare(
        self, slot: int, start: int = 0, stop: int = 256, step: int = 0, incarnation: Incarnation = ONE
    ) -> None:
        push = PushId(Slot(slot), incarnation, Step(step))
        self.party.shard.prepare(push, self.memory[slot].numpy().data, Span(start, stop))

    def withdraw(self, slot: int, step: int = 0) -> None:
        self.party.shard.prepare(PushId(Slot(slot), ONE, Step(step)), self.memory[slot].numpy().data, None)

    def push(self, slot: int, step: int = 0, incarnation: Incarnation = ONE, finite: bool = True) -> list[Reply]:
        replies: list[Reply] = []
        push = Push(Slot(slot), incarnation, Step(step), step, Version(0), finite)
        self.party.shard.submit(push, lambda reply, _: replies.append(reply), self.memory[slot].numpy().data)
        return replies

    def weights(self, version: int = 1) -> list[float]:
        reply, weights = self.party.ask(Read(Boundary(0)))
        assert reply == Snapshot(Boundary(0), Version(version))
        assert weights is not None
        return list(weights[:64].tolist())


def test_what_all_slots_have_is_averaged_before_their_pushes_come() -> None:
    early = Early()
    early.prepare(0)
    early.prepare(1, 0, 128)
    early.fill(3.0)  # so one sees what was averaged when
    early.push(1)
    early.push(0)
    assert early.weights() == [-1.0] * 32 + [-3.0] * 32


def test_an_element_counts_once_all_its_bytes_are_there() -> None:
    early = Early()
    for slot in range(2):
        early.prepare(slot, 3, 13)  # of elements 0 and 3 some bytes
    early.fill(3.0)
    early.push(0)
    early.push(1)
    assert early.weights() == [-3.0] + [-1.0] * 2 + [-3.0] * 61


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_pieces_of_any_size_in_any_order_change_no_bit(lanes: int, seed: int) -> None:
    draw, weights = random.Random(seed), []
    job = make_job(CNN, slots=3)
    (part,) = job.parts()
    size = part.pushed.bytes
    memory = torch.randn(3, size // 4, generator=torch.Generator().manual_seed(seed)).view(torch.uint8)
    arriving = [
        (slot, Span(*pair))
        for slot in range(3)
        for pair in pairwise([0, *sorted(draw.sample(range(size), 4 * seed + 1)), size])
    ]
    draw.shuffle(arriving)
    for pieces in (arriving, []):
        state = ShardState(job.layout, job.lanes(LEAD, lanes), job.optimizer, None, False, allocate(part.bytes))
        wire = WireFormat(job.layout, part, "float32")
        shard = ParameterShard(job.rules, LEAD, state, wire, Peers(), lambda boundary, step: None, lambda: 0.0)
        shard.submit(Load(), lambda reply, payload: None, allocate(part.bytes).numpy().data)
        for slot, piece in pieces:
            shard.prepare(PushId(Slot(slot), ONE, Step(0)), memory[slot].numpy().data, piece)
        for slot in (2, 0, 1):
            push = Push(Slot(slot), ONE, Step(0), 0, Version(0), finite=True)
            shard.submit(push, lambda reply, payload: None, memory[slot].numpy().data)
        weights.append(state.memory.clone())
    assert torch.equal(*weights)
    assert weights[0].any()


def test_in_the_next_step_it_begins_anew() -> None:
    early = Early()
    for step in range(2):
        early.fill(1.0 + step)
        early.prepare(1, 128, 256, step)
        early.prepare(0, 0, 256, step)
        early.fill(5.0 + step)
        for slot in range(2):
            early.push(slot, step)
    assert early.weights(2) == [-5.0 - 6.0] * 32 + [-1.0 - 2.0] * 32


def test_bytes_that_one_slot_alone_has_are_not() -> None:
    early = Early()
    early.prepare(0)
    early.fill(3.0)
    early.push(0)
    early.push(1)
    assert early.weights() == [-3.0] * 64


@pytest.mark.parametrize("slot", [0, 1])
def test_what_was_withdrawn_does_not_count(slot: int) -> None:
    early = Early()
    early.prepare(0)
    early.prepare(1)
    early.withdraw(slot)
    early.fill(3.0)
    early.push(0)
    early.push(1)
    assert early.weights() == [-3.0] * 64


def test_after_a_withdrawal_all_slots_may_begin_again() -> None:
    early = Early()
    early.prepare(0)
    early.prepare(1)
    early.withdraw(0)
    early.fill(3.0)
    early.prepare(0, 0, 128)
    early.prepare(1, 0, 128)
    early.fill(4.0)
    early.push(0)
    early.push(1)
    assert early.weights() == [-3.0] * 32 + [-4.0] * 32


@pytest.mark.parametrize("announced", [False, True])
def test_what_was_prepared_of_memory_does_not_count_for_other_memory(announced: bool) -> None:
    """Such as a push whose stream broke off, and that was sent again."""
    early = Early()
    early.prepare(0)
    early.prepare(1)
    early.memory[0] = early.memory[0].clone()
    early.fill(3.0)
    if announced:
        early.prepare(0, 0, 128)
    early.push(0)
    early.push(1)
    assert early.weights() == [-3.0] * 64


@pytest.mark.parametrize("announced", [False, True])
def test_what_was_prepared_for_another_step_does_not_count(announced: bool) -> None:
    early = Early()
    early.prepare(0, step=1)
    early.prepare(1, step=1)
    early.fill(3.0)
    if announced:
        early.prepare(0, 0, 128)
    early.push(0)
    early.push(1)
    assert early.weights() == [-3.0] * 64


@pytest.mark.parametrize("announced", [False, True])
def test_what_an_incarnation_prepared_does_not_count_for_the_next_one(announced: bool) -> None:
    early = Early()
    early.prepare(0)
    early.prepare(1)
    early.party.ask(Announce(Generation(1), (TWO, ONE)))
    early.fill(3.0)  # the same memory, as it may come to lie where the other's was
    if announced:
        early.prepare(0, 0, 128, incarnation=TWO)
    early.push(0, incarnation=TWO)
    early.push(1)
    assert early.weights() == [-3.0] * 64


def test_a_step_that_closes_without_update_drops_what_was_prepared() -> None:
    early = Early()
    early.prepare(0)
    early.prepare(1)
    early.push(0, finite=False)
    (receipt,) = early.push(1)
    assert isinstance(receipt, Receipt)
    assert receipt.status is Status.NONFINITE
    early.fill(3.0)
    early.push(0, step=1)
    early.push(1, step=1)
    assert early.weights() == [-3.0] * 64


@pytest.mark.parametrize("finite", [False, True])
def test_memory_that_was_prepared_is_let_go_when_the_step_closes(finite: bool) -> None:
    early = Early()
    kept = []
    for slot in range(2):
        content = np.zeros(64, np.float32)
        kept.append(weakref.ref(content))
        early.party.shard.prepare(PushId(Slot(slot), ONE, Step(0)), content.view(np.uint8).data, Span(0, 256))
        push = Push(Slot(slot), ONE, Step(0), 0, Version(0), finite)
        assert kept[-1]() is not None
        early.party.shard.submit(push, lambda reply, payload: None, content.view(np.uint8).data)
        del content
    assert [reference() for reference in kept] == [None, None]


@pytest.fixture
def averaged(monkeypatch: pytest.MonkeyPatch) -> list[Span]:
    """What is averaged before a step closes."""
    spans: list[Span] = []
    monkeypatch.setattr(ShardState, "prepare", lambda state, gradients, ready: spans.append(ready))
    return spans


@pytest.mark.parametrize("mode", [Sync(backups=1), Async(), Async(staleness=1)])
def test_where_a_step_may_close_without_a_slot_nothing_is_averaged_early(mode: Mode, averaged: list[Span]) -> None:
    early = Early(mode)
    for slot in range(2):
        early.prepare(slot)
    assert averaged == []


@pytest.mark.parametrize("wire", ["bfloat16", "float16", "int8", "topk:0.1", "onebit"])
def test_nor_is_it_with_a_lossy_wire(wire: str, averaged: list[Span]) -> None:
    early = Early(wire=wire)
    for slot in range(2):
        early.prepare(slot, 0, early.memory[slot].numel())
    assert averaged == []


def test_in_rounds_of_all_slots_it_is(averaged: list[Span]) -> None:
    early = Early()
    for slot in range(2):
        early.prepare(slot, 64, 192)
    assert averaged == [Span(64, 192)]


# ------------------------------------------------------------------ what the wire leaves out


def encoded(value: float, wire: str) -> Tensor:
    format_ = WireFormat(LAYOUT, partition(LAYOUT, 1)[0], wire)
    out = torch.zeros(format_.sizes.push, dtype=torch.uint8)
    format_.push.encode(torch.full((64,), value).view(torch.uint8), out)
    return out


def test_a_push_that_its_codec_does_not_write_is_refused_and_changes_nothing() -> None:
    party = Party(Sync(), wire="topk:0.1")
    push = Push(SLOT, ONE, Step(0), 0, Version(0), finite=True)
    spoilt = encoded(1.0, "topk:0.1")
    spoilt[:4].view(torch.int32).fill_(64)  # one beyond the slice
    reply, _ = party.ask(push, spoilt)
    assert isinstance(reply, Refused)
    assert "must ascend from 0 to below 64" in reply.reason
    assert party.ask(Inspect())[0] == Figures(Version(0), 0, 0, 0, 0, (0,))
    reply, _ = party.ask(push, encoded(1.0, "topk:0.1"))  # neither fenced nor taken for a repeat
    assert isinstance(reply, Receipt)
    weights = party.pull(1)[1]
    assert weights is not None
    assert sorted(weights.tolist()) == [-1.0] * 7 + [0.0] * 57


@pytest.mark.parametrize("wire", ["bfloat16", "float16", "int8", "topk:0.1", "onebit"])
@pytest.mark.parametrize("mode", [Sync(), Async()])
def test_whatever_the_wire_a_gradient_that_is_not_finite_updates_nothing(mode: Mode, wire: str) -> None:
    party = Party(mode, wire=wire)
    push = Push(SLOT, ONE, Step(0), 0, Version(0), finite=False)
    reply, _ = party.ask(push, encoded(float("nan"), wire))
    assert isinstance(reply, Receipt)
    assert (reply.status, reply.version) == (Status.NONFINITE, 0)
    reply, weights = party.ask(Read(Boundary(0)))
    assert weights is not None
    assert weights.tolist() == [0.0] * 128
