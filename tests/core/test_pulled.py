"""What slots may be computing at."""

from psgd.core.ids import Incarnation, Slot, Step, Version
from psgd.core.messages import Pull
from psgd.core.pulled import PulledVersions

A, B = Slot(0), Slot(1)


def pull(slot: Slot, incarnation: int = 0) -> Pull:
    return Pull(slot, Incarnation(incarnation), Step(0))


def after(*given: tuple[Pull, int]) -> PulledVersions:
    pulled = PulledVersions()
    for request, version in given:
        pulled.gave(request, Version(version))
    return pulled


def test_a_pull_that_was_answered_twice_may_have_brought_either() -> None:
    pulled = after((pull(A), 3), (pull(A), 5))
    assert [pulled.has(A, Version(version)) for version in (3, 4, 5)] == [True, False, True]


def test_a_push_ends_what_its_slot_computed_at() -> None:
    pulled = after((pull(A), 3))
    pulled.pushed(A, None)
    assert not pulled.has(A, Version(3))
    pulled.pushed(A, Version(7))
    assert pulled.has(A, Version(7))


def test_who_pulls_does_not_go_on_from_the_receipt() -> None:
    pulled = after((pull(A), 3))
    pulled.pushed(A, Version(7))
    pulled.gave(pull(A), Version(9))
    assert [pulled.has(A, Version(version)) for version in (7, 9)] == [False, True]
    pulled.gave(pull(A), Version(11))
    assert pulled.beside(B) == {9, 11}


def test_a_new_incarnation_computes_at_what_it_has_pulled_itself() -> None:
    pulled = after((pull(A), 3), (pull(A, incarnation=1), 5))
    assert [pulled.has(A, Version(version)) for version in (3, 5)] == [False, True]


def test_what_others_compute_at_is_known_once_each() -> None:
    assert after((pull(A), 3), (pull(B), 3)).beside(A) == {3}
    assert after((pull(A), 3), (pull(B), 4)).beside(A) == {4}
    assert after((pull(A), 3)).beside(A) == set()
    assert not after().has(B, Version(0))
