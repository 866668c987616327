import pytest

from psgd.core.ids import Shard, Slot, Step
from psgd.core.messages import Ask, Confirm, PeerMessage, Request
from psgd.transport.base import Deliver
from psgd.transport.memory import MemoryConnection, MemoryPeerLink
from tests.transport.scripted import FIRST, Delivered, ScriptedEndpoint, answers, pull


def test_endpoints_that_answer_each_other_at_once_do_not_grow_the_stack() -> None:
    endpoints: dict[int, ScriptedEndpoint] = {}
    link = MemoryPeerLink(endpoints)

    class Echo(ScriptedEndpoint):
        def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
            assert isinstance(request, Confirm)
            heard.append(request.step)
            if request.step < 5000:
                link.tell(1 - request.shard, Confirm(Shard(1 - request.shard), Step(request.step + 1)))

    heard: list[int] = []
    endpoints.update({0: Echo(), 1: Echo()})
    link.tell(0, Confirm(Shard(0), Step(1)))
    assert heard == list(range(1, 5001))


def test_link_knows_endpoints_that_come_after_it() -> None:
    endpoints: dict[int, ScriptedEndpoint] = {}
    link = MemoryPeerLink(endpoints)
    endpoints[2] = ScriptedEndpoint()
    message: PeerMessage = Confirm(Shard(0), Step(4))
    link.tell(2, message)
    assert endpoints[2].next_arrival().request == message


def test_endpoint_that_fails_leaves_the_connection_usable() -> None:
    failing = True

    class Failing(ScriptedEndpoint):
        def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
            if failing:
                raise ValueError("broken shard")
            super().submit(request, deliver, payload)

    connection = MemoryConnection(Failing())
    request, delivered = Ask(Slot(0), FIRST, Step(0)), Delivered()
    with pytest.raises(ValueError, match="broken shard"):
        connection.submit(request, Delivered())
    failing = False
    connection.submit(request, delivered)
    assert delivered.wait() == (answers(request), None)


def test_payload_of_a_reply_may_change_once_it_was_delivered() -> None:
    endpoint = ScriptedEndpoint(b"weights")
    into = bytearray(7)
    MemoryConnection(endpoint).submit(pull(), Delivered(), into=[memoryview(into)])
    endpoint.whole[:] = b"changed"
    assert into == b"weights"
