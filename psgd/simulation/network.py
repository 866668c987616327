"""The network: every node has one link out and one link in, each a queue, so many who send to one node wait there."""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from psgd.durations import Duration
from psgd.simulation.agenda import Act, Agenda


@dataclass(slots=True, eq=False)
class Node:
    """A process and its links; who replaces it when it has failed is another node.

    Attributes:
        out_free: when the link out is free of what has been sent so far, in seconds since the beginning.
        in_free: when the link in is free of what has come so far.
        failed_at: when the node failed.
    """

    out_free: float = 0.0
    in_free: float = 0.0
    failed_at: float = math.inf


class Network:
    """Messages between nodes, in virtual time.

    A message leaves when its sender's link is free, travels for the latency, and occupies the receiver's link for as
    long as its bytes take; both links carry it at the same time, as a stream does. What arrives at one node from many
    at once comes one after another (incast), whose first byte is there first.

    When a node fails, what has left it arrives. What it is sending then breaks off, and never does, though it keeps
    the receiver's link as if it did; what was to follow does not leave.

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

    def send(self, source: Node, target: Node, size: int, arrived: Act) -> None:
        """Send so many bytes; what is to happen then happens once the last of them is there."""
        agenda = self._agenda
        latency = 0.0 if self._instant else self._latency.draw(self._generator)
        occupied = size / self._bandwidth
        if occupied == 0:
            agenda.after(latency, arrived)
            return
        begun = max(agenda.now, source.out_free)
        source.out_free = begun + occupied
        agenda.at(begun + latency, partial(self._receive, source, target, begun, occupied, arrived))

    def fail(self, node: Node) -> None:
        """The node is no more from this moment on."""
        node.failed_at = self._agenda.now

    def _receive(self, source: Node, target: Node, begun: float, occupied: float, arrived: Act) -> None:
        """The first byte is here: the others come as soon as those of messages that were here before are through."""
        if source.failed_at <= begun:
            return
        target.in_free = max(self._agenda.now, target.in_free) + occupied
        self._agenda.at(target.in_free, partial(self._arrive, source, begun + occupied, arrived))

    def _arrive(self, source: Node, left: float, arrived: Act) -> None:
        """The last byte is here, if it has left."""
        if source.failed_at >= left:
            arrived()
