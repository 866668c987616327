from collections.abc import Callable
from functools import partial

import numpy as np

from psgd.core.ids import Version
from psgd.core.layout import Span
from psgd.core.messages import Request
from psgd.durations import NONE, Duration, parse_duration
from psgd.simulation.agenda import Agenda
from psgd.simulation.server import Server
from psgd.transport.base import Deliver, PushId, Sizes


class Counting:
    """A shard that has nothing but a version."""

    def __init__(self) -> None:
        self.version = Version(0)
        self.sizes = Sizes(0, 0, 0, 0)

    def submit(self, request: Request, deliver: Deliver, payload: memoryview | None = None) -> None:
        raise NotImplementedError

    def prepare(self, push: PushId, payload: memoryview, ready: Span | None) -> None:
        raise NotImplementedError


class Served:
    """A server whose departures are noted."""

    def __init__(self, service: Duration = NONE, update: Duration = NONE) -> None:
        self.agenda, self.shard = Agenda(), Counting()
        self.server = Server(self.shard, self.agenda, service, update, np.random.default_rng(0))
        self.begun: list[tuple[str, float]] = []
        self.left: list[tuple[str, float]] = []

    def ask(self, name: str, tensors: bool = False, updates: int = 0) -> None:
        self.server.arrive(partial(self._work, name, updates), tensors)

    def _work(self, name: str, updates: int) -> None:
        self.begun.append((name, self.agenda.now))
        self.shard.version = Version(self.shard.version + updates)
        self.server.leave(partial(self._leave, name))

    def _leave(self, name: str) -> None:
        self.left.append((name, self.agenda.now))

    def run(self, *acts: Callable[[], None]) -> None:
        for act in acts:
            act()
        while self.agenda.advance():
            pass


def test_where_nothing_takes_time_everything_happens_at_once() -> None:
    served = Served()
    served.ask("push", tensors=True, updates=1)
    served.ask("ask")
    assert served.left == [("push", 0.0), ("ask", 0.0)]


def test_a_request_with_tensors_takes_its_service_and_others_wait_behind_it() -> None:
    served = Served(service=parse_duration("2"))
    served.run(partial(served.ask, "push", tensors=True), partial(served.ask, "ask"), partial(served.ask, "pull", True))
    assert served.begun == [("push", 2.0), ("ask", 2.0), ("pull", 4.0)]


def test_answers_leave_behind_the_updates_that_they_tell_of() -> None:
    served = Served(update=parse_duration("3"))
    served.run(partial(served.ask, "closing", updates=1), partial(served.ask, "asking"))
    assert served.left == [("closing", 3.0), ("asking", 3.0)]
    assert served.begun == [("closing", 0.0), ("asking", 3.0)]


def test_several_updates_take_as_much_longer() -> None:
    served = Served(update=parse_duration("3"))
    served.run(partial(served.ask, "closing", updates=2))
    assert served.left == [("closing", 6.0)]


def test_a_request_that_comes_later_begins_when_the_server_is_free() -> None:
    served = Served(service=parse_duration("2"))
    served.agenda.after(1.0, partial(served.ask, "second", tensors=True))
    served.agenda.after(9.0, partial(served.ask, "third", tensors=True))
    served.run(partial(served.ask, "first", tensors=True))
    assert served.begun == [("first", 2.0), ("second", 4.0), ("third", 11.0)]


def test_however_many_requests_wait_the_stack_does_not_grow() -> None:
    served = Served(update=parse_duration("3"))
    served.run(partial(served.ask, "closing", updates=1), *(partial(served.ask, str(n)) for n in range(5000)))
    assert len(served.left) == 5001
