import math
from collections import defaultdict
from functools import partial

import numpy as np
import pytest

from psgd.durations import NONE, Duration, parse_duration
from psgd.simulation.agenda import Agenda
from psgd.simulation.network import Network, Node


class Net:
    """A network whose arrivals are noted; nodes are named by a letter."""

    def __init__(self, latency: Duration = NONE, bandwidth: float = math.inf) -> None:
        self.agenda = Agenda()
        self.network = Network(self.agenda, latency, bandwidth, np.random.default_rng(0))
        self.nodes = defaultdict[str, Node](Node)
        self.arrived: list[tuple[str, float]] = []

    def send(self, source: str, target: str, size: int) -> None:
        self.network.send(self.nodes[source], self.nodes[target], size, partial(self._note, f"{source}{target}"))

    def fail_at(self, moment: float, name: str) -> None:
        self.agenda.at(moment, partial(self._fail, name))

    def _fail(self, name: str) -> None:
        self.network.fail(self.nodes.pop(name))

    def _note(self, name: str) -> None:
        self.arrived.append((name, self.agenda.now))

    def run(self) -> list[tuple[str, float]]:
        while self.agenda.advance():
            pass
        return self.arrived


def test_without_latency_and_limit_everything_arrives_at_once() -> None:
    net = Net()
    net.send("a", "s", 10**9)
    assert net.run() == [("as", 0.0)]


def test_a_message_takes_the_latency_and_its_bytes() -> None:
    net = Net(parse_duration("0.5"), bandwidth=100.0)
    net.send("a", "s", 200)
    net.send("b", "t", 0)
    assert net.run() == [("bt", 0.5), ("as", 2.5)]


def test_what_many_send_to_one_node_arrives_one_after_another() -> None:
    net = Net(parse_duration("0.5"), bandwidth=100.0)
    for source in ("a", "b", "c"):
        net.send(source, "s", 100)
    assert net.run() == [("as", 1.5), ("bs", 2.5), ("cs", 3.5)]


def test_what_one_node_sends_to_many_leaves_one_after_another() -> None:
    net = Net(bandwidth=100.0)
    for target in ("s", "t"):
        net.send("a", target, 100)
    assert net.run() == [("as", 1.0), ("at", 2.0)]


def test_links_of_different_nodes_and_directions_do_not_wait_for_each_other() -> None:
    net = Net(bandwidth=100.0)
    net.send("a", "s", 100)
    net.send("s", "a", 100)
    net.send("b", "t", 100)
    assert [when for _, when in net.run()] == [1.0, 1.0, 1.0]


def test_a_link_is_free_again_when_its_bytes_are_through() -> None:
    net = Net(bandwidth=100.0)
    net.send("a", "s", 100)
    net.agenda.after(5.0, lambda: net.send("b", "s", 100))
    assert net.run() == [("as", 1.0), ("bs", 6.0)]


def test_a_link_is_not_kept_for_what_has_not_left_yet() -> None:
    net = Net(bandwidth=100.0)
    net.send("a", "t", 300)
    net.send("a", "s", 100)  # leaves at 3
    net.agenda.after(1.0, lambda: net.send("b", "s", 100))
    assert net.run() == [("bs", 2.0), ("at", 3.0), ("as", 4.0)]


def test_what_has_left_arrives_although_its_sender_fails() -> None:
    net = Net(parse_duration("5"), bandwidth=100.0)
    net.send("a", "s", 100)
    net.send("a", "t", 0)
    net.fail_at(1.0, "a")
    assert net.run() == [("at", 5.0), ("as", 6.0)]


@pytest.mark.parametrize("latency", ["0", "5"])
def test_what_is_still_leaving_or_has_to_wait_does_not_arrive_when_its_sender_fails(latency: str) -> None:
    net = Net(parse_duration(latency), bandwidth=100.0)
    for target in ("s", "t"):
        net.send("a", target, 100)
    net.fail_at(0.5, "a")
    assert net.run() == []


def test_what_a_failed_node_had_to_send_does_not_hold_up_who_replaces_it_nor_those_who_send_to_others() -> None:
    net = Net(bandwidth=100.0)
    for target in ("s", "t"):
        net.send("a", target, 300)
    net.fail_at(1.0, "a")
    net.agenda.at(2.0, lambda: net.send("a", "u", 100))
    net.agenda.at(3.0, lambda: net.send("b", "t", 100))
    assert net.run() == [("au", 3.0), ("bt", 4.0)]


def test_what_is_sent_to_a_failed_node_does_not_hold_up_what_is_sent_to_who_replaces_it() -> None:
    net = Net(bandwidth=100.0)
    for source in ("s", "t"):
        net.send(source, "a", 300)
    net.fail_at(1.0, "a")
    net.agenda.at(1.0, lambda: net.send("u", "a", 100))
    assert net.run() == [("ua", 2.0), ("sa", 3.0), ("ta", 6.0)]


def test_latencies_are_drawn() -> None:
    net = Net(parse_duration("exp:1"))
    for _ in range(2000):
        net.send("a", "s", 0)
    assert np.mean([when for _, when in net.run()]) == pytest.approx(1.0, rel=0.1)
