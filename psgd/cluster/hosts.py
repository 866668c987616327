"""What runs inside shard, worker and evaluator actors: plain classes, made actors only where they are launched."""

import os
import threading
import time
from collections.abc import Callable, Sequence

import torch

from psgd.cluster.coordination import Beat
from psgd.config import Job
from psgd.coordinator.coordinator import BoundaryReached, Event
from psgd.core.ids import Boundary, Shard, Slot, Step
from psgd.core.membership import Membership
from psgd.core.messages import PeerMessage
from psgd.runlog import Notice, Timed
from psgd.shard.build import build_shard
from psgd.shard.queue import ThreadedQueue
from psgd.transport.base import PeerLink
from psgd.transport.key import JobKey
from psgd.transport.planes import Peers, ShardAddress, ShardDoors, connect, reach
from psgd.worker.build import build_worker, device_for
from psgd.worker.evaluator import Evaluated, Evaluator
from psgd.worker.session import Session, run_own_loop

BEAT_S = 0.25
"""Seconds between two signs of life of a worker; they carry what it has to tell."""


class _LatePeers:
    """The way to the other shards, once their addresses are known; what is told before is lost, as it may be."""

    def __init__(self) -> None:
        self._link: PeerLink | None = None

    def connect(self, link: PeerLink) -> None:
        self._link = link

    def tell(self, shard: int, message: PeerMessage) -> None:
        if self._link is not None:
            self._link.tell(shard, message)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()


class ShardHost:
    """One shard behind its servers.

    Args:
        listen_on: gives the address that this process listens on.
        report: tells the coordinator.
    """

    def __init__(
        self, job: Job, shard: Shard, key: JobKey, listen_on: Callable[[], str], report: Callable[[Event], None]
    ) -> None:
        self._job = job
        self._shard = shard
        self._key = key
        self._listen_on = listen_on
        self._report = report
        self._peers = _LatePeers()

    def open(self) -> ShardAddress:
        """Build the shard and serve it.

        Returns:
            Where it is to be reached.
        """
        job, shard = self._job, self._shard
        torch.set_num_threads(job.training.threads)
        self._doors = ShardDoors(job, job.parts()[shard], self._key, self._listen_on())
        cores = len(os.sched_getaffinity(0))
        self._queue = ThreadedQueue(
            build_shard(job, shard, self._doors.memory, cores, self._peers, self._reached, time.monotonic)
        )
        return self._doors.open(self._queue)

    def _reached(self, boundary: Boundary, step: Step) -> None:
        self._report(BoundaryReached(boundary, step))

    def connect(self, addresses: Sequence[ShardAddress]) -> None:
        """Learn the addresses of all shards."""
        self._peers.connect(Peers(self._shard, addresses, self._job, self._key))

    def serve(self) -> None:
        """Serve for as long as the process lives.

        Raises:
            Exception: whatever broke the shard, for example in a user's own optimizer.
        """
        self._queue.failure.result()


class WorkerHost:
    """One worker and its connections.

    Args:
        beat: takes the worker's signs of life.
    """

    def __init__(
        self, job: Job, number: int, membership: Membership, key: JobKey, beat: Callable[[Beat], None]
    ) -> None:
        self._job = job
        self._number = number
        self._membership = membership
        self._key = key
        self._beat = beat
        self._records: list[Timed] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def open(self, addresses: Sequence[ShardAddress]) -> None:
        """Attach to the shards; ``addresses`` are indexed by shard.

        Raises:
            ResourceError: if this process has no GPU, and should.
        """
        device_for(self._job.training.use_gpu)  # or refuse, before anything is computed
        slots = self._membership.slots_of(self._number)
        self._attachment, notices = reach(addresses, self._job, self._key, slots)
        for text in notices:
            self._observe(Notice(time.perf_counter(), f"worker {self._number}: {text}"))

    def run(self) -> None:
        """Run the slots until they have come to their end."""
        torch.set_num_threads(self._job.training.threads)  # of this thread, too
        beats = threading.Thread(target=self._keep_beating, name="psgd-beat", daemon=True)
        beats.start()
        try:
            self._run_slots()
        finally:
            self._ended.set()
            beats.join()
            self._attachment.close()

    def _run_slots(self) -> None:
        job = self._job
        if job.own_loop is None:
            build_worker(job, self._number, self._membership, self._attachment, self._observe).run()
            return
        for slot in self._membership.slots_of(self._number):
            run_own_loop(self._session(slot))

    def _session(self, slot: Slot) -> Session:
        incarnation = self._membership.incarnations[slot]
        return Session(self._job, self._number, slot, incarnation, self._attachment, self._observe)

    def _observe(self, record: Timed) -> None:
        with self._lock:
            self._records.append(record)

    def _keep_beating(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._send_beat()
        self._send_beat()

    def _send_beat(self) -> None:
        with self._lock:
            records, self._records = tuple(self._records), []
        incarnation = self._membership.incarnation_of(self._number)
        self._beat(Beat(self._number, incarnation, time.perf_counter(), records))


class EvaluatorHost:
    """The evaluator and its connections."""

    def __init__(self, job: Job, key: JobKey) -> None:
        self._job = job
        self._key = key

    def open(self, addresses: Sequence[ShardAddress]) -> None:
        """Connect to the shards, and get ready to measure; ``addresses`` are indexed by shard."""
        torch.set_num_threads(self._job.training.threads)
        self._evaluator = Evaluator(self._job, connect(addresses, self._job, self._key))

    def evaluate(self, boundary: Boundary) -> Evaluated:
        """Measure the boundary's snapshot."""
        return self._evaluator.evaluate(boundary)
