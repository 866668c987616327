"""Who runs each slot, and who is kept out."""

import pytest

from psgd.core.ids import Generation, Incarnation, Slot
from psgd.core.membership import Fence, Membership


def incarnations(*numbers: int) -> tuple[Incarnation, ...]:
    return tuple(map(Incarnation, numbers))


def test_slots_are_dealt_to_workers_in_turn() -> None:
    first = Membership.first(slots=5, workers=2)
    assert first == Membership(Generation(0), (0, 1, 0, 1, 0), incarnations(0, 0, 0, 0, 0))
    assert (first.slots_of(0), first.slots_of(1), first.slots_of(2)) == ((0, 2, 4), (1, 3), ())


def test_replacing_a_worker_raises_the_generation_and_the_incarnation_of_its_slots_alone() -> None:
    first = Membership.first(slots=4, workers=2)
    second = first.replaced(1)
    assert second == Membership(Generation(1), (0, 1, 0, 1), incarnations(0, 1, 0, 1))
    assert second.replaced(1).incarnations == (0, 2, 0, 2)
    assert first.generation == 0


@pytest.mark.parametrize("incarnation", [0, 1])
def test_the_current_incarnation_and_newer_ones_are_welcome(incarnation: int) -> None:
    assert Fence(slots=1).refusal(Slot(0), Incarnation(incarnation)) is None


def test_an_incarnation_that_introduced_itself_fences_off_the_older_ones() -> None:
    fence = Fence(slots=2)
    fence.raise_to(Slot(1), Incarnation(2))
    assert fence.refusal(Slot(1), Incarnation(1)) == "incarnation 1 of slot 1 was replaced by incarnation 2"
    assert fence.refusal(Slot(0), Incarnation(0)) is None


def test_a_fence_is_never_lowered() -> None:
    fence = Fence(slots=1)
    fence.raise_to(Slot(0), Incarnation(2))
    fence.raise_to(Slot(0), Incarnation(1))
    fence.announce(1, incarnations(0))
    assert fence.refusal(Slot(0), Incarnation(1)) is not None


def test_an_announced_membership_raises_every_fence() -> None:
    fence = Fence(slots=2)
    fence.announce(1, incarnations(0, 3))
    assert fence.refusal(Slot(0), Incarnation(0)) is None
    assert fence.refusal(Slot(1), Incarnation(2)) is not None


def test_an_older_generation_is_ignored() -> None:
    fence = Fence(slots=1)
    fence.announce(2, incarnations(1))
    fence.announce(1, incarnations(5))
    assert fence.refusal(Slot(0), Incarnation(1)) is None


@pytest.mark.parametrize("slot", [-1, 2])
def test_a_slot_that_the_job_does_not_have_is_refused(slot: int) -> None:
    assert Fence(slots=2).refusal(Slot(slot), Incarnation(0)) == f"slot must be in 0 … 1, got {slot}"
