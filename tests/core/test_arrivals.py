"""A push is applied on arrival; what one shard missed is let pass there."""

from dataclasses import dataclass, field, replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from psgd.core.arrivals import Arrivals
from psgd.core.corrections import Correction, DelayCompensation, LagRate
from psgd.core.effects import Answer, ApplyGathered, ApplyGradient, Effect, Gather, HoldWeights, How, Stage, key_of
from psgd.core.ids import Incarnation, Shard, Slot, Step, Version
from psgd.core.ledger import Ledger
from psgd.core.messages import Advance, Pull, Push, Receipt, Refused, Status
from psgd.core.modes import Async, Rules
from psgd.errors import InternalError

A, B, C = Slot(0), Slot(1), Slot(2)
LR = (0.1,)


def arrivals(
    clip_norm: float | None = None,
    mode: Async | None = None,
    correction: Correction | None = None,
    steps: int | None = None,
    slots: int = 2,
) -> Arrivals:
    mode = mode or Async()
    rules = Rules(mode, slots, 2, steps, clip_norm=clip_norm, correction=correction)
    return Arrivals(rules, mode, Shard(1), Ledger())


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


# ------------------------------------------------------------------ the learning rate divided by the lag


def test_a_late_gradient_is_applied_at_the_rate_divided_by_its_lag() -> None:
    rule = arrivals(correction=LagRate(), slots=3)
    factors = []
    for slot in (A, B, C):
        _, apply = rule.push(replace(push(slot), lr_factor=0.5))
        assert isinstance(apply, ApplyGradient)
        factors.append(apply.how.lr_factor)
        rule.applied(LR)
    assert factors == [0.5, 0.5, 0.25]


# ------------------------------------------------------------------ several gradients an update


def take(rule: Arrivals, push: Push, lr: tuple[float, ...] = LR) -> list[Effect]:
    """What follows when the push has been gathered."""
    staged, gather = rule.push(push)
    assert isinstance(staged, Stage)
    assert isinstance(gather, Gather)
    return rule.gathered(lr)


def test_every_gradient_is_gathered_and_answered_at_once() -> None:
    rule = arrivals(mode=Async(gather=2))
    assert rule.push(push()) == [Stage(A, Step(0), (2,)), Gather(A, Step(0), How(tick=5), 1.0)]
    first = receipt(0, Status.ACCEPTED, "1 of 2 gathered for update 1", version=0)
    assert rule.gathered(LR) == [Answer(key_of(push()), first)]
    assert (rule.version, rule.accepted, rule.dropped, rule.finished(A)) == (0, 0, 1, 1)


def test_the_last_of_them_updates_and_all_count_then() -> None:
    rule = arrivals(mode=Async(gather=2))
    take(rule, push())
    assert take(rule, replace(push(B), tick=6, lr_factor=0.5)) == [ApplyGathered(2, 2.0, How(tick=6, lr_factor=0.5))]
    last = receipt(0, Status.ACCEPTED, "2 of 2 gathered for update 1", version=1)
    assert rule.applied((9.0,)) == [Answer(key_of(push(B)), last)]  # at the rate that it was gathered with
    assert (rule.version, rule.accepted, rule.dropped) == (1, 2, 0)
    again = receipt(1, Status.ACCEPTED, "1 of 2 gathered for update 2", version=1, lag=1)
    assert take(rule, push(step=1)) == [Answer(key_of(push(step=1)), again)]


def test_a_fast_slot_may_be_there_twice() -> None:
    rule = arrivals(mode=Async(gather=2))
    take(rule, push())
    assert take(rule, push(step=1)) == [ApplyGathered(2, 2.0, How(tick=5))]


def test_those_who_are_late_count_less_and_the_rate_is_their_mean() -> None:
    rule = arrivals(mode=Async(gather=2), correction=LagRate())
    for step in range(4):  # two updates
        take(rule, push(step=step))
        if step % 2:
            rule.applied(LR)
    _, gather = rule.push(replace(push(B), lr_factor=0.5))
    assert gather == Gather(B, Step(0), How(tick=5, lr_factor=0.25), 0.5)
    rule.gathered(LR)
    fresh = replace(push(step=4, pulled=2), lr_factor=0.5)
    assert take(rule, fresh) == [ApplyGathered(2, 1.5, How(tick=5, lr_factor=0.5 * 0.75))]


def test_each_of_them_is_scaled_by_its_own_norm() -> None:
    rule = arrivals(clip_norm=1.5, mode=Async(gather=2))
    scale = 1.5 / (6.0 + 1e-6)
    assert rule.push(replace(push(), norm=6.0))[1] == Gather(A, Step(0), How(5, 1.0, scale), 1.0)
    first = receipt(0, Status.ACCEPTED, "1 of 2 gathered for update 1", version=0)
    assert rule.gathered(LR) == [Answer(key_of(push()), replace(first, clip_scale=scale))]
    assert take(rule, replace(push(B), norm=1.0)) == [ApplyGathered(2, 2.0, How(tick=5))]


def test_a_nan_takes_no_place_among_them() -> None:
    rule = arrivals(mode=Async(gather=2))
    take(rule, push())
    refused = receipt(0, Status.NONFINITE, "slot 1 pushed NaN or Inf in iteration 0", version=0)
    assert rule.push(push(B, finite=False)) == [Answer(key_of(push(B)), refused)]
    assert (rule.accepted, rule.dropped, rule.nonfinite) == (0, 2, 1)
    assert take(rule, push(step=1)) == [ApplyGathered(2, 2.0, How(tick=5))]


def test_the_last_iteration_of_the_budget_updates_with_what_there_is() -> None:
    rule = arrivals(mode=Async(gather=2), steps=3, slots=3)
    for step in range(8):
        take(rule, push(step=step))
        if step % 2:
            rule.applied(LR)
    assert take(rule, push(B)) == [ApplyGathered(1, 1.0, How(tick=5))]
    last = receipt(0, Status.ACCEPTED, "1 of 2 gathered for update 5", version=5, lag=4)
    assert rule.applied(LR) == [Answer(key_of(push(B)), last)]
    assert (rule.version, rule.accepted, rule.dropped) == (5, 9, 0)


@pytest.mark.parametrize("how", ["not finite", "advanced"])
def test_if_the_last_iteration_brings_nothing_what_there_is_is_applied_before_its_answer(how: str) -> None:
    rule = arrivals(mode=Async(gather=2), steps=1)
    take(rule, push(B))
    update = [ApplyGathered(1, 1.0, How(tick=5))]
    if how == "advanced":
        assert rule.advance(advance()) == update
        passed = receipt(0, Status.ADVANCED, "iteration 0 reached another shard only", version=1)
        assert rule.applied(LR) == [Answer(key_of(advance()), passed)]
    else:
        assert rule.push(push(finite=False)) == update
        refused = receipt(0, Status.NONFINITE, "slot 0 pushed NaN or Inf in iteration 0", version=1)
        assert rule.applied(LR) == [Answer(key_of(push()), refused)]
    assert (rule.version, rule.accepted, rule.dropped, rule.finished(A)) == (1, 1, 1, 1)


def test_a_gradient_that_nobody_pushed_is_not_gathered() -> None:
    with pytest.raises(InternalError, match=r"shard 1 applied an update that no push asked for"):
        arrivals(mode=Async(gather=2)).gathered(LR)


# ------------------------------------------------------------------ what was pulled


def compensated(mode: Async | None = None) -> Arrivals:
    """Slots 0 and 1 have pulled version 0."""
    rule = arrivals(mode=mode, correction=DelayCompensation())
    for slot in (A, B):
        rule.gave(Pull(slot, Incarnation(0), Step(0)))
    return rule


def test_before_an_update_the_weights_are_copied_that_others_compute_at() -> None:
    rule = compensated()
    assert rule.push(push(A))[1:] == [HoldWeights(Version(0), (Version(0),)), ApplyGradient(A, Step(0), How(5))]
    rule.applied(LR)
    assert rule.push(push(B))[1:] == [
        HoldWeights(Version(1), (Version(0), Version(1))),
        ApplyGradient(B, Step(0), How(5, pulled=Version(0))),
    ]
    rule.applied(LR)
    # Slot 0 went on from its receipt, as slot 1 did.
    assert rule.push(push(A, 1, pulled=1))[1:] == [
        HoldWeights(Version(2), (Version(1), Version(2))),
        ApplyGradient(A, Step(1), How(5, pulled=Version(1))),
    ]


def test_with_a_bound_nobody_goes_on_from_a_receipt() -> None:
    rule = compensated(Async(staleness=1))
    rule.push(push(A))
    rule.applied(LR)
    assert rule.push(push(B))[1] == HoldWeights(Version(1), (Version(0),))
    rule.applied(LR)
    refused = Refused("slot 0 pushed from version 1, which it has not pulled")
    assert rule.push(push(A, 1, pulled=1)) == [Answer(key_of(push(A, 1)), refused)]


def test_a_gathered_gradient_is_compared_with_the_weights_as_they_are() -> None:
    rule = compensated(Async(gather=2))
    take(rule, push(A))
    assert take(rule, push(A, 1)) == [
        HoldWeights(Version(0), (Version(0),)),
        ApplyGathered(2, 2.0, How(tick=5)),
    ]
    rule.applied(LR)
    assert rule.push(push(B))[1] == Gather(B, Step(0), How(5, pulled=Version(0)), 1.0)


def test_weights_that_nobody_compares_are_not_copied() -> None:
    rule = arrivals(correction=DelayCompensation(0.0))
    rule.gave(Pull(A, Incarnation(0), Step(0)))
    assert rule.push(push()) == [Stage(A, Step(0), (2,)), ApplyGradient(A, Step(0), How(tick=5))]


@dataclass
class Party:
    """Slots that share workers: one may go on from its receipt, unless another's weights have come in between."""

    rule: Arrivals
    renews: bool
    at: dict[Slot, Version | None] = field(default_factory=dict)
    onward: dict[Slot, Version] = field(default_factory=dict)
    incarnations: dict[Slot, int] = field(default_factory=dict)
    copies: set[Version] = field(default_factory=set)
    most: int = 0

    def work(self, slot: Slot, pulls: bool) -> None:
        """The slot does what comes next."""
        pulled = self.at.get(slot)
        if pulled is not None:
            self._push(slot, pulled)
        elif slot in self.onward and not pulls:
            self.at[slot] = self.onward[slot]
        else:
            self._pull(slot, self.rule.finished(slot))
            self.at[slot] = self.rule.version

    def replace(self, slot: Slot) -> None:
        """The slot's worker dies, the next one has no weights."""
        self.incarnations[slot] = self.incarnations.get(slot, 0) + 1
        self.at[slot] = None
        self.onward.pop(slot, None)

    def repeat(self, slot: Slot) -> None:
        """The network brings a pull once more whose slot has pushed since."""
        self._pull(slot, self.rule.finished(slot) - 1)

    def _pull(self, slot: Slot, step: int) -> None:
        self.rule.gave(Pull(slot, Incarnation(self.incarnations.get(slot, 0)), Step(step)))

    def _push(self, slot: Slot, pulled: Version) -> None:
        effects = self.rule.push(push(slot, self.rule.finished(slot), pulled))
        assert isinstance(effects[0], Stage), f"refused: {effects}"
        assert pulled == self.rule.version or pulled in self.copies
        if isinstance(effects[-1], Gather):
            effects = self.rule.gathered(LR)
        for effect in effects:
            if isinstance(effect, HoldWeights):
                assert set(effect.versions) <= self.copies | {effect.now}
                self.copies = set(effect.versions)
                self.most = max(self.most, len(self.copies))
            if isinstance(effect, ApplyGradient | ApplyGathered):
                self.rule.applied(LR)
        self.at[slot] = None
        if self.renews:
            self.onward[slot] = self.rule.version


EVENTS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["goes on", "pulls", "pulls", "is replaced", "pulled long ago"])),
    min_size=20,
    max_size=60,
)


@settings(max_examples=max(300, settings().max_examples))
@given(st.sampled_from([Async(), Async(), Async(staleness=1), Async(gather=2)]), EVENTS)
def test_copies_are_no_more_than_slots_whoever_pulls_again(mode: Async, events: list[tuple[int, str]]) -> None:
    party = Party(arrivals(mode=mode, correction=DelayCompensation(), slots=3), mode.receipt_renews)
    for number, event in events:
        slot = Slot(number)
        if event == "is replaced":
            party.replace(slot)
        elif event == "pulled long ago" and party.rule.finished(slot) > 0:
            party.repeat(slot)
        else:
            party.work(slot, pulls=event == "pulls")
    assert party.most <= DelayCompensation().copies(slots=3)
