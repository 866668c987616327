"""Which plane goes where: a shard opens its doors, a worker takes the best one that is open to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from psgd.config import Job, Plane
from psgd.core.ids import Shard, Slot
from psgd.core.layout import Part
from psgd.core.messages import PeerMessage
from psgd.errors import LostError, ResourceError
from psgd.transport.attachment import Attachment, attach
from psgd.transport.base import Connection, Endpoint
from psgd.transport.key import JobKey
from psgd.transport.pinned import allocator
from psgd.transport.rpc import RpcConnection, RpcPeerLink, RpcServer
from psgd.transport.shm import Overlay, Segment, SegmentPool, ShmConnection, ShmPeer, ShmServer
from psgd.transport.shm.segment import PAGE


@dataclass(frozen=True, slots=True)
class ShardAddress:
    """Where a shard is to be reached.

    Args:
        rpc: ``host:port``, from everywhere.
        doorbell: the name of its doorbell, for those on its host; None: there is none.
        notice: why there is none, if there should be.
    """

    rpc: str
    doorbell: str | None
    notice: str | None = None


class ShardDoors:
    """A shard's memory, and its servers on the planes that its job uses.

    Args:
        part: what the shard holds.
        key: what everybody has to show.
        host: the address to listen on.

    Raises:
        ResourceError: if plane shm is wanted and there is too little memory for it.
    """

    def __init__(self, job: Job, part: Part, key: JobKey, host: str) -> None:
        self._job = job
        self._key = key
        self._host = host
        self._weights: tuple[Segment, int] | None = None
        self._shm: ShmServer | None = None
        self._notice: str | None = None
        self._for_gpu = job.shard_device != "cpu"
        shared = job.plane != "rpc" and _shows_weights(job)
        self.memory = self._share(part) if shared else self._allocate(part)
        """(part.bytes,) uint8, for the shard's weights."""

    def _share(self, part: Part) -> torch.Tensor:
        """Memory that workers may map: each of its pages is one of theirs, so it begins as far behind one's start."""
        offset = part.pushed.start % PAGE
        try:
            segment = Segment.create(offset + part.bytes)
        except ResourceError as error:
            if self._job.plane == "shm":
                raise
            self._notice = f"the shard is served by rpc alone: {error}"
            return self._allocate(part)
        memory = segment.memory[offset:]
        segment.seal_against_writers()
        if self._for_gpu:
            segment.pin()
        self._weights = segment, offset
        return memory

    def _allocate(self, part: Part) -> torch.Tensor:
        return allocator(self._for_gpu)(part.bytes)

    def open(self, endpoint: Endpoint) -> ShardAddress:
        """Serve the shard."""
        rules = self._job.rules
        self._rpc = RpcServer(
            endpoint,
            key=self._key,
            host=self._host,
            slots=rules.slots,
            weights_stand=rules.mode.weights_stand,
            peers=rules.shards - 1,
        )
        if self._job.plane == "rpc" or self._notice is not None:
            return ShardAddress(self._rpc.address, None, self._notice)
        self._shm = ShmServer(
            self._rpc.endpoint, key=self._key, slots=rules.slots, weights=self._weights, for_gpu=self._for_gpu
        )
        return ShardAddress(self._rpc.address, self._shm.name)

    def close(self) -> None:
        """Let everybody go."""
        self._rpc.close()
        if self._shm is not None:
            self._shm.close()


class Peers:
    """A shard's way to all others: through their doorbells where these are on its host, by rpc elsewhere.

    Args:
        shard: which one this is.
        addresses: of all shards, indexed by shard.
    """

    def __init__(self, shard: int, addresses: Sequence[ShardAddress], job: Job, key: JobKey) -> None:
        self._near: dict[int, ShmPeer] = {}
        far: dict[int, str] = {}
        for other, address in enumerate(addresses):
            if other == shard:
                continue
            near = None if address.doorbell is None or job.plane == "rpc" else _near(address.doorbell, key)
            if near is None:
                far[other] = address.rpc
            else:
                self._near[other] = near
        self._far = RpcPeerLink(far, key=key)

    def tell(self, shard: int, message: PeerMessage) -> None:
        """Send without waiting; a message that does not arrive is lost."""
        near = self._near.get(shard)
        if near is None:
            self._far.tell(shard, message)
        else:
            near.tell(message)

    def close(self) -> None:
        """Stop sending."""
        self._far.close()
        for near in self._near.values():
            near.close()


def _near(doorbell: str, key: JobKey) -> ShmPeer | None:
    """The other shard, if it is on this host."""
    try:
        return ShmPeer(doorbell, key=key)
    except LostError:
        return None


def connect(addresses: Sequence[ShardAddress], job: Job, key: JobKey) -> list[Connection]:
    """A way to every shard, indexed by shard, for a party that only asks, such as the driver or the evaluator.

    It rings at the shards on its host, and calls the others: also with plane shm, which is about workers. Bytes for
    which there is too little shared memory at the time travel by rpc.
    """
    plane: Plane = "rpc" if job.plane == "rpc" else "auto"
    pool = SegmentPool()
    return [_connect(shard, address, plane, key, pool) for shard, address in enumerate(addresses)]


def reach(
    addresses: Sequence[ShardAddress], job: Job, key: JobKey, slots: Iterable[Slot]
) -> tuple[Attachment, list[str]]:
    """Attach a worker to all shards: by shared memory to those on its host, by rpc to the others.

    Args:
        addresses: indexed by shard.
        slots: that the worker runs.

    Returns:
        The attachment, and what the user should know about it.

    Raises:
        ResourceError: if plane shm is wanted, but a shard is on another host or there is too little memory.
    """
    slots = tuple(slots)
    pool = SegmentPool(for_gpu=job.training.use_gpu)
    connections: list[Connection] = []
    try:
        for shard, address in enumerate(addresses):
            connections.append(_connect(shard, address, job.plane, key, pool))
        near = [connection for connection in connections if isinstance(connection, ShmConnection)]
        if not near:
            return attach(connections, job, slots), []
        overlay, shown = _overlay(connections, job)
        attachment = attach(
            connections,
            job,
            slots,
            allocate_shared=pool.allocate,
            weights=None if overlay is None else overlay.memory,
        )
        if overlay is None:
            return attachment, []
        return replace(attachment, find_written=overlay.written, read_in_place=shown), []
    except ResourceError as error:
        for connection in connections:
            connection.close()
        if job.plane == "shm":
            raise
        notice = f"a worker uses rpc, though shards are on its host: {error}"
        connections = [_connect(shard, address, "rpc", key, pool) for shard, address in enumerate(addresses)]
        return attach(connections, job, slots), [notice]


def _shows_weights(job: Job) -> bool:
    """Whether shards let workers on their host read weights where they are: they stand still, and are written as is."""
    return job.rules.mode.weights_stand and job.wire == "float32"


def _connect(shard: int, address: ShardAddress, plane: Plane, key: JobKey, pool: SegmentPool) -> Connection:
    """The doorbell, if it is on this host; that it can be rung proves it."""
    call = partial(RpcConnection, address.rpc, shard=shard, key=key)
    if plane == "rpc":
        return call()
    reason = "it has no doorbell"
    if address.doorbell is not None:
        spare = None if plane == "shm" else call
        try:
            return ShmConnection(address.doorbell, shard=shard, key=key, pool=pool, make_spare=spare)
        except LostError as error:
            reason = str(error)
    if plane == "shm":
        raise ResourceError(f"plane shm wants every worker on the host of every shard: {reason}; use plane auto")
    return call()


def _overlay(connections: Sequence[Connection], job: Job) -> tuple[Overlay | None, frozenset[Shard]]:
    """The flat space that shows the shards' own memory, if they show it; and which of them do."""
    if job.training.use_gpu or not _shows_weights(job):  # to pin a private mapping would cut it off from the shard's
        return None, frozenset()
    overlay = Overlay(job.layout.bytes)
    shown = {
        Shard(shard)
        for shard, (connection, part) in enumerate(zip(connections, job.parts(), strict=True))
        if isinstance(connection, ShmConnection) and connection.lay_weights(overlay, part.pushed.start)
    }
    return overlay, frozenset(shown)
