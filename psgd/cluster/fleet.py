"""The fleet: every actor of a job, from plain classes to Ray actors, where each goes and what it reserves."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from psgd.cluster.coordination import Beat, CoordinatorHost
from psgd.cluster.hosts import EvaluatorHost, ShardHost, WorkerHost
from psgd.cluster.places import Places
from psgd.cluster.resources import Need
from psgd.config import Job, Placement
from psgd.coordinator.coordinator import Coordinator, Event
from psgd.core.ids import Shard
from psgd.core.membership import Membership
from psgd.errors import LostError
from psgd.transport.key import JobKey
from psgd.transport.planes import ShardAddress

STARTED_WITHIN_S = 300.0
"""An actor imports torch and builds the user's model, on a busy machine perhaps beside many others."""

Actor = Any
"""A Ray actor handle; its methods are the plain class' with `.remote`, which no type checker sees."""
Reference: TypeAlias = "ray.ObjectRef[Any]"


class Fleet:
    """Starts, replaces and ends the actors of one job; they all belong to the driver.

    Args:
        key: shown with every message on the plane.
        listen_on: gives, in a shard's process, the address that it listens on.
    """

    def __init__(self, job: Job, placement: Placement, key: JobKey, listen_on: Callable[[], str]) -> None:
        self._job = job
        self._placement = placement
        self._key = key
        self._listen_on = listen_on
        self._here = ray.get_runtime_context().get_node_id()
        self._places = Places(Need.of(job, placement))
        self.coordinator: Actor = None
        self.shards: list[Actor] = []
        self.workers: dict[int, Actor] = {}
        self.evaluator: Actor | None = None
        self._addresses: Sequence[ShardAddress] = ()

    def start(self, coordinator: Coordinator) -> None:
        """Let all processes start at once: each takes seconds to import torch.

        Raises:
            ResourceError: if Ray can not place them.
        """
        job, placement = self._job, self._placement
        without_data = replace(job, data=None, evaluation_data=None)
        self._places.reserve()
        # Everybody reports to it, and one call at a time waits in `collect`.
        self.coordinator = self._start(CoordinatorHost, (coordinator,), self._on_this_node(), max_concurrency=8)
        report = partial(_tell, self.coordinator)
        for k in range(job.rules.shards):
            # Two calls at a time: one serves until the end.
            arguments = (without_data, Shard(k), self._key, self._listen_on, report)
            self.shards.append(
                self._start(
                    ShardHost,
                    arguments,
                    self._places.shard(k),
                    num_cpus=placement.cpus_per_shard,
                    num_gpus=placement.gpus_per_shard,
                    max_concurrency=2,
                )
            )
        for number in range(job.workers):
            self._start_worker(number, coordinator.membership)
        if job.evaluation_data is not None:
            self.evaluator = self._start(EvaluatorHost, (job, self._key), self._on_this_node())

    def open_shards(self) -> Sequence[ShardAddress]:
        """Let the shards serve, and know each other.

        Returns:
            Their addresses, indexed by shard.
        """
        self._addresses = fetch([shard.open.remote() for shard in self.shards])
        fetch([shard.connect.remote(self._addresses) for shard in self.shards])
        return self._addresses

    def open_workers(self) -> None:
        """Connect workers and evaluator to the shards, side by side, and let the evaluator get ready to measure."""
        everyone = [*self.workers.values(), *([] if self.evaluator is None else [self.evaluator])]
        fetch([actor.open.remote(self._addresses) for actor in everyone])

    def replace_worker(self, number: int, membership: Membership) -> Reference:
        """Start the worker's next incarnation in its place; it will connect before it does anything else.

        Returns:
            Whether it could.
        """
        self._start_worker(number, membership)
        opened: Reference = self.workers[number].open.remote(self._addresses)
        return opened

    def _start_worker(self, number: int, membership: Membership) -> None:
        beat = partial(_beat, self.coordinator)
        placement = self._placement
        self.workers[number] = self._start(
            WorkerHost,
            (self._job, number, membership, self._key, beat),
            self._places.worker(number),
            num_cpus=placement.cpus_per_worker,
            num_gpus=placement.gpus_per_worker,
        )

    def kill_worker(self, number: int) -> None:
        """Make sure that the worker's process is gone."""
        ray.kill(self.workers.pop(number))

    def close(self) -> None:
        """End every actor and give back what is reserved."""
        everyone = [*self.workers.values(), *self.shards, self.evaluator, self.coordinator]
        with ExitStack() as ending:  # each is tried, whatever becomes of the others
            ending.callback(self._places.release)
            for actor in everyone:
                if actor is not None:
                    ending.callback(ray.kill, actor)

    def _start(self, plain: type, arguments: tuple[Any, ...], where: Any, num_cpus: float = 0, **options: Any) -> Actor:
        """A plain class becomes an actor. It is never restarted: a new incarnation is a new actor."""
        actor_class: Any = ray.remote(plain)
        actor: Actor = actor_class.options(
            num_cpus=num_cpus, max_restarts=0, scheduling_strategy=where, **options
        ).remote(*arguments)
        return actor

    def _on_this_node(self) -> NodeAffinitySchedulingStrategy:
        return NodeAffinitySchedulingStrategy(self._here, soft=False)


def fetch(references: Any) -> Any:
    """``ray.get``, with what was raised in an actor as itself: its own type, the actor's traceback below it.

    Raises:
        LostError: if the actor is gone, or has not answered in time.
    """
    try:
        return ray.get(references, timeout=STARTED_WITHIN_S)
    except RayTaskError as error:
        cause: BaseException = error.cause
        raise cause from error
    except RayActorError as error:
        raise LostError(f"a process of the run was lost: {reason_of(error)}") from error
    except GetTimeoutError as error:
        raise LostError(f"a process of the run has not started within {STARTED_WITHIN_S:.0f} s") from error


def reason_of(error: RayActorError) -> str:
    """Ray's account of a death, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "cause" in line.lower()), lines[0] if lines else type(error).__name__)


def _tell(coordinator: Actor, event: Event) -> None:
    """Report without waiting for the answer."""
    coordinator.tell.remote(event)


def _beat(coordinator: Actor, beat: Beat) -> None:
    """Report, and wait: a worker's last beat must arrive before the worker ends."""
    ray.get(coordinator.beat.remote(beat))
