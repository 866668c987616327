"""When the driver's clock begins, and what it does about a worker that was replaced, without Ray."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from psgd.cluster.driver import _Driver
from psgd.cluster.fleet import Fleet as RayFleet
from psgd.coordinator.coordinator import ReplaceWorker, TrainingBegan
from psgd.core.membership import Membership
from psgd.errors import LostError, ResourceError
from tests.jobs import keep_nothing, make_job
from tests.worker.own_loops import KEY


class Actor:
    """One call of its is pending at a time."""

    def __init__(self) -> None:
        self.run = SimpleNamespace(remote=lambda: "runs")


class EndedError(Exception):
    """As far as the test goes."""


class StartingFleet:
    """Takes a while to open; then its coordinator hears of nothing but the beginning."""

    def __init__(self) -> None:
        self.shards: list[Actor] = []
        self.opened_at = float("inf")
        self.coordinator = SimpleNamespace(tell=SimpleNamespace(remote=self._tell))

    def start(self, coordinator: Any) -> None: ...

    def open_shards(self) -> list[Any]:
        return []

    def open_workers(self) -> None:
        self.opened_at = time.perf_counter()

    def _tell(self, event: Any) -> None:
        assert event == TrainingBegan()
        raise EndedError


class Fleet:
    """Has one worker, which it replaces."""

    def __init__(self) -> None:
        self.workers = {0: Actor()}

    def kill_worker(self, number: int) -> None:
        del self.workers[number]

    def replace_worker(self, number: int, _membership: Any) -> str:
        self.workers[number] = Actor()
        return "opens"


@pytest.mark.parametrize(("error", "heard"), [(ResourceError("too little memory"), True), (LostError("gone"), False)])
def test_that_a_new_worker_can_not_connect_is_heard_before_what_comes_of_it(
    error: Exception, heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet: Any = Fleet()
    driver = _Driver(make_job(), fleet, KEY, lambda record: None, keep_nothing)
    driver._perform(ReplaceWorker(0, Membership.first(slots=1, workers=1), "its process is gone"))
    assert list(driver._pending) == ["opens", "runs"]

    def fail(_reference: Any) -> None:
        raise error

    monkeypatch.setattr("psgd.cluster.driver.fetch", fail)
    opened: Any = "opens"
    if heard:
        with pytest.raises(ResourceError, match="too little memory"):
            driver._pending[opened](opened)
    else:
        driver._pending[opened](opened)


def test_the_clock_begins_when_workers_and_evaluator_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet: Any = StartingFleet()
    driver = _Driver(make_job(), fleet, KEY, lambda record: None, keep_nothing)
    monkeypatch.setattr("psgd.cluster.driver.connect", lambda *_: [])
    monkeypatch.setattr(driver, "_load", lambda initial: None)
    with pytest.raises(EndedError):
        driver.run(None, {})  # type: ignore[arg-type]
    assert driver._began >= fleet.opened_at


def test_workers_and_the_evaluator_are_opened_side_by_side_and_all_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def actor(name: str) -> Any:
        return SimpleNamespace(open=SimpleNamespace(remote=lambda _addresses: name))

    waited: list[list[str]] = []
    monkeypatch.setattr("psgd.cluster.fleet.fetch", waited.append)
    fleet = RayFleet.__new__(RayFleet)
    fleet.workers, fleet.evaluator, fleet._addresses = {0: actor("worker 0"), 1: actor("worker 1")}, actor("eval"), ()
    fleet.open_workers()
    assert waited == [["worker 0", "worker 1", "eval"]]
