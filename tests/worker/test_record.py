import pytest

from psgd.core.ids import Slot, Step, Version
from psgd.core.messages import Receipt, Status
from psgd.core.slot import Finish, Phase
from psgd.runlog import Iteration
from psgd.worker.record import Chronicle


def receipt(version: int = 9, lag: int = 0, held_s: float = 0.0) -> Receipt:
    return Receipt(Step(4), Status.ACCEPTED, "taken", Version(version), lag, (0.5, 0.25), None, held_s=held_s)


class Told:
    """A chronicle whose slot goes from phase to phase when the test says so."""

    def __init__(self) -> None:
        self.now = 10.0
        self.chronicle = Chronicle(worker=2, slot=Slot(5), clock=lambda: self.now)

    def spend(self, seconds: float, then: Phase) -> None:
        """So much time passes, then a phase begins; where that takes a reply, it has come just now."""
        self.now += seconds
        self.chronicle.delivered()
        self.chronicle.taken()
        self.chronicle.entered(then)

    def until_pushing(self, compute_s: float = 4.0) -> None:
        self.spend(100.0, Phase.JOINING)
        self.spend(0.25, Phase.ASKING)
        self.spend(0.5, Phase.READY)
        self.spend(1.0, Phase.PULLING)
        self.spend(2.0, Phase.COMPUTING)
        self.spend(compute_s, Phase.PUSHING)

    def record(self, held_s: float = 0.0, compute_s: float = 4.0) -> Iteration:
        return self.chronicle.iteration(Finish(Step(4), (receipt(held_s=held_s),)), 1.5, 8, compute_s)


def times(record: Iteration) -> tuple[float, float, float]:
    return record.compute_s, record.wait_s, record.transfer_s


def test_a_record_has_the_leads_answer() -> None:
    told = Told()
    told.until_pushing()
    told.spend(8.0, Phase.READY)
    told.chronicle.moved(30)
    told.chronicle.moved(12)
    finish = Finish(Step(4), (receipt(version=9, lag=1), receipt(version=7, lag=0)))
    assert told.chronicle.iteration(finish, loss=1.5, samples=8, compute_s=4.0, inner_lr=(0.125,)) == Iteration(
        time_s=125.75,
        worker=2,
        slot=5,
        step=4,
        loss=1.5,
        samples=8,
        status="accepted",
        lag=1,
        version=9,
        lr=(0.5, 0.25),
        compute_s=4.0,
        wait_s=1.5,
        transfer_s=10.25,
        bytes=42,
        inner_lr=(0.125,),
    )


def test_time_is_counted_from_when_the_slot_introduced_itself_and_in_full() -> None:
    told = Told()
    told.until_pushing()
    told.spend(8.0, Phase.READY)
    assert sum(times(told.record())) == 0.25 + 0.5 + 1.0 + 2.0 + 4.0 + 8.0


def test_the_barrier_is_waiting_and_the_rest_of_a_push_is_transfer() -> None:
    told = Told()
    told.until_pushing()
    told.spend(8.0, Phase.READY)
    assert times(told.record(held_s=6.0)) == (4.0, 1.5 + 6.0, 0.25 + 2.0 + 2.0)


def test_a_barrier_that_held_the_push_longer_than_it_took_here_is_cut() -> None:
    """Two machines' clocks need not run at the same pace."""
    told = Told()
    told.until_pushing()
    told.spend(8.0, Phase.READY)
    assert times(told.record(held_s=8.5)) == (4.0, 1.5 + 8.0, 0.25 + 2.0)


def test_what_is_computed_but_no_computation_is_transfer() -> None:
    """Between the pull and the push lie copies and encoding, too."""
    told = Told()
    told.until_pushing(compute_s=4.0)
    told.spend(8.0, Phase.READY)
    assert times(told.record(compute_s=3.0)) == (3.0, 1.5, 0.25 + 2.0 + 1.0 + 8.0)


@pytest.mark.parametrize("asked", [Phase.PULLING, Phase.PUSHING])
def test_a_reply_that_lies_here_while_the_worker_is_at_another_slot_is_waiting(asked: Phase) -> None:
    told = Told()
    told.spend(0.0, asked)
    told.now += 1.0
    told.chronicle.delivered()  # from one shard
    told.now += 2.0
    told.chronicle.delivered()  # from the other, the last one
    told.now += 4.0
    told.chronicle.taken()
    told.now += 8.0  # weights are decoded
    told.chronicle.entered(Phase.COMPUTING)
    told.spend(0.0, Phase.PUSHING)
    told.spend(0.0, Phase.ENDED)
    assert times(told.record(compute_s=0.0)) == (0.0, 4.0, 11.0)


def test_every_iteration_is_counted_anew_from_the_end_of_the_one_before() -> None:
    told = Told()
    told.until_pushing()
    told.spend(8.0, Phase.READY)
    told.chronicle.moved(5)
    told.now += 0.5  # whoever makes the record comes to it a little later
    first = told.record()
    told.spend(0.5, Phase.COMPUTING)
    told.spend(4.0, Phase.PUSHING)
    told.chronicle.moved(7)
    told.spend(2.0, Phase.READY)
    second = told.record(held_s=1.5)
    assert (first.bytes, second.bytes) == (5, 7)
    assert times(second) == (4.0, 1.0 + 1.5, 0.5)
    assert second.time_s - first.time_s == sum(times(second))


def test_the_same_phase_goes_on() -> None:
    told = Told()
    told.until_pushing()
    told.spend(1.0, Phase.PUSHING)  # the first of two answers
    told.spend(7.0, Phase.READY)
    assert times(told.record(held_s=6.0)) == (4.0, 7.5, 4.25)
