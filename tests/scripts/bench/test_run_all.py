import json
import sys
from pathlib import Path

import pytest

from scripts.bench import run_all

MACHINE = {"cpu": "AMD", "cores": 2, "memory_gb": 25.3, "torch": "2.13.0", "ray": "2.60.0"}
FIGURES = {"ratio_ddp": 0.55, "ratio_ray": 0.2, "ratio_floor": 1.2, "ratio_sync": 0.95, "ratio_async": 0.9}


@pytest.fixture
def psgd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in psgd's place: notes its words and prints figures."""
    program = tmp_path / "psgd"
    figures = json.dumps({**FIGURES, "machine": MACHINE})
    program.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/calls\necho starting\necho '{figures}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(run_all, "PSGD", (str(program),))
    return tmp_path


def test_goals_stand_beside_what_was_measured(psgd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = psgd / "out"
    words = ["--data-dir", "data", "--out", str(out), "--only", "sync, 25 M", "MNIST CNN"]
    monkeypatch.setattr(sys, "argv", ["run_all.py", *words])
    run_all.main()
    assert (psgd / "calls").read_text().splitlines() == [
        "bench step --params 25000000 --json",
        "bench train --data mnist --model cnn --data-dir data --json",
    ]
    assert json.loads((out / "results.json").read_text())["sync, 25 M"]["ratio_ddp"] == 0.55
    step, train = "`psgd bench step --params 25000000`", "`psgd bench train --data mnist --model cnn`"
    assert (out / "results.md").read_text().splitlines()[2:] == [
        f"| sync, 25 M | {step} | `ratio_ddp` | ≤ 0.6 | 0.550 | met |",
        f"| sync, 25 M | {step} | `ratio_ray` | ≤ 0.15 | 0.200 | missed |",
        f"| sync, 25 M | {step} | `ratio_floor` | ≤ 1.25 | 1.200 | met |",
        f"| MNIST CNN | {train} | `ratio_sync` | ≥ 0.92 | 0.950 | met |",
        f"| MNIST CNN | {train} | `ratio_async` | ≥ 0.92 | 0.900 | missed |",
        "",
        "Medians of one run each, on AMD, 2 cores, 25.3 GB; torch 2.13.0, Ray 2.60.0.",
    ]


def test_every_goal_belongs_to_a_command() -> None:
    assert {goal.command for goal in run_all.GOALS} <= run_all.COMMANDS.keys()
