"""A cluster in virtual time: servers, workers that may fail, and the coordinator that says what follows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, assert_never

import numpy as np

from psgd.coordinator.coordinator import (
    BoundaryReached,
    Coordinator,
    Decision,
    EvaluateSnapshot,
    Event,
    FailRun,
    FinishRun,
    Log,
    ReplaceWorker,
    SaveSnapshot,
    SettleBoundary,
    SnapshotEvaluated,
    TrainingBegan,
    WorkerEnded,
    WorkerLost,
)
from psgd.core.ids import LEAD, Boundary, Shard, Step
from psgd.core.membership import Membership
from psgd.core.messages import Announce, Figures, Inspect, Read, Reply, Request, Settle
from psgd.core.modes import Rules
from psgd.errors import InternalError, LostError
from psgd.runlog import Notice, Timed
from psgd.shard.shard import OnBoundary
from psgd.simulation.agenda import Agenda
from psgd.simulation.compute_times import ComputeTimes
from psgd.simulation.failures import Failures
from psgd.simulation.network import Network, Node
from psgd.simulation.plane import SimulatedConnection, SimulatedPeers
from psgd.simulation.server import Server, SimulatedShard
from psgd.simulation.world import World
from psgd.transport.base import Connection, PeerLink, nobody_waits
from psgd.transport.memory import MemoryConnection
from psgd.transport.state import ask
from psgd.worker.loop import Pace, Worker

MakeShard = Callable[[Shard, PeerLink, OnBoundary], SimulatedShard]
Hire = Callable[[int, Membership, Sequence[Connection], Pace], Worker[Any]]
"""(number, membership, connections by shard, pace) to a worker that has not started."""
FRUITLESS_FAILURES = 100
"""Of each worker on average, within which no iteration has ended: then none may ever."""
SURVIVES_ALL = -1
"""Failures of workers: a simulated run goes on however many there are."""


class Performer(Protocol):
    """Does what the coordinator decides about evaluations and the log."""

    def evaluate(self, boundary: Boundary) -> SnapshotEvaluated:
        """Measure the snapshot as it is now."""

    def save(self, decision: SaveSnapshot) -> None:
        """Keep the weights that were measured."""

    def log(self, record: Timed) -> None:
        """Write the record, with the virtual time."""


class VirtualCluster:
    """All parties of one run, in virtual time.

    Args:
        compute_times: of all slots.
        make_shard: makes a shard.
        hire: makes a worker.
        seed: of everything random but compute times.
    """

    def __init__(
        self,
        rules: Rules,
        world: World,
        agenda: Agenda,
        coordinator: Coordinator,
        compute_times: ComputeTimes,
        make_shard: MakeShard,
        hire: Hire,
        performer: Performer,
        seed: int,
    ) -> None:
        self._world = world
        self._agenda = agenda
        self._coordinator = coordinator
        self._compute_times = compute_times
        self._hire = hire
        self._performer = performer
        self._failures = Failures(world, seed)
        self._generator = np.random.default_rng([seed, 2**32 - 1])  # compute times have a slot in this place
        self._network = Network(agenda, world.latency, world.bandwidth, self._generator)
        self._shard_nodes = [Node() for _ in range(rules.shards)]
        self._servers: dict[int, Server] = {}
        for number in range(rules.shards):
            peers = SimulatedPeers(self._network, number, self._servers, self._shard_nodes)
            shard = make_shard(Shard(number), peers, self._reached)
            self._servers[number] = Server(shard, agenda, world.service, world.update, self._generator)
        self._workers: dict[int, Worker[Any]] = {}
        self._connections: dict[int, list[SimulatedConnection]] = {}
        self._fruitless = 0
        self._ended_iterations = 0
        self._ended = False

    @property
    def shards(self) -> list[SimulatedShard]:
        """By number."""
        return [server.shard for _, server in sorted(self._servers.items())]

    def run(self, workers: int) -> float:
        """Let things happen until the coordinator says that all is done.

        Returns:
            Seconds that the run took.

        Raises:
            LostError: if the run can not go on.
        """
        self._take(TrainingBegan())
        for number in range(workers):
            self._start(number, self._coordinator.membership)
        while not self._ended:
            if not self._agenda.advance():
                raise InternalError("nobody can go on, and the run has not ended")
        ended_at = self._agenda.now
        while self._agenda.advance():  # the last commit may be on its way to other shards than the lead
            pass
        return ended_at

    # ------------------------------------------------------------------ workers

    def _start(self, number: int, membership: Membership) -> None:
        node, wake = Node(), partial(self._wake, number)
        connections = [
            SimulatedConnection(self._network, node, self._shard_nodes[shard], server, wake)
            for shard, server in sorted(self._servers.items())
        ]
        self._connections[number] = connections
        self._workers[number] = self._hire(number, membership, connections, partial(self._pace, number, connections))
        self._workers[number].start()
        lifetime = self._failures.lifetime(number)
        if math.isfinite(lifetime):
            self._agenda.after(lifetime, partial(self._fail, number, node, connections))

    def _wake(self, number: int) -> None:
        """Let a worker do what it can, behind each reply and each computation: there is never more for it to take."""
        worker = self._workers[number]
        worker.advance(timeout_s=0)
        if worker.done:
            self._dismiss(number)
            self._agenda.soon(partial(self._take, WorkerEnded(number)))

    def _pace(
        self,
        number: int,
        connections: Sequence[SimulatedConnection],
        step: int,
        slot: int,
        _seconds: float,
        resume: Callable[[float], None],
    ) -> None:
        """A computation takes what the world says, not what it has taken here."""
        took = self._compute_times.draw(step, slot)
        self._agenda.after(took, partial(self._resume, number, connections, took, resume))

    def _resume(
        self,
        number: int,
        connections: Sequence[SimulatedConnection],
        took: float,
        resume: Callable[[float], None],
    ) -> None:
        if self._connections.get(number) is connections:  # or it has failed meanwhile
            resume(took)
            self._wake(number)

    def _dismiss(self, number: int) -> None:
        for connection in self._connections.pop(number):
            connection.close()
        del self._workers[number]

    def _fail(self, number: int, node: Node, connections: Sequence[SimulatedConnection]) -> None:
        if self._connections.get(number) is connections:  # or it has ended
            self._network.fail(node)
            self._dismiss(number)
            self._check_progress()
            lost = WorkerLost(number, f"failed at {self._agenda.now:.6g} s")
            self._agenda.after(self._failures.downtime(number), partial(self._take, lost))

    def _check_progress(self) -> None:
        """Give up where workers fail faster than they can compute: virtual time has no end by itself."""
        figures = ask(MemoryConnection(self._servers[LEAD].shard), Inspect()).result()
        if isinstance(figures, Figures) and figures.accepted + figures.dropped > self._ended_iterations:
            self._ended_iterations, self._fruitless = figures.accepted + figures.dropped, 0
        self._fruitless += 1
        if self._fruitless > FRUITLESS_FAILURES * (1 + max(self._coordinator.membership.workers)):
            raise LostError(
                f"no iteration has ended since workers have failed {self._fruitless - 1} times: mtbf must be longer "
                f"than an iteration takes, got {self._world.mtbf:g} s"
            )

    # ------------------------------------------------------------------ the coordinator

    def _reached(self, boundary: Boundary, step: Step) -> None:
        self._agenda.soon(partial(self._take, BoundaryReached(boundary, step)))

    def _take(self, event: Event) -> None:
        for decision in self._coordinator.handle(event, self._agenda.now):
            self._perform(decision)

    def _perform(self, decision: Decision) -> None:
        match decision:
            case EvaluateSnapshot(boundary):
                self._have_kept(boundary)
            case SaveSnapshot():
                self._performer.save(decision)
            case SettleBoundary(boundary, stop, lr_factor):
                self._ask(self._servers[LEAD], Settle(boundary, stop, lr_factor))
            case Log(record):
                self._performer.log(record)
            case ReplaceWorker(worker, membership, reason):
                self._performer.log(Notice(0.0, f"worker {worker} was lost and is replaced: {reason}"))
                for server in self._servers.values():
                    self._ask(server, Announce(membership.generation, membership.incarnations))
                self._start(worker, membership)
            case FinishRun():
                self._ended = True
            case FailRun(reason):
                raise LostError(reason)
            case _:
                assert_never(decision)

    def _have_kept(self, boundary: Boundary) -> None:
        """Let every shard keep the boundary's snapshot, as soon as it has come to it; then have them measured."""
        missing = set(self._servers)

        def kept(number: int, _reply: Reply, _payload: memoryview | None) -> None:
            missing.discard(number)
            if not missing:
                self._agenda.soon(partial(self._evaluate, boundary))

        for number, server in self._servers.items():
            server.arrive(partial(server.shard.submit, Read(boundary, keep=True), partial(kept, number)))

    def _evaluate(self, boundary: Boundary) -> None:
        seconds = self._world.evaluation.draw(self._generator)
        done = replace(self._performer.evaluate(boundary), seconds=seconds)
        self._agenda.after(seconds, partial(self._take, done))

    def _ask(self, server: Server, request: Request) -> None:
        server.arrive(partial(server.shard.submit, request, nobody_waits))
