import threading

import pytest

from psgd.core.ids import Slot, Step
from psgd.core.messages import Ask, Request
from psgd.transport.base import Deliver
from psgd.transport.rpc.operations import Operations, Outcome
from psgd.transport.staging import Staging
from psgd.transport.wire import OperationId
from tests.transport.scripted import FIRST, PATIENCE_S, ScriptedEndpoint, answers, pull, push, receipt

ONE, TWO = OperationId(7, 1), OperationId(7, 2)


def undecided() -> ScriptedEndpoint:
    return ScriptedEndpoint(b"abcd", answer=lambda request: None)


def operations_of(endpoint: ScriptedEndpoint) -> Operations:
    return Operations(endpoint, Staging(4, keep=1), weights_stand=False)


def test_request_sent_again_attaches_to_the_first() -> None:
    endpoint = undecided()
    operations = operations_of(endpoint)
    first = operations.begin(ONE, push(), memoryview(b"ABCD"))
    assert operations.begin(ONE, push(), memoryview(b"ABCD")) is first
    assert operations.known(ONE, push()) is first
    endpoint.next_arrival().deliver(receipt(), None)
    assert first.wait(PATIENCE_S) == Outcome(receipt(), memoryview(b""))
    assert operations.known(ONE, push()) is first
    assert len(endpoint.arrivals) == 1


def test_another_operation_is_another_request_even_if_it_says_the_same() -> None:
    endpoint = undecided()
    operations = operations_of(endpoint)
    first = operations.begin(ONE, push())
    assert operations.known(TWO, push()) is None
    assert operations.begin(TWO, push()) is not first
    assert len(endpoint.arrivals) == 2


def test_one_operation_a_slot_and_kind_is_kept() -> None:
    operations = operations_of(undecided())
    one_push = operations.begin(ONE, push(slot=0))
    operations.begin(TWO, push(slot=1))
    operations.begin(TWO, Ask(Slot(0), FIRST, Step(0)))
    assert operations.known(ONE, push(slot=0)) is one_push
    operations.begin(TWO, push(slot=0, step=1))
    assert operations.known(ONE, push(slot=0)) is None


def test_outcome_holds_a_copy_of_the_payload() -> None:
    endpoint = ScriptedEndpoint(b"abcd")
    operation = operations_of(endpoint).begin(ONE, pull())
    endpoint.whole[:] = b"ABCD"
    assert operation.wait(0) == Outcome(answers(pull()), memoryview(b"abcd"))


def test_nothing_is_decided_until_it_is() -> None:
    endpoint = undecided()
    operation = operations_of(endpoint).begin(ONE, push())
    assert operation.wait(0) is None
    endpoint.next_arrival().deliver(receipt(), None)
    assert operation.wait(0) == Outcome(receipt(), memoryview(b""))


def test_forgotten_operation_is_submitted_anew() -> None:
    endpoint = ScriptedEndpoint(b"abcd")
    operations = operations_of(endpoint)
    operations.forget(operations.begin(ONE, pull()), pull())
    assert operations.known(ONE, pull()) is None
    operations.begin(ONE, pull())
    assert len(endpoint.arrivals) == 2


def test_forgetting_leaves_a_newer_operation_alone() -> None:
    operations = operations_of(undecided())
    old = operations.begin(ONE, pull())
    new = operations.begin(TWO, pull())
    operations.forget(old, pull())
    assert operations.known(TWO, pull()) is new


def test_request_that_the_endpoint_could_not_take_can_be_sent_again() -> None:
    class Failing(ScriptedEndpoint):
        def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
            super().submit(request, deliver, payload)
            if len(self.arrivals) == 1:
                raise ValueError("broken shard")

    endpoint = Failing(b"abcd")
    operations = operations_of(endpoint)
    with pytest.raises(ValueError, match="broken shard"):
        operations.begin(ONE, push())
    assert operations.known(ONE, push()) is None
    assert operations.begin(ONE, push()).wait(0) == Outcome(receipt(), memoryview(b""))


def test_closing_wakes_everybody_even_those_who_wait_for_a_replaced_operation() -> None:
    operations = operations_of(endpoint := undecided())
    waited_for = [operations.begin(ONE, push()), operations.begin(TWO, push())]
    outcomes: list[Outcome | None] = []
    threads = [
        threading.Thread(target=lambda operation=each: outcomes.append(operation.wait(PATIENCE_S)))
        for each in waited_for
    ]
    for thread in threads:
        thread.start()
    operations.close()
    for thread in threads:
        thread.join(PATIENCE_S / 2)
    assert outcomes == [None, None]
    assert len(endpoint.arrivals) == 2


def test_nobody_waits_after_closing() -> None:
    operations = operations_of(undecided())
    operations.close()
    assert operations.begin(ONE, push()).wait(PATIENCE_S) is None
