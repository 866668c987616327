"""The network: every node has one link out and one link in, each a queue, so many who send to one node wait there."""

from collections.abc import Hashable
from functools import partial

import numpy as np

from psgd.durations import Duration
from psgd.simulation.agenda import Act, Agenda

Node = Hashable


class Network:
    """Messages between nodes, in virtual time.

    A message leaves when its sender's link is free, travels for the latency, and occupies the receiver's link for as
    long as its bytes take; both links carry it at the same time, as a stream does. What arrives at one node from many
    at once comes one after another (incast), whose first byte is there first.

    Args:
        latency: of a message, one way.
        bandwidth: of each link in each direction, bytes a second; infinite: only the latency counts.
    """

    def __init__(self, agenda: Agenda, latency: Duration, bandwidth: float, generator: np.random.Generator) -> None:
        self._agenda = agenda
        self._latency = latency
        self._instant = latency.mean == 0
        self._bandwidth = bandwidth
        self._generator = generator
        self._out_free: dict[Node, float] = {}
        self._in_free: dict[Node, float] = {}

    def send(self, source: Node, target: Node, size: int, arrived: Act) -> None:
        """Send so many bytes; what is to happen then happens once the last of them is there."""
        agenda = self._agenda
        latency = 0.0 if self._instant else self._latency.draw(self._generator)
        occupied = size / self._bandwidth
        if occupied == 0:
            agenda.after(latency, arrived)
            return
        left = max(agenda.now, self._out_free.get(source, 0.0))
        self._out_free[source] = left + occupied
        agenda.at(left + latency, partial(self._receive, target, occupied, arrived))

    def _receive(self, target: Node, occupied: float, arrived: Act) -> None:
        """The first byte is here: the others come as soon as those of messages that were here before are through."""
        agenda = self._agenda
        here = max(agenda.now, self._in_free.get(target, 0.0)) + occupied
        self._in_free[target] = here
        agenda.at(here, arrived)
