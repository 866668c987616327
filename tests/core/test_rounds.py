"""Shards stage gradients, the lead commits a step, and only the commit lets a shard apply."""

import pytest

from psgd.core.effects import Answer, ApplyMean, Discard, Effect, How, KeepSnapshot, MeasureMean, Stage, Tell, push_key
from psgd.core.gate import RoundGate
from psgd.core.ids import LEAD, Boundary, Incarnation, Shard, Slot, Step, Version
from psgd.core.ledger import Ledger
from psgd.core.local_steps import LocalSteps
from psgd.core.messages import (
    Commit,
    Confirm,
    Ended,
    Granted,
    Held,
    Measure,
    Measured,
    Pull,
    Push,
    Receipt,
    Refused,
    Settle,
    Status,
)
from psgd.core.modes import Rules, Sync
from psgd.core.rounds import RESEND_S, RoundLead, Rounds
from psgd.errors import InternalError

A, B, C = Slot(0), Slot(1), Slot(2)
OTHER = Shard(1)
LR = (0.1,)


def lead_of(
    slots: int = 2,
    shards: int = 2,
    backups: int = 0,
    every: int | None = None,
    clip_norm: float | None = None,
    local_steps: LocalSteps | None = None,
) -> tuple[Rounds, RoundLead]:
    mode = Sync(backups)
    rules = Rules(mode, slots, shards, 10, every, clip_norm, local_steps)
    lead = RoundLead(rules, mode, RoundGate(rules))
    return Rounds(rules, LEAD, Ledger(), lead), lead


def follower(slots: int = 2, backups: int = 0) -> Rounds:
    return Rounds(Rules(Sync(backups), slots, shards=2, steps=10), OTHER, Ledger(), lead=None)


def push(slot: Slot, step: int = 0, finite: bool = True, pulled: int = 0) -> Push:
    return Push(slot, Incarnation(0), Step(step), step, Version(pulled), finite, absent=(7,))


def held(slot: Slot, shard: Shard = OTHER, step: int = 0, finite: bool = True) -> Held:
    return Held(shard, slot, Step(step), finite)


def commit(*slots: Slot, step: int = 0, update: bool = True) -> Commit:
    return Commit(Step(step), slots, update)


def answer(
    slot: Slot,
    status: Status,
    reason: str,
    *,
    step: int = 0,
    version: int = 1,
    following: Granted | Ended | None = None,
) -> Answer:
    lr = LR if status is Status.ACCEPTED else ()
    receipt = Receipt(Step(step), status, reason, Version(version), 0, lr, following)
    return Answer(push_key(slot, Step(step)), receipt)


# ------------------------------------------------------------------ a follower


def test_a_follower_stages_a_push_and_tells_the_lead() -> None:
    effects = follower().push(push(A), now=0.0)
    assert effects == [Stage(A, Step(0), (7,)), Tell(LEAD, held(A))]


def test_the_commit_lets_a_follower_apply_and_the_update_answers_everybody() -> None:
    rounds = follower()
    rounds.push(push(B), now=0.0)
    rounds.push(push(A), now=0.0)
    assert rounds.close(commit(A, B), now=0.0) == [ApplyMean(Step(0), (A, B), How(tick=0))]
    assert rounds.applied(LR) == [
        answer(A, Status.ACCEPTED, "one of 2 in step 0"),
        answer(B, Status.ACCEPTED, "one of 2 in step 0"),
        Tell(LEAD, Confirm(OTHER, Step(0))),
    ]
    assert (rounds.version, rounds.accepted, rounds.dropped) == (1, 2, 0)


def test_a_repeated_commit_is_confirmed_again_and_not_applied() -> None:
    rounds = follower(slots=1)
    rounds.push(push(A), now=0.0)
    rounds.close(commit(A), now=0.0)
    rounds.applied(LR)
    assert rounds.close(commit(A), now=0.0) == [Tell(LEAD, Confirm(OTHER, Step(0)))]
    assert rounds.version == 1


def test_a_commit_of_a_later_step_waits_until_it_is_sent_again() -> None:
    assert follower().close(commit(A, B, step=1), now=0.0) == []


def test_a_commit_with_a_slot_that_was_never_held_is_our_bug() -> None:
    rounds = follower()
    rounds.push(push(A), now=0.0)
    with pytest.raises(InternalError, match=r"step 0 was decided with slots \[1\] that shard 1 lacks"):
        rounds.close(commit(A, B), now=0.0)


def test_an_update_that_no_commit_asked_for_is_our_bug() -> None:
    with pytest.raises(InternalError, match=r"shard 1 applied an update that no commit asked for"):
        follower().applied(LR)


def test_a_held_gradient_that_was_not_accepted_is_discarded_and_late() -> None:
    rounds = follower(slots=3, backups=1)
    for slot in (A, B, C):
        rounds.push(push(slot), now=0.0)
    rounds.close(commit(A, C), now=0.0)
    assert rounds.applied(LR)[:3] == [
        answer(A, Status.ACCEPTED, "one of 2 in step 0"),
        Discard(B),
        answer(B, Status.LATE, "step 0 closed without it"),
    ]
    assert (rounds.accepted, rounds.dropped) == (2, 1)


def test_late_gradient_is_refused_after_the_step_closed() -> None:
    rounds = follower(slots=2, backups=1)
    rounds.push(push(A), now=0.0)
    rounds.close(commit(A), now=0.0)
    rounds.applied(LR)
    assert rounds.push(push(B), now=0.0) == [answer(B, Status.LATE, "step 0 closed without it")]
    assert (rounds.accepted, rounds.dropped) == (1, 1)


def held_s(effects: list[Effect]) -> list[float]:
    """What the receipts among these say, in slot order."""
    return [each.reply.held_s for each in effects if isinstance(each, Answer) and isinstance(each.reply, Receipt)]


def test_a_receipt_says_how_long_the_push_was_held_until_the_step_was_decided() -> None:
    rounds = follower(slots=3, backups=1)
    for slot, now in ((A, 1.0), (B, 2.0), (C, 3.5)):
        rounds.push(push(slot), now)
    rounds.close(commit(A, C), now=4.0)
    assert held_s(rounds.applied(LR)) == [3.0, 2.0, 0.5]  # B was held, too, though it was left out


def test_the_push_that_closes_a_step_was_not_held_and_the_next_step_counts_anew() -> None:
    rounds, _ = lead_of(shards=1)
    rounds.push(push(B), now=1.0)
    rounds.push(push(A), now=3.5)
    assert held_s(rounds.applied(LR)) == [0.0, 2.5]
    rounds.push(push(A, step=1), now=10.0)
    rounds.push(push(B, step=1), now=10.25)
    assert held_s(rounds.applied(LR)) == [0.25, 0.0]


def test_a_push_that_came_after_the_step_was_not_held() -> None:
    rounds = follower(slots=2, backups=1)
    rounds.push(push(A), now=1.0)
    rounds.close(commit(A), now=2.0)
    rounds.applied(LR)
    assert held_s(rounds.push(push(B), now=9.0)) == [0.0]


def test_a_step_that_closes_without_an_update_held_its_pushes_nevertheless() -> None:
    rounds = follower()
    rounds.push(push(A), now=1.0)
    rounds.push(push(B, finite=False), now=3.0)
    assert held_s(rounds.close(commit(A, B, update=False), now=3.0)) == [2.0, 0.0]


def test_a_step_that_holds_a_nan_closes_without_update() -> None:
    rounds = follower()
    rounds.push(push(A), now=0.0)
    rounds.push(push(B, finite=False), now=0.0)
    reason = "step 0 closed without an update: NaN or Inf from slot 1"
    assert rounds.close(commit(A, B, update=False), now=0.0) == [
        Discard(A),
        answer(A, Status.NONFINITE, reason, version=0),
        Discard(B),
        answer(B, Status.NONFINITE, reason, version=0),
        Tell(LEAD, Confirm(OTHER, Step(0))),
    ]
    assert (rounds.version, rounds.accepted, rounds.dropped) == (0, 0, 2)


def test_a_push_of_a_step_that_is_not_open_is_refused() -> None:
    refused = Refused("step 1 of slot 0 is not open: step 0 is")
    assert follower().push(push(A, step=1), now=0.0) == [Answer(push_key(A, Step(1)), refused)]


def test_weights_of_a_step_are_given_once_it_is_open() -> None:
    rounds = follower(slots=1)

    def weights_for(step: int) -> Step | None:
        return rounds.weights_for(Pull(A, Incarnation(0), Step(step)))

    assert (weights_for(0), weights_for(1)) == (0, None)
    rounds.push(push(A), now=0.0)
    rounds.close(commit(A), now=0.0)
    rounds.applied(LR)
    assert (weights_for(0), weights_for(1), weights_for(2)) == (1, 1, None)


def test_a_follower_tells_again_what_it_holds_until_the_step_closes() -> None:
    rounds = follower()
    rounds.push(push(B), now=0.0)
    rounds.push(push(A), now=1.0)
    assert rounds.resend(now=1.0 + RESEND_S / 2) == []
    again: list[Effect] = [Tell(LEAD, held(A)), Tell(LEAD, held(B))]
    assert rounds.resend(now=1.0 + RESEND_S) == again
    assert rounds.resend(now=1.5 + RESEND_S) == []
    rounds.close(commit(A, B), now=0.0)
    rounds.applied(LR)
    assert rounds.resend(now=100.0) == []


# ------------------------------------------------------------------ the lead


def test_the_lead_commits_when_every_shard_holds_every_slot() -> None:
    rounds, _ = lead_of()
    assert rounds.push(push(B), now=0.0) == [Stage(B, Step(0), (7,))]
    assert rounds.report(held(A), now=0.0) == []
    assert rounds.push(push(A), now=0.0) == [Stage(A, Step(0), (7,))]
    assert rounds.report(held(B), now=0.0) == [Tell(OTHER, commit(A, B)), ApplyMean(Step(0), (A, B), How(tick=0))]


def test_the_lead_waits_for_all_but_the_backups_on_all_shards() -> None:
    rounds, _ = lead_of(slots=3, backups=1)
    rounds.push(push(C), now=0.0)
    rounds.push(push(B), now=0.0)
    assert rounds.report(held(C), now=0.0) == []
    assert rounds.report(held(A), now=0.0) == []
    assert rounds.report(held(B), now=0.0)[0] == Tell(OTHER, commit(B, C))


def test_a_receipt_of_the_lead_brings_the_following_grant() -> None:
    rounds, _ = lead_of(slots=1, shards=1)
    assert rounds.push(push(A), now=0.0)[1:] == [ApplyMean(Step(0), (A,), How(tick=0))]
    following = Granted(Step(1), tick=1)
    assert rounds.applied(LR) == [answer(A, Status.ACCEPTED, "one of 1 in step 0", following=following)]


def test_no_following_grant_leads_behind_an_evaluation_that_is_not_settled() -> None:
    rounds, lead = lead_of(slots=1, shards=1, every=1)
    receipts = []
    for step in range(2):
        rounds.push(push(A, step), now=0.0)
        receipts.append(rounds.applied(LR)[0])
    assert receipts == [
        answer(A, Status.ACCEPTED, "one of 1 in step 0", following=Granted(Step(1), 1)),
        answer(A, Status.ACCEPTED, "one of 1 in step 1", step=1, version=2, following=None),
    ]
    assert lead.gate.steps == 2


def test_a_late_slot_is_sent_to_the_open_step() -> None:
    rounds, _ = lead_of(slots=2, shards=1, backups=1)
    for step in range(3):
        rounds.push(push(A, step), now=0.0)
        rounds.applied(LR)
    late = answer(B, Status.LATE, "step 0 closed without it", version=3, following=Granted(Step(3), 3))
    assert rounds.push(push(B), now=0.0) == [late]


def test_one_slots_nan_on_any_shard_refuses_the_step_on_all() -> None:
    rounds, _ = lead_of(slots=1)
    rounds.push(push(A, finite=False), now=0.0)
    effects = rounds.report(held(A, finite=False), now=0.0)
    assert effects[0] == Tell(OTHER, commit(A, update=False))
    assert rounds.version == 0


def test_what_was_held_in_a_closed_step_does_not_count_for_the_next() -> None:
    rounds, lead = lead_of()
    for slot in (A, B):
        rounds.push(push(slot), now=0.0)
        rounds.report(held(slot), now=0.0)
    rounds.applied(LR)
    assert rounds.report(held(A), now=0.0) == []
    rounds.push(push(A, step=1), now=0.0)
    rounds.push(push(B, step=1), now=0.0)
    assert lead.holders == {A: {LEAD: True}, B: {LEAD: True}}


def test_a_commit_is_sent_again_until_every_shard_has_confirmed_it() -> None:
    rounds, lead = lead_of(slots=1, shards=3)
    rounds.push(push(A), now=5.0)
    rounds.report(held(A), now=5.0)
    rounds.report(held(A, shard=Shard(2)), now=5.0)
    rounds.applied(LR)
    assert rounds.resend(now=5.0 + RESEND_S / 2) == []
    assert rounds.resend(now=5.0 + RESEND_S) == [Tell(Shard(1), commit(A)), Tell(Shard(2), commit(A))]
    lead.confirmed(Confirm(Shard(1), Step(0)))
    assert rounds.resend(now=20.0) == [Tell(Shard(2), commit(A))]
    lead.confirmed(Confirm(Shard(2), Step(7)))
    assert rounds.resend(now=30.0) == [Tell(Shard(2), commit(A))]
    lead.confirmed(Confirm(Shard(2), Step(0)))
    assert rounds.resend(now=40.0) == []


def test_a_snapshot_is_kept_where_a_boundary_closes() -> None:
    rounds, _ = lead_of(slots=1, shards=1, every=2)
    kept = []
    for step in range(4):
        rounds.push(push(A, step), now=0.0)
        kept.append([effect for effect in rounds.applied(LR) if isinstance(effect, KeepSnapshot)])
    assert kept == [[], [KeepSnapshot(Boundary(1))], [], [KeepSnapshot(Boundary(2))]]


def test_a_step_that_a_slot_has_left_closes_with_nobody() -> None:
    rounds, lead = lead_of()
    rounds.push(push(A), now=0.0)
    lead.gate.leave(0)
    assert rounds.cut_short(now=0.0) == [
        Tell(OTHER, commit(update=False)),
        Discard(A),
        answer(A, Status.LATE, "step 0 closed without it", version=0, following=Ended()),
    ]


def test_a_push_of_a_step_that_a_slot_has_left_hears_the_end() -> None:
    rounds, lead = lead_of(shards=1)
    lead.gate.leave(0)
    assert rounds.cut_short(now=0.0) == []
    assert rounds.push(push(A), now=0.0) == [
        Stage(A, Step(0), (7,)),
        Discard(A),
        answer(A, Status.LATE, "step 0 closed without it", version=0, following=Ended()),
    ]


def test_a_slot_that_leaves_later_does_not_cut_the_open_step_short() -> None:
    rounds, lead = lead_of()
    rounds.push(push(A), now=0.0)
    lead.gate.leave(1)
    assert rounds.cut_short(now=0.0) == []


# ------------------------------------------------------------------ the global norm


def measuring_lead(backups: int = 0) -> Rounds:
    """A lead that has put the question of step 0, and has its own answer yet to come."""
    rounds, _ = lead_of(backups=backups, clip_norm=2.0)
    for slot in (A, B)[backups:]:
        rounds.push(push(slot), now=0.0)
        rounds.report(held(slot), now=0.0)
    return rounds


def measured(*squares: float, shard: Shard = OTHER, step: int = 0) -> Measured:
    return Measured(shard, Step(step), squares)


SCALE = 2.0 / (5.0 + 1e-6)


def test_the_lead_asks_how_large_the_mean_is_before_it_commits() -> None:
    rounds, _ = lead_of(clip_norm=2.0)
    rounds.push(push(A), now=0.0)
    rounds.push(push(B), now=0.0)
    rounds.report(held(A), now=0.0)
    asked = rounds.report(held(B), now=0.0)
    assert asked == [Tell(OTHER, Measure(Step(0), (A, B))), MeasureMean(Step(0), (A, B))]
    assert rounds.measured((9.0,), now=0.0) == []
    closing = Commit(Step(0), (A, B), update=True, clip_scale=SCALE)
    assert rounds.take(measured(15.0, 1.0), now=0.0) == [
        Tell(OTHER, closing),
        ApplyMean(Step(0), (A, B), How(0, 1.0, SCALE)),
    ]
    receipts = [effect.reply for effect in rounds.applied(LR) if isinstance(effect, Answer)]
    assert [r.clip_scale for r in receipts if isinstance(r, Receipt)] == [SCALE, SCALE]


def test_the_answers_may_come_in_any_order_and_twice() -> None:
    rounds = measuring_lead()
    assert rounds.take(measured(16.0), now=0.0) == rounds.take(measured(16.0), now=0.0) == []
    assert rounds.measured((9.0,), now=0.0)[-1] == ApplyMean(Step(0), (A, B), How(0, 1.0, SCALE))
    assert rounds.take(measured(16.0), now=0.0) == [], "the step is closing"


def test_one_shard_measures_and_commits_by_itself() -> None:
    rounds, _ = lead_of(slots=1, shards=1, clip_norm=2.0)
    assert rounds.push(push(A), now=0.0)[1:] == [MeasureMean(Step(0), (A,))]
    assert rounds.measured((9.0, 16.0), now=0.0) == [ApplyMean(Step(0), (A,), How(0, 1.0, SCALE))]


def test_a_gradient_that_comes_while_others_are_measured_is_late() -> None:
    rounds = measuring_lead(backups=1)
    rounds.push(push(A), now=0.0)
    assert rounds.report(held(A), now=0.0) == []
    rounds.measured((9.0,), now=0.0)
    assert rounds.take(measured(16.0), now=0.0)[0] == Tell(OTHER, Commit(Step(0), (B,), True, SCALE))


def test_a_mean_that_overflows_closes_the_step_without_an_update() -> None:
    rounds = measuring_lead()
    rounds.measured((float("inf"),), now=0.0)
    effects = rounds.take(measured(1.0), now=0.0)
    assert effects[0] == Tell(OTHER, commit(A, B, update=False))
    reason = "step 0 closed without an update: NaN or Inf in the mean of finite gradients"
    assert [e.reply.reason for e in effects if isinstance(e, Answer) and isinstance(e.reply, Receipt)] == [reason] * 2
    assert (rounds.version, rounds.dropped, rounds.nonfinite) == (0, 2, 2)


def test_a_step_that_holds_a_nan_is_not_measured() -> None:
    rounds, _ = lead_of(slots=1, clip_norm=2.0)
    rounds.push(push(A, finite=False), now=0.0)
    assert rounds.report(held(A, finite=False), now=0.0)[0] == Tell(OTHER, commit(A, update=False))


def test_the_lead_asks_those_again_who_have_not_answered() -> None:
    rounds = measuring_lead()
    rounds.measured((9.0,), now=0.0)
    assert rounds.resend(now=RESEND_S / 2) == []
    assert rounds.resend(now=RESEND_S) == [Tell(OTHER, Measure(Step(0), (A, B)))]
    assert rounds.resend(now=RESEND_S * 1.5) == []
    rounds.take(measured(16.0), now=RESEND_S * 1.5)
    rounds.applied(LR)
    rounds._lead.confirmed(Confirm(OTHER, Step(0)))  # type: ignore[union-attr]
    assert rounds.resend(now=100.0) == []


def test_a_slot_that_leaves_does_not_take_back_what_is_measured() -> None:
    rounds, lead = lead_of(backups=1, clip_norm=2.0)
    rounds.push(push(A), now=0.0)
    rounds.report(held(A), now=0.0)
    lead.gate.leave(0)
    assert rounds.cut_short(now=0.0) == []


def test_a_follower_measures_once_and_gives_the_same_answer_again() -> None:
    rounds = follower()
    rounds.push(push(A), now=0.0)
    rounds.push(push(B), now=0.0)
    question = Measure(Step(0), (A, B))
    assert rounds.measure(question) == [MeasureMean(Step(0), (A, B))]
    assert rounds.measured((9.0,), now=0.0) == [Tell(LEAD, measured(9.0))]
    assert rounds.measure(question) == [Tell(LEAD, measured(9.0))]
    assert rounds.close(Commit(Step(0), (A, B), True, 0.5), now=0.0) == [ApplyMean(Step(0), (A, B), How(0, 1.0, 0.5))]
    rounds.applied(LR)
    assert rounds.measure(question) == [], "the step has closed"


def test_a_question_about_a_later_step_waits_until_it_is_put_again() -> None:
    assert follower().measure(Measure(Step(1), (A,))) == []


def test_a_mean_that_nobody_asked_for_is_our_bug() -> None:
    with pytest.raises(InternalError, match="shard 1 measured a mean that nobody asked for"):
        follower().measured((1.0,), now=0.0)


@pytest.mark.parametrize(
    ("local_steps", "expected"), [(None, [1.0, 1.0, 0.5, 0.25]), (LocalSteps(8), [1.0, 1.0, 1.0, 1.0])]
)
def test_a_commit_brings_the_learning_rate_that_evaluations_have_made(
    local_steps: LocalSteps | None, expected: list[float]
) -> None:
    rounds, lead = lead_of(slots=1, shards=1, every=1, local_steps=local_steps)
    factors = []
    for step in range(4):
        (effect,) = rounds.push(push(A, step), now=0.0)[1:]
        assert isinstance(effect, ApplyMean)
        factors.append(effect.how.lr_factor)
        rounds.applied(LR)
        lead.gate.settle(Settle(Boundary(step + 1), stop=False, lr_factor=0.5 if step < 1 else 0.25))
    assert factors == expected
