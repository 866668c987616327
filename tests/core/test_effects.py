"""What tells a request from the others that wait at the same time."""

import pytest

from psgd.core.effects import key_of, push_key
from psgd.core.ids import Boundary, Incarnation, Slot, Step, Version
from psgd.core.messages import Advance, Ask, Inspect, Join, Leave, Pull, Push, Read, SlotRequest

SLOT, OLD, NEW = Slot(1), Incarnation(0), Incarnation(1)


def push(incarnation: Incarnation, tick: int = 0) -> Push:
    return Push(SLOT, incarnation, Step(3), tick, Version(tick), finite=True)


def requests(incarnation: Incarnation) -> list[SlotRequest]:
    return [
        Join(SLOT, incarnation),
        Ask(SLOT, incarnation, Step(3)),
        Pull(SLOT, incarnation, Step(3)),
        Advance(SLOT, incarnation, Step(3)),
        Leave(SLOT, incarnation, 3),
    ]


def test_a_push_is_the_same_whoever_repeats_it() -> None:
    assert key_of(push(OLD)) == key_of(push(NEW, tick=5)) == push_key(SLOT, Step(3)) == ("Push", 1, 3, -1)


@pytest.mark.parametrize(("old", "new"), list(zip(requests(OLD), requests(NEW), strict=True)))
def test_all_else_is_answered_to_the_incarnation_that_asked(old: SlotRequest, new: SlotRequest) -> None:
    assert key_of(old) != key_of(new)


def test_slots_steps_and_kinds_are_told_apart() -> None:
    keys = {key_of(request) for request in [*requests(OLD), push(OLD)]}
    keys |= {key_of(Ask(SLOT, OLD, Step(4))), key_of(Ask(Slot(2), OLD, Step(3)))}
    assert len(keys) == 8


def test_readers_of_one_boundary_share_an_answer() -> None:
    assert key_of(Read(Boundary(2))) == ("Read", -1, 2, -1)
    assert key_of(Inspect()) == ("Inspect", -1, -1, -1)
