"""What the README shows runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (psgd .+)$", README, re.MULTILINE)
PROGRAMS = re.findall(r"^```python\n(.+?)^```$", README, re.MULTILINE | re.DOTALL)


def test_there_is_something_to_run() -> None:
    assert len(COMMANDS) >= 2
    assert len(PROGRAMS) >= 2


def on_ray(text: str) -> "tuple[pytest.MarkDecorator, ...]":
    """Most of it starts a Ray; the rest need not wait for its turn."""
    elsewhere = any(word in text for word in ("--dry-run", "memory", "simulate"))
    return () if elsewhere else (pytest.mark.ray,)


@pytest.mark.parametrize("command", [pytest.param(command, marks=on_ray(command)) for command in COMMANDS])
def test_command_runs(command: str, tmp_path: Path) -> None:
    if "../shared/data" in command and not (ROOT.parent / "shared" / "data").is_dir():
        pytest.skip("needs the data sets")
    words = command.replace("../shared/data", str(ROOT.parent / "shared" / "data")).split()
    ran = run([sys.executable, "-c", "import sys; from psgd.cli import main; sys.exit(main())", *words[1:]], tmp_path)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("program", [pytest.param(program, marks=on_ray(program)) for program in PROGRAMS])
def test_program_runs(program: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    ran = run([sys.executable, "program.py"], tmp_path)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("path", re.findall(r"\]\(((?!http)[^)#]+)\)", README))
def test_link_leads_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


def run(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run in an empty folder, with the psgd of this tree."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
