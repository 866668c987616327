import socket
import threading
from collections.abc import Iterator

import pytest

from psgd.core.ids import Shard, Step
from psgd.core.messages import Confirm
from psgd.errors import InternalError
from psgd.transport.key import JobKey
from psgd.transport.rpc import RpcPeerLink, RpcServer
from tests.transport.rpc.network import Forwarder
from tests.transport.scripted import ScriptedEndpoint

KEY = JobKey("job-1", "a secret")


def confirm(step: int) -> Confirm:
    return Confirm(Shard(1), Step(step))


@pytest.fixture
def endpoint() -> ScriptedEndpoint:
    return ScriptedEndpoint()


@pytest.fixture
def server(endpoint: ScriptedEndpoint) -> Iterator[RpcServer]:
    made = RpcServer(endpoint, key=KEY, host="127.0.0.1", slots=1)
    yield made
    made.close()


def test_many_messages_arrive_in_order(server: RpcServer, endpoint: ScriptedEndpoint) -> None:
    link = RpcPeerLink({0: server.address}, key=KEY)
    for step in range(500):
        link.tell(0, confirm(step))
    assert [endpoint.next_arrival().request for _ in range(500)] == [confirm(step) for step in range(500)]
    link.close()


def test_shard_that_is_no_peer_is_our_own_bug(server: RpcServer) -> None:
    link = RpcPeerLink({0: server.address}, key=KEY)
    with pytest.raises(InternalError, match=r"shard 3 is none of this shard's peers: \[0\]"):
        link.tell(3, confirm(0))
    with pytest.raises(InternalError, match=r"Confirm\.step can not be sent"):
        link.tell(0, confirm(-1))
    link.close()


def test_peer_that_hangs_costs_messages_but_no_time() -> None:
    hangs = socket.create_server(("127.0.0.1", 0))
    link = RpcPeerLink({0: f"127.0.0.1:{hangs.getsockname()[1]}"}, key=KEY)
    for step in range(5000):
        link.tell(0, confirm(step))
    link.close()
    hangs.close()


def test_peer_that_comes_back_hears_what_is_said_from_then_on(server: RpcServer, endpoint: ScriptedEndpoint) -> None:
    forwarder = Forwarder(server.address)
    link = RpcPeerLink({0: forwarder.address}, key=KEY)
    link.tell(0, confirm(1))
    assert endpoint.next_arrival().request == confirm(1)
    forwarder.cut()
    while not endpoint.arrivals[1:]:  # as the protocol does: again, until it has an effect
        link.tell(0, confirm(2))
    assert endpoint.next_arrival().request == confirm(2)
    link.close()
    forwarder.close()


def test_closing_leaves_no_thread(server: RpcServer) -> None:
    link = RpcPeerLink({0: server.address, 2: server.address}, key=KEY)
    link.tell(0, confirm(1))
    link.close()
    link.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("psgd-rpc-peer")]
