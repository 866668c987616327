"""One entry a slot: what is a repeat, and what it is told."""

from psgd.core.ids import Slot, Step, Version
from psgd.core.ledger import Entry, Ledger
from psgd.core.messages import Receipt, Status

SLOT = Slot(1)


def receipt(step: int) -> Receipt:
    return Receipt(Step(step), Status.ACCEPTED, "applied", Version(step + 1), 0, (0.1,), None)


def test_a_slot_that_never_pushed_is_unknown() -> None:
    ledger = Ledger()
    assert not ledger.knows(SLOT, Step(0))
    assert (ledger.entry(SLOT), ledger.receipt(SLOT, Step(0)), ledger.finished(SLOT)) == (None, None, 0)


def test_a_staged_push_is_known_but_neither_answered_nor_finished() -> None:
    ledger = Ledger()
    ledger.stage(SLOT, Step(3))
    assert ledger.knows(SLOT, Step(3))
    assert ledger.receipt(SLOT, Step(3)) is None
    assert ledger.finished(SLOT) == 3


def test_an_answered_push_is_finished_and_a_repeat_gets_its_receipt() -> None:
    ledger = Ledger()
    ledger.stage(SLOT, Step(3))
    ledger.answer(SLOT, receipt(3))
    assert ledger.receipt(SLOT, Step(3)) == receipt(3)
    assert ledger.finished(SLOT) == 4


def test_older_pushes_are_known_without_their_receipts() -> None:
    ledger = Ledger()
    ledger.answer(SLOT, receipt(3))
    assert ledger.knows(SLOT, Step(2))
    assert ledger.receipt(SLOT, Step(2)) is None
    assert not ledger.knows(SLOT, Step(4))


def test_a_new_push_takes_the_place_of_the_last_one() -> None:
    ledger = Ledger()
    ledger.answer(SLOT, receipt(3))
    ledger.stage(SLOT, Step(4))
    assert ledger.entry(SLOT) == Entry(Step(4), None)
    assert ledger.receipt(SLOT, Step(3)) is None


def test_slots_do_not_know_each_other() -> None:
    ledger = Ledger()
    ledger.answer(SLOT, receipt(3))
    assert not ledger.knows(Slot(0), Step(0))
