"""What the driver does about a worker that was replaced, without Ray."""

from types import SimpleNamespace
from typing import Any

import pytest

from psgd.cluster.driver import _Driver
from psgd.coordinator.coordinator import ReplaceWorker
from psgd.core.membership import Membership
from psgd.errors import LostError, ResourceError
from tests.jobs import keep_nothing, make_job
from tests.worker.own_loops import KEY


class Actor:
    """One call of its is pending at a time."""

    def __init__(self) -> None:
        self.run = SimpleNamespace(remote=lambda: "runs")


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
