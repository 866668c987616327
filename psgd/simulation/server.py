"""A simulated shard's process: one request after another, each for as long as it takes."""

from collections import deque
from functools import partial
from typing import Protocol

import numpy as np

from psgd.core.ids import Version
from psgd.durations import Duration
from psgd.simulation.agenda import Act, Agenda
from psgd.transport.base import Endpoint


class SimulatedShard(Endpoint, Protocol):
    """What is served: a shard, or its protocol alone."""

    @property
    def version(self) -> Version:
        """Updates that it has applied."""


class Server:
    """Serves a shard in virtual time.

    A request with tensors takes ``service`` before it is looked at, each update that comes of it ``update`` before
    anything that the shard says about it leaves.

    Args:
        shard: takes a request at once; whatever it answers goes through `leave`.
    """

    def __init__(
        self, shard: SimulatedShard, agenda: Agenda, service: Duration, update: Duration, generator: np.random.Generator
    ) -> None:
        self.shard = shard
        self._agenda = agenda
        self._service = service if service.mean > 0 else None
        self._update = update if update.mean > 0 else None
        self._generator = generator
        self._waiting: deque[tuple[Act, bool]] = deque()
        self._leaving: list[Act] = []
        self._busy = False

    def arrive(self, work: Act, tensors: bool = False) -> None:
        """A request is here.

        Args:
            work: hands it to the shard.
            tensors: whether tensors come with it, or go with its answer.
        """
        self._waiting.append((work, tensors))
        self._serve()

    def leave(self, send: Act) -> None:
        """Something leaves when the present request is done with."""
        self._leaving.append(send)

    def _serve(self) -> None:
        """Take what waits, until something takes its time."""
        while self._waiting and not self._busy:
            self._busy = True
            work, tensors = self._waiting.popleft()
            self._pass(self._service, int(tensors), partial(self._carry_out, work))

    def _carry_out(self, work: Act) -> None:
        before = self.shard.version
        work()
        self._pass(self._update, self.shard.version - before, self._finish)

    def _finish(self) -> None:
        leaving, self._leaving = self._leaving, []
        for send in leaving:
            send()
        self._busy = False

    def _pass(self, duration: Duration | None, times: int, act: Act) -> None:
        """Go on once so many of these durations have passed; None passes at once."""
        seconds = 0.0 if duration is None else sum(duration.draw(self._generator) for _ in range(times))
        if seconds > 0:
            self._agenda.after(seconds, partial(self._go_on, act))
        else:
            act()

    def _go_on(self, act: Act) -> None:
        act()
        self._serve()
