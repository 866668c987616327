import gc
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from psgd.config import Job
from psgd.core.ids import LEAD, Boundary, Shard, Slot, Step
from psgd.core.messages import (
    Commit,
    Confirm,
    Held,
    Inspect,
    Load,
    Loaded,
    PeerMessage,
    Push,
    Read,
    Refused,
    Request,
)
from psgd.core.modes import Async, Mode, Sync
from psgd.errors import ResourceError
from psgd.shard.shard import ParameterShard
from psgd.transport.base import Connection
from psgd.transport.flat import sha256, view_bytes
from psgd.transport.key import JobKey
from psgd.transport.planes import Peers, ShardAddress, ShardDoors, connect, reach
from psgd.transport.rpc import RpcConnection
from psgd.transport.shm import Overlay, Segment, ShmConnection
from psgd.transport.shm.segment import PAGE
from psgd.transport.wire_format import WireFormat
from tests.jobs import make_job
from tests.transport.scripted import PATIENCE_S, ScriptedEndpoint, answers, ask, pull, push
from tests.transport.shm.footprint import footprint, visits_end
from tests.worker.own_loops import shards_of

KEY = JobKey("job-1", "a-secret")
SLOTS = (Slot(0), Slot(2))
Health = health_pb2.HealthCheckResponse


class Host:
    """The doors of a job's shards, all on this host, before scripted endpoints."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.doors = [ShardDoors(job, part, KEY, "127.0.0.1") for part in job.parts()]
        self.endpoints = []
        for part, door in zip(job.parts(), self.doors, strict=True):
            endpoint = ScriptedEndpoint()
            endpoint.sizes = WireFormat(job.layout, part, job.wire).sizes
            endpoint.whole = view_bytes(door.memory)  # type: ignore[assignment]
            self.endpoints.append(endpoint)
        self.addresses = [door.open(endpoint) for door, endpoint in zip(self.doors, self.endpoints, strict=True)]

    def close(self) -> None:
        for door in self.doors:
            door.close()
        gc.collect()  # a scripted endpoint remembers what arrived, which remembers whom to answer


Open = Callable[[Job], Host]


@pytest.fixture
def open_() -> Iterator[Open]:
    hosts: list[Host] = []

    def make(job: Job) -> Host:
        hosts.append(Host(job))
        return hosts[-1]

    yield make
    for host in hosts:
        host.close()


def a_job(plane: str, mode: Mode = Sync(), shards: int = 2, wire: str = "float32") -> Job:  # noqa: B008, frozen
    return replace(make_job(mode=mode, shards=shards), plane=plane, wire=wire)  # type: ignore[arg-type]


def elsewhere(address: ShardAddress) -> ShardAddress:
    """As a worker on another host sees it: the doorbell's name means nothing there."""
    return replace(address, doorbell="psgd-on-another-host")


def short_of_memory(size: int) -> Segment:
    raise ResourceError(f"{size} bytes of shared memory are wanted, 7 bytes are available")


# ------------------------------------------------------------------ doors


@pytest.mark.parametrize("mode", [Sync(), Sync(backups=1), Async()])
def test_a_shard_opens_both_doors(open_: Open, mode: Mode) -> None:
    for address in open_(a_job("auto", mode)).addresses:
        assert address.rpc.startswith("127.0.0.1:")
        assert address.doorbell is not None
        assert address.notice is None


def test_plane_rpc_has_no_doorbell_and_no_shared_memory(open_: Open) -> None:
    before = footprint().segments
    host = open_(a_job("rpc"))
    assert [(address.doorbell, address.notice) for address in host.addresses] == [(None, None)] * 2
    assert footprint().segments == before


@pytest.mark.parametrize("mode", [Sync(backups=1), Async(), Async(staleness=1)])
def test_weights_that_do_not_stand_are_not_shown(open_: Open, mode: Mode) -> None:
    before = footprint().segments
    open_(a_job("shm", mode))
    assert footprint().segments == before


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_shards_memory_begins_as_far_behind_a_page_as_its_part_does(open_: Open, shards: int) -> None:
    host = open_(a_job("shm", shards=shards))
    for part, door in zip(host.job.parts(), host.doors, strict=True):
        assert door.memory.shape == (part.bytes,)
        assert door.memory.data_ptr() % PAGE == part.pushed.start % PAGE
        assert not door.memory.any()


def test_a_shard_without_memory_to_share_says_so_and_is_served_by_rpc(
    open_: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "create", short_of_memory)
        host = open_(a_job("auto"))
    part = host.job.parts()[0]
    assert host.addresses[0].doorbell is None
    assert host.addresses[0].notice == (
        f"the shard is served by rpc alone: {part.bytes} bytes of shared memory are wanted, 7 bytes are available"
    )
    assert host.doors[0].memory.shape == (part.bytes,)
    attachment, notices = reach(host.addresses, host.job, KEY, SLOTS)
    assert [type(connection) for connection in attachment.connections] == [RpcConnection] * 2
    assert notices == []
    attachment.close()


def test_plane_shm_does_not_begin_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_job("shm")
    monkeypatch.setattr(Segment, "create", short_of_memory)
    with pytest.raises(ResourceError, match="7 bytes are available"):
        ShardDoors(job, job.parts()[0], KEY, "127.0.0.1")


def health_of(address: ShardAddress) -> int:
    with grpc.insecure_channel(address.rpc) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status
    return int(status)


@pytest.mark.parametrize("plane", ["auto", "rpc"])
@pytest.mark.parametrize("reply", [Loaded(), Refused("the shard has its first weights already")])
def test_a_shard_is_serving_once_it_has_weights_whichever_door_they_came_through(
    open_: Open, plane: str, reply: Loaded | Refused
) -> None:
    host = open_(a_job(plane, shards=1))
    host.endpoints[0].answer = lambda request: reply if isinstance(request, Load) else answers(request)
    [connection] = connect(host.addresses, host.job, KEY)
    assert ask(connection, Inspect())[0] == answers(Inspect())
    assert health_of(host.addresses[0]) == Health.NOT_SERVING
    assert ask(connection, Load(), bytes(host.job.layout.bytes))[0] == reply
    assert health_of(host.addresses[0]) == (Health.SERVING if reply == Loaded() else Health.NOT_SERVING)
    connection.close()


# ------------------------------------------------------------------ parties that only ask


def read_all(host: Host, connections: Sequence[Connection]) -> None:
    """Load every shard, and read what it holds then."""
    for shard, (connection, part) in enumerate(zip(connections, host.job.parts(), strict=True)):
        assert ask(connection, Load(), bytes([shard + 1]) * part.bytes) == (Loaded(), None)
        assert host.endpoints[shard].arrivals[-1].payload == bytes([shard + 1]) * part.bytes
        host.doors[shard].memory.fill_(shard + 1)
        into = bytearray(part.bytes)
        assert ask(connection, Read(Boundary(3)), into=into)[0] == answers(Read(Boundary(3)))
        assert into == bytes([shard + 1]) * part.bytes


@pytest.mark.parametrize("plane", ["auto", "shm"])
@pytest.mark.parametrize("mode", [Sync(), Sync(backups=1), Async()])
def test_who_asks_on_the_host_of_the_shards_needs_no_rpc(open_: Open, plane: str, mode: Mode) -> None:
    host = open_(a_job(plane, mode))
    deaf = [replace(address, rpc="127.0.0.1:1") for address in host.addresses]
    connections = connect(deaf, host.job, KEY)
    assert [type(connection) for connection in connections] == [ShmConnection] * 2
    read_all(host, connections)
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("open_as", ["auto", "rpc"])
def test_with_plane_rpc_shards_are_asked_by_rpc(open_: Open, open_as: str) -> None:
    host = open_(a_job(open_as))
    connections = connect(host.addresses, replace(host.job, plane="rpc"), KEY)
    assert [type(connection) for connection in connections] == [RpcConnection] * 2
    read_all(host, connections)
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("plane", ["auto", "shm"])
@pytest.mark.parametrize("lacking", [None, "psgd-on-another-host"])
def test_shards_elsewhere_are_asked_by_rpc_whatever_workers_have_to_do(
    open_: Open, plane: str, lacking: str | None
) -> None:
    host = open_(a_job(plane))
    connections = connect([host.addresses[0], replace(host.addresses[1], doorbell=lacking)], host.job, KEY)
    assert [type(connection) for connection in connections] == [ShmConnection, RpcConnection]
    read_all(host, connections)
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("plane", ["auto", "shm"])
def test_bytes_for_which_memory_is_short_at_the_time_travel_by_rpc_and_a_warning_says_so(
    open_: Open, plane: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    host = open_(a_job(plane))
    connections = connect(host.addresses, host.job, KEY)
    with monkeypatch.context() as patch:
        patch.setattr(Segment, "create", short_of_memory)
        read_all(host, connections)
        assert ask(connections[0], Inspect()) == (answers(Inspect()), None)
    assert len(caplog.messages) == 2  # one a shard
    for shard, line in enumerate(caplog.messages):
        size = host.job.parts()[shard].bytes
        assert line == (
            f"shard {shard} at unix:@{host.addresses[shard].doorbell} is asked on another plane: "
            f"{size} bytes of shared memory are wanted, 7 bytes are available"
        )
    read_all(host, connections)
    for connection in connections:
        connection.close()


def test_who_has_asked_leaves_nothing_behind(open_: Open) -> None:
    host = open_(a_job("auto"))
    before = footprint()
    connections = connect(host.addresses, host.job, KEY)
    assert footprint().threads > before.threads
    read_all(host, connections)
    for connection in connections:
        connection.close()
    for endpoint in host.endpoints:
        while endpoint.arrivals:  # they remember whom to answer, and where
            endpoint.arrivals.pop()
            endpoint.next_arrival()
    del connections, connection
    visits_end()
    assert footprint() == before


# ------------------------------------------------------------------ workers


@pytest.mark.parametrize("plane", ["auto", "shm"])
@pytest.mark.parametrize("mode", [Sync(), Sync(backups=1), Async()])
def test_a_worker_on_the_host_of_the_shards_shares_memory(open_: Open, plane: str, mode: Mode) -> None:
    host = open_(a_job(plane, mode))
    attachment, notices = reach(host.addresses, host.job, KEY, SLOTS)
    assert [type(connection) for connection in attachment.connections] == [ShmConnection] * 2
    assert notices == []
    assert list(attachment.sent) == list(SLOTS)
    for memory in attachment.sent.values():
        assert (memory.shape, memory.any().item()) == ((host.job.layout.pushed_bytes,), False)
    assert attachment.weights.shape == (host.job.layout.bytes,)
    assert attachment.read_in_place == ({0, 1} if mode == Sync() else set())
    attachment.close()


@pytest.mark.parametrize("mode", [Sync(), Async()])
@pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8"])
def test_pushes_and_pulls_of_a_worker_on_the_host_lend_nothing(
    open_: Open, mode: Mode, wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = open_(a_job("shm", mode, wire=wire))
    attachment, _ = reach(host.addresses, host.job, KEY, SLOTS)
    monkeypatch.setattr(Segment, "create", short_of_memory)
    for shard, connection in enumerate(attachment.connections):
        sent, received = attachment.wire.pushes[shard], attachment.wire.pulls[shard]
        payload = view_bytes(attachment.sent[SLOTS[0]][sent.start : sent.stop])
        assert ask(connection, push(), payload)[0] == answers(push())
        into = view_bytes(attachment.received[received.start : received.stop])
        host.endpoints[shard].answer = answers
        host.endpoints[shard].whole = bytearray(into.nbytes)
        reply, _ = ask(connection, pull(), into=into)  # type: ignore[arg-type]
        assert reply == answers(pull())
        assert isinstance(host.endpoints[shard].arrivals[0].request, Push)
    attachment.close()


def test_the_weights_are_the_shards_memory_where_they_stand(open_: Open) -> None:
    host = open_(a_job("shm"))
    attachment, _ = reach(host.addresses, host.job, KEY, SLOTS)
    for door in host.doors:
        door.memory.fill_(3)
    for part in host.job.parts():
        first, last = -(-part.pushed.start // PAGE) * PAGE, part.pushed.stop // PAGE * PAGE
        assert last - first >= PAGE
        assert attachment.weights[first:last].tolist() == [3] * (last - first)
    attachment.close()


def test_a_worker_on_another_host_uses_rpc(open_: Open) -> None:
    host = open_(a_job("auto"))
    attachment, notices = reach([elsewhere(address) for address in host.addresses], host.job, KEY, SLOTS)
    assert [type(connection) for connection in attachment.connections] == [RpcConnection] * 2
    assert notices == []  # as it should be
    assert ask(attachment.connections[0], pull())[0] == answers(pull())
    attachment.close()


def test_each_shard_is_reached_the_best_way(open_: Open) -> None:
    host = open_(a_job("auto"))
    addresses = [host.addresses[0], elsewhere(host.addresses[1])]
    attachment, notices = reach(addresses, host.job, KEY, SLOTS)
    assert [type(connection) for connection in attachment.connections] == [ShmConnection, RpcConnection]
    assert attachment.read_in_place == {0}
    assert notices == []
    host.doors[0].memory.fill_(1)
    host.doors[1].memory.fill_(2)
    for shard, connection in enumerate(attachment.connections):
        span = attachment.wire.pulls[shard]
        into = view_bytes(attachment.received[span.start : span.stop])
        assert ask(connection, pull(), into=into)[0] == answers(pull())  # type: ignore[arg-type]
        assert attachment.weights[span.start : span.stop].tolist() == [shard + 1] * span.bytes
    attachment.close()


def test_plane_rpc_rings_no_doorbell(open_: Open) -> None:
    host = open_(a_job("auto"))
    attachment, _ = reach(host.addresses, replace(host.job, plane="rpc"), KEY, SLOTS)
    assert [type(connection) for connection in attachment.connections] == [RpcConnection] * 2
    attachment.close()


@pytest.mark.parametrize("lacking", [0, 1])
def test_plane_shm_wants_every_shard_on_the_host_and_leaves_nothing_open(open_: Open, lacking: int) -> None:
    host = open_(a_job("shm"))
    addresses = list(host.addresses)
    addresses[lacking] = elsewhere(addresses[lacking])
    before = footprint()
    expected = (
        rf"^plane shm wants every worker on the host of every shard: shard {lacking} at unix:@psgd-on-another-host can "
        "not be reached: .*Connection refused; use plane auto$"
    )
    with pytest.raises(ResourceError, match=expected):
        reach(addresses, host.job, KEY, SLOTS)
    visits_end()
    assert footprint() == before


def test_plane_shm_wants_a_doorbell(open_: Open) -> None:
    host = open_(a_job("shm", shards=1))
    with pytest.raises(ResourceError, match=r"of every shard: it has no doorbell; use plane auto$"):
        reach([replace(host.addresses[0], doorbell=None)], host.job, KEY, SLOTS)


def overlay_refused(overlay: Overlay, *_: int) -> tuple[int, int]:
    raise ResourceError("the shard's weights can not be mapped: Cannot allocate memory")


SHORT = [(Segment, "create", short_of_memory), (Overlay, "lay", overlay_refused)]


@pytest.mark.parametrize(("owner", "name", "refusal"), SHORT)
def test_a_worker_without_memory_to_share_uses_rpc_and_says_so(
    open_: Open, owner: type, name: str, refusal: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = open_(a_job("auto"))
    before = footprint()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refusal)
        attachment, notices = reach(host.addresses, host.job, KEY, SLOTS)
    assert [type(connection) for connection in attachment.connections] == [RpcConnection] * 2
    [notice] = notices
    assert notice.startswith("a worker uses rpc, though shards are on its host: ")
    visits_end()
    assert (footprint().segments, footprint().threads) == (before.segments, before.threads)
    attachment.close()


@pytest.mark.parametrize(("owner", "name", "refusal"), SHORT)
def test_plane_shm_without_memory_is_an_error_and_leaves_nothing_open(
    open_: Open, owner: type, name: str, refusal: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = open_(a_job("shm"))
    before = footprint()
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refusal)
        with pytest.raises(ResourceError, match=r"7 bytes are available|can not be mapped"):
            reach(host.addresses, host.job, KEY, SLOTS)
    visits_end()
    assert footprint() == before


def test_a_worker_that_does_not_hold_the_key_gets_no_memory(open_: Open) -> None:
    host = open_(a_job("shm", shards=1))
    with pytest.raises(ResourceError, match="a hello without the token of job job-1; use plane auto") as raised:
        reach(host.addresses, host.job, JobKey("job-1", "guessed"), SLOTS)
    assert "guessed" not in str(raised.value)


def test_closing_an_attachment_and_the_doors_leaves_nothing() -> None:
    gc.collect()
    before = footprint()
    host = Host(a_job("auto"))
    attachment, _ = reach(host.addresses, host.job, KEY, SLOTS)
    attachment.close()
    host.close()
    del attachment, host
    gc.collect()  # gRPC's servers are circles
    after = footprint()
    assert (after.segments, after.mappings, after.threads) == (before.segments, before.mappings, before.threads)


# ------------------------------------------------------------------ shards among themselves


@pytest.mark.parametrize("plane", ["shm", "rpc"])
def test_messages_about_slots_and_shards_that_the_job_does_not_have_change_nothing(
    plane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(make_job(slots=2, shards=2), plane=plane)  # type: ignore[arg-type]
    strange: list[PeerMessage] = [
        *(Held(Shard(shard), Slot(slot), Step(0), finite=True) for slot in (2, 3) for shard in (0, 1)),
        *(Held(Shard(2), Slot(slot), Step(0), finite=True) for slot in (0, 1)),
        Commit(Step(0), (Slot(0), Slot(2)), update=True),
        Confirm(Shard(2), Step(0)),
    ]
    heard: queue.SimpleQueue[Request] = queue.SimpleQueue()
    submit = ParameterShard.submit

    def note(self: ParameterShard, request: Request, *rest: Any) -> None:
        submit(self, request, *rest)
        if request in strange:
            heard.put(request)

    with shards_of(job) as undisturbed:
        undisturbed.train()
        expected = sha256(undisturbed.weights)
    monkeypatch.setattr(ParameterShard, "submit", note)
    with shards_of(job) as shards:
        stranger = Peers(1, shards.addresses, job, KEY)
        for message in strange:
            stranger.tell(LEAD, message)
        assert [heard.get(timeout=PATIENCE_S) for _ in strange] == strange
        shards.train()
        assert sha256(shards.weights) == expected
        stranger.close()
