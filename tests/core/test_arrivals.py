"""A push is applied on arrival; what one shard missed is let pass there."""

from dataclasses import replace

import pytest

from psgd.core.arrivals import Arrivals
from psgd.core.effects import Answer, ApplyGradient, How, Stage, key_of
from psgd.core.ids import Incarnation, Shard, Slot, Step, Version
from psgd.core.ledger import Ledger
from psgd.core.messages import Advance, Pull, Push, Receipt, Refused, Status
from psgd.core.modes import Async, Rules
from psgd.errors import InternalError

A, B = Slot(0), Slot(1)
LR = (0.1,)


def arrivals(clip_norm: float | None = None) -> Arrivals:
    return Arrivals(Rules(Async(), slots=2, shards=2, steps=None, clip_norm=clip_norm), Shard(1), Ledger())


def push(slot: Slot = A, step: int = 0, pulled: int = 0, finite: bool = True) -> Push:
    return Push(slot, Incarnation(0), Step(step), 5, Version(pulled), finite, absent=(2,))


def advance(step: int = 0) -> Advance:
    return Advance(A, Incarnation(1), Step(step))


def receipt(step: int, status: Status, reason: str, version: int, lag: int = 0) -> Receipt:
    return Receipt(Step(step), status, reason, Version(version), lag, LR if status is Status.ACCEPTED else (), None)


def test_a_push_is_staged_applied_and_answered() -> None:
    rule = arrivals()
    assert rule.push(push()) == [Stage(A, Step(0), (2,)), ApplyGradient(A, Step(0), How(tick=5))]
    accepted = receipt(0, Status.ACCEPTED, "iteration 0 applied on arrival", version=1)
    assert rule.applied(LR) == [Answer(key_of(push()), accepted)]
    assert (rule.version, rule.accepted, rule.dropped, rule.finished(A)) == (1, 1, 0, 1)


def test_a_push_is_scaled_by_the_norm_that_it_names() -> None:
    rule = arrivals(clip_norm=1.5)
    scale = 1.5 / (6.0 + 1e-6)
    assert rule.push(replace(push(), norm=6.0))[1] == ApplyGradient(A, Step(0), How(5, 1.0, scale))
    accepted = receipt(0, Status.ACCEPTED, "iteration 0 applied on arrival", version=1)
    assert rule.applied(LR) == [Answer(key_of(push()), replace(accepted, clip_scale=scale))]
    assert rule.push(replace(push(step=1), norm=1.0))[1] == ApplyGradient(A, Step(1), How(5, 1.0, 1.0))


@pytest.mark.parametrize(
    ("clip_norm", "norm", "reason"),
    [
        (None, 2.0, "the norm of a gradient must be left out where nobody clips it, got 2.0 from slot 0"),
        (1.0, None, "the norm of a gradient is needed to clip it, got None from slot 0"),
    ],
)
def test_a_push_names_its_norm_if_and_only_if_it_is_clipped(
    clip_norm: float | None, norm: float | None, reason: str
) -> None:
    rule = arrivals(clip_norm)
    assert rule.push(replace(push(), norm=norm)) == [Answer(key_of(push()), Refused(reason))]
    assert (rule.version, rule.finished(A)) == (0, 0)


def test_an_update_is_made_at_the_rate_of_its_grant() -> None:
    assert arrivals().push(replace(push(), lr_factor=0.25))[1] == ApplyGradient(A, Step(0), How(5, 0.25))


def test_the_lag_counts_the_updates_between_pull_and_push() -> None:
    rule = arrivals()
    for slot in (B, A):
        rule.push(push(slot))
        (answer,) = rule.applied(LR)
    assert answer == Answer(
        key_of(push()), receipt(0, Status.ACCEPTED, "iteration 0 applied on arrival", version=2, lag=1)
    )


def test_a_nan_is_refused_without_being_staged_and_the_clock_advances() -> None:
    rule = arrivals()
    refused = receipt(0, Status.NONFINITE, "slot 0 pushed NaN or Inf in iteration 0", version=0)
    assert rule.push(push(finite=False)) == [Answer(key_of(push()), refused)]
    assert (rule.version, rule.accepted, rule.dropped, rule.finished(A)) == (0, 0, 1, 1)


def test_an_iteration_that_another_shard_applied_passes_without_an_update() -> None:
    rule = arrivals()
    passed = receipt(0, Status.ADVANCED, "iteration 0 reached another shard only", version=0)
    assert rule.advance(advance()) == [Answer(key_of(advance()), passed)]
    assert (rule.version, rule.accepted, rule.dropped, rule.finished(A)) == (0, 0, 1, 1)


def test_an_iteration_out_of_order_is_refused() -> None:
    refused = Refused("iteration 1 of slot 0 came before iteration 0")
    assert arrivals().push(push(step=1)) == [Answer(key_of(push(step=1)), refused)]
    assert arrivals().advance(advance(1)) == [Answer(key_of(advance(1)), refused)]


def test_weights_are_given_as_they_are() -> None:
    assert arrivals().weights_for(Pull(A, Incarnation(0), Step(9))) == 9


def test_an_update_that_no_push_asked_for_is_our_bug() -> None:
    with pytest.raises(InternalError, match=r"shard 1 applied an update that no push asked for"):
        arrivals().applied(LR)
