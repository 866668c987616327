from types import SimpleNamespace

import pytest

from psgd.core.ids import Slot, Step, Version
from psgd.core.messages import Receipt, Status
from psgd.core.slot import Finish
from psgd.runlog import Iteration
from psgd.worker.record import Chronicle


def receipt(version: int, lag: int) -> Receipt:
    return Receipt(Step(4), Status.ACCEPTED, "taken", Version(version), lag, (0.5, 0.25), None)


def test_a_record_has_the_leads_answer_and_what_is_not_computing_is_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 13.0, 14.0])
    monkeypatch.setattr("psgd.worker.record.time", SimpleNamespace(perf_counter=lambda: next(times)))
    chronicle = Chronicle(worker=2, slot=Slot(5))
    finish = Finish(Step(4), (receipt(version=9, lag=1), receipt(version=7, lag=0)))
    first = chronicle.iteration(finish, loss=1.5, samples=8, compute_s=2.0)
    second = chronicle.iteration(finish, loss=None, samples=8, compute_s=2.0, inner_lr=(0.125,))
    assert first == Iteration(13.0, 2, 5, 4, 1.5, 8, "accepted", 1, 9, (0.5, 0.25), compute_s=2.0, wait_s=1.0)
    assert second == Iteration(
        14.0, 2, 5, 4, None, 8, "accepted", 1, 9, (0.5, 0.25), compute_s=2.0, wait_s=0.0, inner_lr=(0.125,)
    )
