import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "gpu_check.sh"

STAND_IN = """#!/bin/sh
echo "$@" >> {calls}
case "$*" in
    *"-m venv"*) mkdir -p {venv}/bin && cp "$0" {venv}/bin/python ;;
    *" choose "*) printf '/wheels/a.whl\\n/wheels/b c.whl' ;;
    *{failing}*) exit 3 ;;
esac
"""


class Machine:
    """A machine whose Python only notes what it is to do."""

    def __init__(self, folder: Path) -> None:
        self.calls_file, self.venv, self.python = folder / "calls", folder / "venv", folder / "python"
        self.set_failing("nothing at all")

    def set_failing(self, words: str) -> None:
        script = STAND_IN.format(calls=self.calls_file, venv=self.venv, failing=f'"{words}"')
        self.python.write_text(script)
        self.python.chmod(0o755)

    def check(self, *options: str) -> int:
        environment = {**os.environ, "PYTHON": str(self.python), "GPU_VENV": str(self.venv)}
        return subprocess.run([SCRIPT, *options], env=environment, capture_output=True, timeout=60).returncode

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_cuda_it_ends_with_one_line(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    environment = {**os.environ, "PYTHON": sys.executable, "GPU_VENV": str(tmp_path / "venv")}
    done = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"gpu_check: torch {torch.__version__} of {sys.executable} finds no CUDA device: "
        "run this on a machine with a GPU\n"
    )
    assert list(tmp_path.iterdir()) == []  # nothing was built


def test_packages_then_tests_then_figures(machine: Machine) -> None:
    assert machine.check("/wheels") == 0
    cuda, venv, choose, install, check, tests, figures = machine.calls
    assert cuda == "scripts/gpu_packages.py cuda"
    assert venv == f"-m venv --system-site-packages --without-pip {machine.venv}"
    assert choose == "scripts/gpu_packages.py choose /wheels"
    assert install == (
        f"-m pip --python {machine.venv}/bin/python install --quiet --no-index --no-deps /wheels/a.whl /wheels/b c.whl"
    )
    assert check == "scripts/gpu_packages.py check /wheels"
    assert tests.startswith("-m pytest --quiet -W default -m gpu tests/")
    assert {"tests/test_gpu.py", "tests/worker/test_copy_stream.py", "tests/transport/test_pinned.py"} <= {
        *tests.split()
    }
    assert figures == "scripts/bench/gpu_figures.py"


def test_an_environment_is_made_once(machine: Machine) -> None:
    assert machine.check("/wheels") == machine.check("/wheels") == 0
    assert sum("-m venv" in call for call in machine.calls) == 1


def test_wheels_lie_where_the_command_is_given_unless_told_otherwise(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    machine.check()
    monkeypatch.setenv("WHEELS", "elsewhere")
    machine.check()
    chosen = [call for call in machine.calls if " choose " in call]
    assert chosen == [f"scripts/gpu_packages.py choose {tmp_path / name}" for name in ("wheels", "elsewhere")]


@pytest.mark.parametrize(
    ("failing", "last"),
    [("py cuda", "cuda"), ("py check", "check"), ("-m pytest", "-m pytest"), ("gpu_figures", "gpu_figures")],
)
def test_it_ends_with_the_first_thing_that_fails(machine: Machine, failing: str, last: str) -> None:
    machine.set_failing(failing)
    assert machine.check("/wheels") == 3
    assert last in machine.calls[-1]
