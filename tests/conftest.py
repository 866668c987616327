"""What every test may rely on: one thread, reproducible Hypothesis, real data if any, and a clean end."""

import gc
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest
import torch
from matplotlib.figure import Figure

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARED_MEMORY = Path("/dev/shm")
SESSION_VARIABLE = "TEST_SESSION_OF_PSGD"
GOODBYE_S = 60.0  # Ray's own agents outlive a killed driver by some 40 s

# "ci" finds the same examples on every machine and every run; `--hypothesis-profile=thorough` searches on.
hypothesis.settings.register_profile("ci", derandomize=True, max_examples=50, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=2000, deadline=None)
hypothesis.settings.load_profile("ci")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_finish() -> None:
    """What imports and collection have made stays; each `gc.collect()` of a test would go through all of it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # pytest-xdist's own reads the groups that this one makes
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group("ray"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    # The longest group starts first, the other process fills the time beside it.
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture
def shared_data() -> Path:
    """The directory with the real data sets, one directory each."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the data sets in {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """What has been written, to be looked at."""
    pictures: list[Figure] = []
    write = Figure.savefig

    def save(self: Figure, *args: object, **options: object) -> None:
        pictures.append(self)
        write(self, *args, **options)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Figure, "savefig", save)
    return pictures


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Bitwise promises hold for a fixed number of threads, and pytest-xdist gives away the other cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail the session if a process or a file in shared memory outlives its tests."""
    session = str(uuid.uuid4())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SESSION_VARIABLE, session)  # inherited by every process, whoever adopts it later
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # a test run reports to nobody
        patch.setenv("RAY_worker_niceness", "0")  # by default 15: they would starve beside the tests of the other cores
        files = set(SHARED_MEMORY.glob("psgd*"))
        yield
        psutil.wait_procs(_processes(session), timeout=GOODBYE_S)
        left = [f"{process.pid}: {process.info['cmdline']}" for process in _processes(session)]
    assert not left, "processes that outlived the tests of this session"
    assert set(SHARED_MEMORY.glob("psgd*")) <= files, "files that outlived the tests of this session"


def _processes(session: str) -> list[psutil.Process]:
    """The live processes that inherited the session's variable, but for multiprocessing's own servant."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get(SESSION_VARIABLE) == session
        and not any("multiprocessing.resource_tracker" in word for word in process.info["cmdline"])
        and process.pid != os.getpid()
    ]
