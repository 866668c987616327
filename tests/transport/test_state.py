from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from psgd.core.ids import Boundary, Incarnation, Shard, Slot, Step, Version
from psgd.core.layout import Layout, Part, Role, TensorSpec, partition
from psgd.core.messages import Inspect, Load, Push, Receipt, Refused, Reply, Request
from psgd.core.modes import Async, Rules
from psgd.errors import LostError
from psgd.shard.shard import ParameterShard
from psgd.shard.state import ShardState
from psgd.transport.base import Deliver, Endpoint, PushId, Upload
from psgd.transport.flat import allocate, view_bytes
from psgd.transport.memory import MemoryConnection, MemoryPeerLink
from psgd.transport.state import ask, load_state, read_state
from psgd.transport.upload import LateUpload
from psgd.transport.wire_format import WireFormat

LAYOUT = Layout(
    [
        TensorSpec("weight", (200,), "float32", Role.PARAMETER),
        TensorSpec("fixed", (300,), "float32", Role.FROZEN),
        TensorSpec("count", (3,), "int64", Role.COUNTER),
    ]
)


def connect(shards: int) -> tuple[list[MemoryConnection], tuple[Part, ...]]:
    parts = partition(LAYOUT, shards)
    rules = Rules(Async(), slots=1, shards=shards, steps=5)
    endpoints: dict[int, Endpoint] = {}
    for k, part in enumerate(parts):
        state = ShardState(
            LAYOUT, [part], partial(torch.optim.SGD, lr=1.0), None, whole=False, memory=allocate(part.bytes)
        )
        wire = WireFormat(LAYOUT, part, "float32")
        peers = MemoryPeerLink(endpoints)
        endpoints[k] = ParameterShard(rules, Shard(k), state, wire, peers, lambda boundary, step: None, lambda: 0.0)
    return [MemoryConnection(endpoints[k]) for k in range(shards)], parts


def numbered() -> Tensor:
    """Memory in which neighbouring bytes differ; small enough that no float among them is NaN."""
    return (torch.arange(LAYOUT.bytes) % 63).to(torch.uint8)


@pytest.mark.parametrize("shards", [1, 2, 3, 20])
def test_weights_are_read_as_they_were_loaded(shards: int) -> None:
    connections, parts = connect(shards)
    load_state(connections, parts, numbered())
    memory, versions = read_state(connections, LAYOUT, parts, Boundary(0))
    assert torch.equal(memory, numbered())
    assert versions == (Version(0),) * shards


def test_versions_name_what_each_shard_has_applied() -> None:
    connections, parts = connect(2)
    load_state(connections, parts, allocate(LAYOUT.bytes))
    pushed = torch.zeros(parts[1].pushed.bytes, dtype=torch.uint8)
    push = Push(Slot(0), Incarnation(0), Step(0), 0, Version(0), finite=True)
    assert isinstance(ask(connections[1], push, view_bytes(pushed)).result(0), Receipt)
    assert read_state(connections, LAYOUT, parts, Boundary(0))[1] == (Version(0), Version(1))


def test_a_shard_that_has_other_weights_already_is_an_error() -> None:
    connections, parts = connect(2)
    load_state(connections[1:], parts[1:], numbered())
    with pytest.raises(LostError, match=r"shard 1 did not take its first weights: .*has its first weights already"):
        load_state(connections, parts, allocate(LAYOUT.bytes))


def test_a_shard_without_weights_gives_no_snapshot() -> None:
    connections, parts = connect(2)
    load_state(connections[:1], parts[:1], numbered())
    with pytest.raises(LostError, match="shard 1 gave no snapshot of boundary 2: the shard has no weights yet"):
        read_state(connections, LAYOUT, parts, Boundary(2))


class Refusing:
    """A shard that is gone."""

    def submit(
        self,
        request: Request,
        deliver: Deliver,
        payload: memoryview | None = None,
        into: Sequence[memoryview] = (),
    ) -> None:
        deliver(Refused(f"no way for {type(request).__name__}"), None)

    def begin(self, push: PushId, payload: memoryview) -> Upload:
        return LateUpload(self, payload)

    def close(self) -> None:
        """Nothing to close."""


def test_the_reason_of_the_plane_is_told() -> None:
    parts = partition(LAYOUT, 1)
    with pytest.raises(LostError, match="no way for Load"):
        load_state([Refusing()], parts, numbered())
    with pytest.raises(LostError, match="boundary 0: no way for Read"):
        read_state([Refusing()], LAYOUT, parts, Boundary(0))


def test_every_reply_has_its_future() -> None:
    connections, _ = connect(1)
    futures = [ask(connections[0], request) for request in (Inspect(), Load())]
    replies: list[Reply] = [future.result(0) for future in futures]
    assert [type(reply).__name__ for reply in replies] == ["Figures", "Refused"]
