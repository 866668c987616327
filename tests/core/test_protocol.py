"""One shard's protocol: what it refuses, what waits, and what each message leads to."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from psgd.core.effects import (
    Answer,
    Applied,
    ApplyGradient,
    ApplyMean,
    DropSnapshots,
    Effect,
    How,
    KeepSnapshot,
    ReachBoundary,
    Stage,
    Tell,
    Ticked,
    key_of,
)
from psgd.core.gate import ClockGate, RoundGate
from psgd.core.ids import LEAD, Boundary, Generation, Incarnation, Shard, Slot, Step, Version
from psgd.core.messages import (
    Advance,
    Announce,
    Ask,
    Commit,
    Confirm,
    Done,
    Ended,
    Figures,
    Granted,
    Held,
    Inspect,
    Join,
    Joined,
    Leave,
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
    Settle,
    SlotRequest,
    Snapshot,
    Status,
)
from psgd.core.modes import Async, Mode, Rules, Sync
from psgd.core.protocol import ShardProtocol
from psgd.core.rounds import RESEND_S
from psgd.errors import InternalError

A, B = Slot(0), Slot(1)
OTHER = Shard(1)
OLD, NEW = Incarnation(0), Incarnation(1)
LR = (0.1,)
BOTH: list[Mode] = [Sync(), Async()]


class Driven:
    """A protocol whose updates are made at once, as every driver has to."""

    def __init__(
        self,
        mode: Mode,
        shard: Shard = LEAD,
        slots: int = 2,
        shards: int = 1,
        steps: int | None = 10,
        every: int | None = None,
    ) -> None:
        self.protocol = ShardProtocol(Rules(mode, slots, shards, steps, every), shard)

    def take(self, event: Request | Ticked, now: float = 0.0) -> list[Effect]:
        """The effects, those of the update included."""
        effects = self.protocol.handle(event, now)
        if any(isinstance(effect, ApplyMean | ApplyGradient) for effect in effects):
            effects = effects + self.protocol.handle(Applied(LR), now)
        return effects

    def replies(self, event: Request) -> list[Reply]:
        """The answers alone."""
        return [effect.reply for effect in self.take(event) if isinstance(effect, Answer)]


def ask(slot: Slot = A, step: int = 0, incarnation: Incarnation = OLD) -> Ask:
    return Ask(slot, incarnation, Step(step))


def pull(slot: Slot = A, step: int = 0, incarnation: Incarnation = OLD, have: int | None = None) -> Pull:
    return Pull(slot, incarnation, Step(step), None if have is None else Version(have))


def push(slot: Slot = A, step: int = 0, incarnation: Incarnation = OLD, finite: bool = True) -> Push:
    return Push(slot, incarnation, Step(step), step, Version(step), finite)


def granted(step: int, tick: int | None = None) -> Granted:
    return Granted(Step(step), step if tick is None else tick)


# ------------------------------------------------------------------ the fence and the ledger


@pytest.mark.parametrize("mode", BOTH, ids=str)
@pytest.mark.parametrize(
    "request_",
    [Join(A, OLD), ask(), pull(), push(), Advance(A, OLD, Step(0)), Leave(A, OLD, 0)],
    ids=lambda request: type(request).__name__,
)
def test_a_replaced_incarnation_is_refused_whatever_it_asks(mode: Mode, request_: SlotRequest) -> None:
    driven = Driven(mode)
    driven.take(Join(A, NEW))
    refused = Refused("incarnation 0 of slot 0 was replaced by incarnation 1")
    assert driven.take(request_) == [Answer(key_of(request_), refused)]


@pytest.mark.parametrize("mode", BOTH, ids=str)
def test_a_slot_that_the_job_does_not_have_is_refused(mode: Mode) -> None:
    assert Driven(mode).replies(push(Slot(2))) == [Refused("slot must be in 0 … 1, got 2")]


def test_an_announced_membership_fences_and_an_older_one_does_not() -> None:
    driven = Driven(Async())
    assert driven.replies(Announce(Generation(2), (NEW, OLD))) == [Done()]
    assert driven.replies(Announce(Generation(1), (OLD, Incarnation(7)))) == [Done()]
    assert isinstance(driven.replies(ask(A))[0], Refused)
    assert driven.replies(ask(B)) == [granted(0)]


def test_a_membership_of_another_size_is_refused() -> None:
    driven = Driven(Async())
    refused = Refused("a membership names one incarnation a slot: 2, got 3")
    assert driven.replies(Announce(Generation(1), (NEW, NEW, NEW))) == [refused]
    assert driven.replies(ask(A)) == [granted(0)]


@pytest.mark.parametrize("mode", BOTH, ids=str)
@pytest.mark.parametrize("incarnation", [OLD, NEW])
def test_a_repeat_gets_the_first_answer_whatever_became_of_the_membership(mode: Mode, incarnation: Incarnation) -> None:
    driven = Driven(mode, slots=1)
    (first,) = driven.replies(push())
    driven.take(Join(A, NEW))
    assert driven.take(push(incarnation=incarnation)) == [Answer(key_of(push()), first)]
    assert driven.protocol.version == 1


def test_a_repeat_of_a_staged_push_waits_for_the_answer_to_the_first() -> None:
    driven = Driven(Sync())
    assert driven.take(push(A)) == [Stage(A, Step(0), ())]
    driven.take(Join(A, NEW))
    assert driven.take(push(A, incarnation=NEW)) == []
    assert [type(reply) for reply in driven.replies(push(B))] == [Receipt, Receipt]
    assert driven.protocol.version == 1


def test_a_push_that_the_slot_has_long_gone_on_from_is_refused() -> None:
    driven = Driven(Async())
    driven.take(push(step=0))
    driven.take(push(step=1))
    assert driven.replies(push(step=0)) == [Refused("slot 0 has long gone on from step 0 to 1")]
    assert driven.protocol.version == 2


# ------------------------------------------------------------------ joining and advancing


@pytest.mark.parametrize(("mode", "finished"), [(Sync(), 0), (Async(), 1)], ids=str)
def test_a_new_incarnation_hears_where_the_shard_stands_with_it(mode: Mode, finished: int) -> None:
    driven = Driven(mode, slots=1)
    driven.take(push())
    assert driven.replies(Join(A, NEW)) == [Joined(finished)]


def test_a_shard_that_missed_an_iteration_lets_it_pass() -> None:
    driven = Driven(Async(), shard=OTHER, shards=2)
    driven.take(Join(A, NEW))
    advance = Advance(A, NEW, Step(0))
    (receipt,) = driven.replies(advance)
    assert isinstance(receipt, Receipt)
    assert (receipt.status, receipt.version) == (Status.ADVANCED, 0)
    assert driven.take(advance) == [Answer(key_of(advance), receipt)]


def test_an_iteration_that_came_in_the_meantime_is_not_advanced_but_answered() -> None:
    driven = Driven(Async(), shard=OTHER, shards=2)
    (receipt,) = driven.replies(push())
    assert driven.replies(Advance(A, NEW, Step(0))) == [receipt]


def test_in_rounds_nobody_advances() -> None:
    assert Driven(Sync()).replies(Advance(A, OLD, Step(0))) == [Refused("in rounds the commit moves every clock")]


# ------------------------------------------------------------------ asking and pulling


@pytest.mark.parametrize("mode", BOTH, ids=str)
def test_only_the_lead_grants(mode: Mode) -> None:
    driven = Driven(mode, shard=OTHER, shards=2)
    assert driven.replies(ask()) == [Refused("shard 1 is not the lead, shard 0 grants")]


def test_in_rounds_the_receipts_bring_the_following_grant_and_a_question_ahead_waits() -> None:
    driven = Driven(Sync())
    assert driven.replies(ask()) == [granted(0)]
    assert driven.replies(ask(step=1)) == []
    driven.take(push(A))
    replies = driven.replies(push(B))
    assert [reply.following for reply in replies if isinstance(reply, Receipt)] == [granted(1), granted(1)]
    assert replies[2:] == [granted(1)]


def test_on_arrival_a_question_beyond_the_bound_waits_for_the_slowest() -> None:
    driven = Driven(Async(staleness=0))
    assert driven.replies(ask(A)) == [granted(0)]
    assert driven.replies(ask(B)) == [granted(0)]
    assert driven.replies(ask(A, step=1)) == []
    answers = driven.take(ask(B, step=1))
    assert answers == [Answer(key_of(ask(slot, 1)), granted(1)) for slot in (A, B)]


def test_on_arrival_the_budget_ends_all_slots() -> None:
    driven = Driven(Async(), steps=1)
    assert [driven.replies(ask(step=step)) for step in range(3)] == [[granted(0)], [granted(1, 0)], [Ended()]]


def test_a_pull_of_a_step_that_is_not_open_here_waits_for_the_commit() -> None:
    driven = Driven(Sync(), shard=OTHER, slots=1, shards=2)
    assert driven.replies(pull()) == [Pulled(Version(0), Step(0), unchanged=False)]
    driven.take(push())
    assert driven.replies(pull(step=1)) == []
    assert driven.replies(Commit(Step(0), (A,), update=True))[1:] == [Pulled(Version(1), Step(1), unchanged=False)]


@pytest.mark.parametrize("mode", BOTH, ids=str)
def test_a_worker_that_has_the_version_gets_no_bytes_unless_it_wants_the_frozen_part(mode: Mode) -> None:
    driven = Driven(mode, slots=1)
    driven.take(push())
    assert driven.replies(pull(step=1, have=0)) == [Pulled(Version(1), Step(1), unchanged=False)]
    assert driven.replies(pull(step=1, have=1)) == [Pulled(Version(1), Step(1), unchanged=True)]
    whole = Pull(A, OLD, Step(1), have=Version(1), whole=True)
    assert driven.replies(whole) == [Pulled(Version(1), Step(1), unchanged=False)]


def test_a_question_that_comes_late_does_not_take_the_place_of_a_newer_one() -> None:
    driven = Driven(Sync())
    late, newer = pull(step=1), pull(step=2)
    refused = Refused("slot 0 has asked for something newer")
    assert driven.take(newer) == []
    assert driven.take(late) == [Answer(key_of(late), refused)]
    for step in range(2):
        driven.take(push(B, step))
        answers = driven.take(push(A, step))
    assert answers[-1] == Answer(key_of(newer), Pulled(Version(2), Step(2), unchanged=False))


def test_a_newer_question_ends_an_older_one() -> None:
    driven = Driven(Sync())
    older, newer = pull(step=1), pull(step=1, incarnation=NEW)
    assert driven.take(older) == []
    assert driven.take(newer) == [Answer(key_of(older), Refused("slot 0 has asked for something newer"))]


def test_what_a_replaced_incarnation_asks_again_does_not_answer_its_successor() -> None:
    driven = Driven(Sync())
    successor, zombie = pull(step=1, incarnation=NEW), pull(step=1, incarnation=OLD)
    assert driven.take(successor) == []
    (answer,) = driven.take(zombie)
    assert isinstance(answer, Answer)
    assert answer.key == key_of(zombie) != key_of(successor)


# ------------------------------------------------------------------ pushing


def test_a_worker_that_dies_between_two_shards_leaves_them_in_the_same_step() -> None:
    lead, other = (Driven(Sync(), shard, slots=1, shards=2) for shard in (LEAD, OTHER))
    assert lead.take(push()) == [Stage(A, Step(0), ())]  # and the worker dies
    for driven in (lead, other):
        assert driven.replies(Join(A, NEW)) == [Joined(0)]
        assert driven.take(push(step=1)) == [
            Answer(key_of(push(step=1)), Refused("incarnation 0 of slot 0 was replaced by incarnation 1"))
        ]
    again = push(incarnation=NEW)
    assert lead.take(again) == []
    held = Tell(LEAD, Held(OTHER, A, Step(0), finite=True))
    assert other.take(again) == [Stage(A, Step(0), ()), held]
    commit = Commit(Step(0), (A,), update=True)
    assert lead.take(held.message)[:2] == [Tell(OTHER, commit), ApplyMean(Step(0), (A,), How(tick=0))]
    assert other.take(commit)[0] == ApplyMean(Step(0), (A,), How(tick=0))
    assert lead.protocol.version == other.protocol.version == 1


def test_on_arrival_a_push_is_applied_with_its_own_tick() -> None:
    driven = Driven(Async())
    assert driven.take(push(B))[:2] == [Stage(B, Step(0), ()), ApplyGradient(B, Step(0), How(tick=0))]
    assert driven.protocol.version == 1


@pytest.mark.parametrize("mode", BOTH, ids=str)
def test_nothing_else_may_happen_in_the_middle_of_an_update(mode: Mode) -> None:
    protocol = ShardProtocol(Rules(mode, slots=1, shards=1, steps=10), LEAD)
    protocol.handle(push(), 0.0)
    with pytest.raises(InternalError, match=r"shard 0 is in the middle of an update: Applied comes before Ticked\(\)"):
        protocol.handle(Ticked(), 0.0)


# ------------------------------------------------------------------ shards among themselves


def test_an_unconfirmed_commit_is_told_again_as_time_passes() -> None:
    driven = Driven(Sync(), slots=1, shards=2)
    driven.take(push(), now=3.0)
    driven.take(Held(OTHER, A, Step(0), finite=True), now=3.0)
    assert driven.take(Ticked(), now=3.0 + RESEND_S) == [Tell(OTHER, Commit(Step(0), (A,), update=True))]
    assert driven.take(Confirm(OTHER, Step(0))) == []
    assert driven.take(Ticked(), now=9.0) == []


def test_a_held_gradient_is_told_again_as_time_passes() -> None:
    driven = Driven(Sync(), shard=OTHER, shards=2)
    driven.take(push(B), now=3.0)
    assert driven.take(Ticked(), now=3.0 + RESEND_S) == [Tell(LEAD, Held(OTHER, B, Step(0), finite=True))]


STRAY: list[PeerMessage] = [
    Held(OTHER, A, Step(0), finite=True),
    Commit(Step(0), (A,), update=True),
    Confirm(OTHER, Step(0)),
]


@pytest.mark.parametrize("message", STRAY, ids=lambda message: type(message).__name__)
def test_on_arrival_shards_have_nothing_to_tell_each_other(message: PeerMessage) -> None:
    driven = Driven(Async())
    assert driven.take(message) == []
    assert driven.take(Ticked()) == []


@pytest.mark.parametrize("message", [STRAY[0], STRAY[2]], ids=lambda message: type(message).__name__)
def test_a_follower_has_no_ear_for_the_leads_messages(message: PeerMessage) -> None:
    assert Driven(Sync(), shard=OTHER, shards=2).take(message) == []


def held(slot: int, shard: int) -> Held:
    return Held(Shard(shard), Slot(slot), Step(0), finite=True)


@pytest.mark.parametrize(
    "messages",
    [[held(2, LEAD), held(2, OTHER), held(3, LEAD), held(3, OTHER)], [held(A, 2), held(B, 2)]],
    ids=["slots", "shards"],
)
def test_slots_and_shards_that_the_job_does_not_have_count_for_nothing_at_the_lead(messages: list[Held]) -> None:
    lead = Driven(Sync(), shards=2)
    for slot in (A, B):
        lead.take(push(slot))
    for message in messages:
        assert lead.take(message) == []
    assert lead.take(Confirm(Shard(2), Step(0))) == []
    assert lead.take(held(A, OTHER)) == []
    assert ApplyMean(Step(0), (A, B), How(tick=0)) in lead.take(held(B, OTHER))


def test_a_commit_with_a_slot_that_the_job_does_not_have_changes_nothing() -> None:
    follower = Driven(Sync(), OTHER, shards=2)
    for slot in (A, B):
        follower.take(push(slot))
    assert follower.take(Commit(Step(0), (A, Slot(2)), update=True)) == []
    assert ApplyMean(Step(0), (A, B), How(tick=0)) in follower.take(Commit(Step(0), (A, B), update=True))


# ------------------------------------------------------------------ evaluations and the end


def finish(driven: Driven, step: int) -> list[Effect]:
    """One slot's whole step, as the lead of one shard sees it."""
    driven.take(ask(step=step))
    return [*driven.take(push(step=step)), *driven.take(ask(step=step + 1))]


@pytest.mark.parametrize("mode", BOTH, ids=str)
def test_the_lead_says_once_that_a_boundary_is_reached(mode: Mode) -> None:
    driven = Driven(mode, slots=1, steps=3, every=2)
    reached = [[e for e in finish(driven, step) if isinstance(e, ReachBoundary)] for step in range(3)]
    assert reached == [[], [ReachBoundary(Boundary(1), Step(2))], [ReachBoundary(Boundary(2), Step(3))]]


def test_a_slot_waits_behind_a_boundary_until_the_evaluation_before_is_settled() -> None:
    driven = Driven(Sync(), slots=1, every=1)
    for step in range(2):
        effects = finish(driven, step)
    assert not any(isinstance(e, Answer) and isinstance(e.reply, Granted | Ended) for e in effects)
    assert driven.replies(Settle(Boundary(1), stop=False)) == [Done(), granted(2)]


def test_a_stop_ends_the_run_at_the_following_boundary() -> None:
    driven = Driven(Sync(), slots=1, every=2)
    for step in range(2):
        finish(driven, step)
    assert driven.replies(Settle(Boundary(1), stop=True)) == [Done()]
    assert Answer(key_of(ask(step=4)), Ended()) in [e for step in (2, 3) for e in finish(driven, step)]


def test_evaluations_are_settled_with_the_lead() -> None:
    driven = Driven(Sync(), shard=OTHER, shards=2)
    refused = Refused("evaluations are settled with shard 0")
    assert driven.replies(Settle(Boundary(1), stop=True)) == [refused]


def test_in_rounds_a_reader_waits_for_the_boundarys_own_version() -> None:
    driven = Driven(Sync(), slots=1, every=2)
    assert driven.replies(Read(Boundary(1))) == []
    finish(driven, 0)
    effects = driven.take(push(step=1))
    kept = effects.index(KeepSnapshot(Boundary(1)))
    read = effects.index(Answer(key_of(Read(Boundary(1))), Snapshot(Boundary(1), Version(2))))
    assert kept < read
    finish(driven, 2)
    assert driven.replies(Read(Boundary(1))) == [Snapshot(Boundary(1), Version(2))]


def test_a_reader_of_a_later_boundary_lets_go_of_older_snapshots() -> None:
    driven = Driven(Sync(), slots=1, every=1)
    for step in range(2):
        finish(driven, step)
    assert driven.take(Read(Boundary(2))) == [
        Answer(key_of(Read(Boundary(2))), Snapshot(Boundary(2), Version(2))),
        DropSnapshots(Boundary(2)),
    ]
    assert driven.replies(Read(Boundary(1))) == [Refused("the snapshot of boundary 1 is gone")]


@pytest.mark.parametrize("mode", BOTH, ids=str)
def test_a_snapshot_that_is_kept_outlives_the_reading_of_the_following_one(mode: Mode) -> None:
    driven = Driven(mode, slots=1, every=1)
    first = (Read(Boundary(1), keep=True), Snapshot(Boundary(1), Version(1)))
    for boundary in (1, 2):
        finish(driven, boundary - 1)
        driven.replies(Read(Boundary(boundary), keep=True))
    assert driven.replies(first[0]) == [first[1]], "as it was measured"
    assert driven.replies(Read(Boundary(2), keep=True)) == [Snapshot(Boundary(2), Version(2))]
    driven.take(Settle(Boundary(1), stop=False))
    finish(driven, 2)
    assert driven.replies(Read(Boundary(3), keep=True)) == [Snapshot(Boundary(3), Version(3))]
    assert driven.replies(first[0]) == [Refused("the snapshot of boundary 1 is gone")]


def test_snapshots_that_nobody_reads_are_dropped_two_boundaries_later() -> None:
    driven = Driven(Sync(), slots=1, every=1)
    dropped = []
    for step in range(4):
        dropped += [(step, e.before) for e in finish(driven, step) if isinstance(e, DropSnapshots)]
        driven.take(Settle(Boundary(step + 1), stop=False))
    assert dropped == [(2, 2), (3, 3)]


@pytest.mark.parametrize(("mode", "boundary"), [(Sync(), 0), (Async(), 0), (Async(), 1)], ids=str)
def test_boundary_zero_and_all_on_arrival_are_read_as_the_weights_are(mode: Mode, boundary: int) -> None:
    driven = Driven(mode, slots=1, every=2)
    finish(driven, 0)
    assert driven.replies(Read(Boundary(boundary))) == [Snapshot(Boundary(boundary), Version(1))]


def test_in_rounds_a_slot_that_leaves_ends_the_run_for_those_who_hold_the_open_step() -> None:
    driven = Driven(Sync(), steps=None)
    driven.take(push(A))
    replies = driven.replies(Leave(B, OLD, finished=0))
    assert replies[0] == Done()
    assert [(r.status, r.following) for r in replies[1:] if isinstance(r, Receipt)] == [(Status.LATE, Ended())]
    assert driven.replies(ask(A, step=1)) == [Ended()]


def test_on_arrival_nobody_waits_for_a_slot_that_has_left() -> None:
    driven = Driven(Async(staleness=0), steps=None)
    driven.take(ask(A))
    assert driven.replies(ask(A, step=1)) == []
    assert driven.replies(Leave(B, OLD, finished=0)) == [Done(), granted(1, tick=0)]


@pytest.mark.parametrize("mode", BOTH, ids=str)
def test_a_follower_takes_note_of_a_leave_and_that_is_all(mode: Mode) -> None:
    driven = Driven(mode, shard=OTHER, shards=2)
    assert driven.replies(Leave(A, OLD, finished=0)) == [Done()]


# ------------------------------------------------------------------ the driver


def test_a_loaded_shard_says_so() -> None:
    assert Driven(Sync()).replies(Load()) == [Loaded()]


def test_the_lead_counts_in_rounds() -> None:
    driven = Driven(Sync(backups=1))
    driven.take(push(A))
    driven.take(push(A, step=1, finite=False))
    assert driven.replies(Inspect()) == [
        Figures(Version(1), steps=2, accepted=1, dropped=3, max_clock_gap=0, clocks=(2, 2), nonfinite=1)
    ]


def test_the_lead_counts_on_arrival() -> None:
    driven = Driven(Async(), slots=2)
    for step in range(3):
        finish(driven, step)
    driven.take(push(B, finite=False))
    assert driven.replies(Inspect()) == [
        Figures(Version(3), steps=2, accepted=3, dropped=1, max_clock_gap=3, clocks=(3, 0), nonfinite=1)
    ]


@pytest.mark.parametrize("mode", BOTH, ids=str)
def test_a_follower_counts_what_it_has_applied(mode: Mode) -> None:
    driven = Driven(mode, shard=OTHER, slots=1, shards=2)
    driven.take(push())
    if isinstance(mode, Sync):
        driven.take(Commit(Step(0), (A,), update=True))
    assert driven.replies(Inspect()) == [
        Figures(Version(1), steps=0, accepted=1, dropped=0, max_clock_gap=0, clocks=())
    ]


# ------------------------------------------------------------------ those who wait


SLOTS = st.sampled_from([A, B, Slot(2)])
ASKS = st.builds(ask, SLOTS, st.integers(0, 4))
LEAVES = st.builds(lambda slot, finished: Leave(slot, OLD, finished), SLOTS, st.integers(0, 4))
SETTLES = st.builds(lambda boundary, stop: Settle(Boundary(boundary), stop), st.integers(1, 3), st.booleans())
PUSHES = st.builds(push, SLOTS, st.integers(0, 3))


@pytest.mark.parametrize("mode", [Sync(), Sync(1), Async(), Async(0), Async(1)], ids=str)
@given(events=st.lists(ASKS | LEAVES | SETTLES | PUSHES, max_size=30), every=st.none() | st.integers(1, 2))
def test_nobody_waits_for_longer_than_if_everybody_were_looked_at_with_every_event(
    mode: Mode, events: list[Request], every: int | None
) -> None:
    driven, looking = (Driven(mode, slots=3, steps=4, every=every) for _ in range(2))
    for event in events:
        looking.protocol._outlook = (object(),)  # something has changed, always
        assert driven.take(event) == looking.take(event)


@pytest.mark.parametrize(("mode", "gate"), [(Sync(), RoundGate), (Async(0), ClockGate)])
def test_those_who_wait_are_left_alone_while_nothing_changes_for_them(
    mode: Mode, gate: type[RoundGate] | type[ClockGate], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[Slot] = []
    decide = gate.decide

    def count(self: Any, slot: Slot, step: Step) -> Granted | Ended | None:
        looked_at.append(slot)
        return decide(self, slot, step)

    monkeypatch.setattr(gate, "decide", count)
    driven = Driven(mode, slots=3)
    for slot in (A, B):
        driven.take(ask(slot))
        assert driven.replies(ask(slot, 1)) == []
    looked_at.clear()
    for event in (pull(), ask(Slot(2)), Inspect()):
        driven.take(event)
    assert looked_at == [Slot(2)]
