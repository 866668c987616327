"""How a run on a Ray of its own ends when its driver is told to, or killed: nothing outlives it for long."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.ray

ENDED_WITHIN_S = 10.0
RUN_VARIABLE = "TEST_RUN_OF_PSGD"  # inherited by every process of the run, whoever adopts it later
ACTORS = ("ray::ShardHost", "ray::WorkerHost", "ray::EvaluatorHost", "ray::CoordinatorHost")


@pytest.mark.parametrize(("told", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_driver_that_is_told_to_end_leaves_no_process(told: signal.Signals, code: int, tmp_path: Path) -> None:
    run = str(uuid.uuid4())
    driver = start_training(run, tmp_path)
    driver.send_signal(told)
    assert driver.wait(timeout=ENDED_WITHIN_S) == code
    assert wait_for_end(run, names=()) == []
    assert b"Traceback" not in (tmp_path / "stderr").read_bytes()


def test_killed_driver_is_outlived_by_no_actor(tmp_path: Path) -> None:
    run = str(uuid.uuid4())
    driver = start_training(run, tmp_path)
    driver.kill()
    driver.wait()
    assert wait_for_end(run, names=ACTORS) == []


def start_training(run: str, folder: Path) -> "subprocess.Popen[bytes]":
    """A run without an end in sight, once its first evaluation shows that it is under way."""
    program = "import sys; from psgd.cli import main; sys.exit(main())"
    options = ["train", "--steps", "1000000", "--evaluate-every", "5", "--out", str(folder / "run")]
    with (folder / "stderr").open("wb") as stderr:
        driver = subprocess.Popen(
            [sys.executable, "-c", program, *options],
            env={**os.environ, RUN_VARIABLE: run},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    log = folder / "run" / "run.jsonl"
    while not (log.exists() and b'"kind": "evaluation"' in log.read_bytes()):
        assert driver.poll() is None, (folder / "stderr").read_text()
        time.sleep(0.05)
    return driver


def wait_for_end(run: str, names: tuple[str, ...]) -> list[str]:
    """What is left of a run when the time is over: processes whose command line has one of the names, or any."""
    deadline = time.monotonic() + ENDED_WITHIN_S
    while (left := processes_of(run, names)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def processes_of(run: str, names: tuple[str, ...]) -> list[str]:
    """Command lines of the run's processes."""
    commands = [
        " ".join(process.info["cmdline"] or [])
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get(RUN_VARIABLE) == run
    ]
    return [command for command in commands if not names or any(name in command for name in names)]
