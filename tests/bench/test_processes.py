import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psutil
import pytest
import torch

from psgd.bench.processes import barrier, run_alone, run_together, serving
from psgd.errors import ConfigurationError, LostError


def process_and_threads() -> tuple[int, int]:
    return os.getpid(), torch.get_num_threads()


def wait_at(start: object) -> int:
    return start.wait(60)  # type: ignore[attr-defined, no-any-return]


def sleep_long() -> None:
    time.sleep(600)


def refuse() -> None:
    raise ConfigurationError("shards must be fewer, got 9")


def break_down() -> None:
    raise ValueError("a bug")


def die() -> None:
    os._exit(3)


@contextmanager
def server(word: str) -> Iterator[tuple[str, int]]:
    yield word, os.getpid()


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if not any("resource_tracker" in word for word in child.cmdline())
    ]


def test_each_call_runs_in_a_process_of_its_own_with_one_thread() -> None:
    (first, threads), (second, _) = run_together([process_and_threads] * 2)
    assert len({first, second, os.getpid()}) == 3
    assert threads == 1


def test_calls_run_at_the_same_time() -> None:
    start = barrier(2)
    assert sorted(run_together([partial(wait_at, start)] * 2)) == [0, 1]


def test_what_is_refused_in_a_process_is_refused_here_and_ends_the_others() -> None:
    with pytest.raises(ConfigurationError, match=r"^shards must be fewer, got 9$"):
        run_together([sleep_long, refuse])
    assert children() == []


def test_a_failure_is_told_in_a_line_and_its_traceback_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LostError, match=r"^a process of the measurement has failed: ValueError: a bug$"):
        run_alone(break_down)
    assert "break_down" in capfd.readouterr().err


def test_a_death_is_noticed() -> None:
    with pytest.raises(LostError, match=r"^a process of the measurement has died"):
        run_together([sleep_long, die])
    assert children() == []


def test_servers_serve_until_the_end_of_the_context() -> None:
    with serving([partial(server, "a"), partial(server, "b")]) as ((a, pid_a), (b, pid_b)):
        assert (a, b) == ("a", "b")
        assert {child.pid for child in children()} == {pid_a, pid_b}
    assert children() == []
