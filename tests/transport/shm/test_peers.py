from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from psgd.core.ids import Shard, Slot, Step
from psgd.core.messages import Commit, Confirm, Held, PeerMessage
from psgd.errors import LostError
from psgd.transport.key import JobKey
from psgd.transport.shm import ShmPeer, ShmServer
from tests.transport.scripted import ScriptedEndpoint

KEY = JobKey("job-1", "a secret")


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def serve(closing: ExitStack, endpoint: ScriptedEndpoint) -> ShmServer:
    server = ShmServer(endpoint, key=KEY, slots=1)
    closing.callback(server.close)
    return server


def test_messages_arrive_in_order(closing: ExitStack) -> None:
    endpoint = ScriptedEndpoint()
    peer = ShmPeer(serve(closing, endpoint).name, key=KEY)
    closing.callback(peer.close)
    messages: list[PeerMessage] = [
        Held(Shard(1), Slot(0), Step(7), finite=False),
        Commit(Step(7), (Slot(0),), update=False),
        Confirm(Shard(1), Step(7)),
    ]
    for message in messages:
        peer.tell(message)
    assert [endpoint.next_arrival().request for _ in messages] == messages


def test_a_shard_that_is_gone_is_told_in_vain(closing: ExitStack) -> None:
    server = ShmServer(ScriptedEndpoint(), key=KEY, slots=1)
    peer = ShmPeer(server.name, key=KEY)
    closing.callback(peer.close)
    server.close()
    for _ in range(3):
        peer.tell(Confirm(Shard(1), Step(0)))


def test_an_unknown_doorbell_and_a_wrong_token_are_lost(closing: ExitStack) -> None:
    server = serve(closing, ScriptedEndpoint())
    with pytest.raises(LostError, match="unix:@nowhere can not be reached"):
        ShmPeer("nowhere", key=KEY)
    with pytest.raises(LostError, match="without the token of job job-1"):
        ShmPeer(server.name, key=JobKey("job-1", "a guess"))
