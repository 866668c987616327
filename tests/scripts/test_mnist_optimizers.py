import json
from pathlib import Path
from typing import Any

import pytest

from scripts import mnist_optimizers
from scripts.mnist_optimizers import BARS, MODES, main


def arm(name: str, median: float | None) -> dict[str, Any]:
    accuracy = {"median": median, "low": 0.985, "high": 0.9925}
    return {"arm": name, "lr": 0.001, "figures": {"test_accuracy": accuracy}}


REPORT = {
    "title": "cnn on mnist, 2 slots of 32, 937 steps",
    "seeds": [0, 1, 2],
    "modes": [arm(f"{name}, {mode}", 0.987 if mode == "sync" else None) for name in BARS for mode in MODES],
    "notes": ["Medians over 3 seeds."],
}
COMMAND = (
    "--model cnn --optimizers adam,rmsprop,sgd:momentum=0.9 --lrs adam=0.002,rmsprop=0.001,sgd=0.03 "
    "--modes sync,async:4 --workers 2 --shards 2 --batch-size 32 --schedule cosine --schedule-args T_max=937 --epochs 1"
)


@pytest.fixture
def psgd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in psgd's place: notes its words and prints a report; its picture is there."""
    program = tmp_path / "psgd"
    program.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/calls\necho '{json.dumps(REPORT)}'\n")
    program.chmod(0o755)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "curves.png").write_bytes(b"picture")
    monkeypatch.setattr(mnist_optimizers, "PSGD", (str(program),))
    return tmp_path


def called(psgd: Path, *words: str) -> list[str]:
    main(["--data-dir", "/data", "--epochs", "1", "--out", f"{psgd}/out", "--results", f"{psgd}/results", *words])
    return (psgd / "calls").read_text().splitlines()


def test_goals_stand_beside_what_was_reached(psgd: Path) -> None:
    shared = f"compare --data mnist --data-dir /data {COMMAND}"
    assert called(psgd) == [f"{shared} --seed 0 --seeds 3 --out {psgd}/out --json"]
    page = (psgd / "results" / "mnist_optimizers.md").read_text().splitlines()
    assert page[2] == (
        "Test accuracy of the CNN, 2 slots of 32, 937 steps: median over the seeds 0, 1, 2 (least–greatest)."
    )
    assert page[6:9] == [
        "| adam | 0.001 | ≥ 98.9 % | 98.70 % (98.50–99.25) | diverged | missed |",
        "| rmsprop | 0.001 | ≥ 98.6 % | 98.70 % (98.50–99.25) | diverged | met |",
        "| sgd:momentum=0.9 | 0.001 | ≥ 98.4 % | 98.70 % (98.50–99.25) | diverged | met |",
    ]
    assert "- Medians over 3 seeds." in page
    assert (psgd / "results" / "mnist_optimizers_curves.png").read_bytes() == b"picture"


def test_seeds_may_be_run_beside_each_other_before_the_report(psgd: Path) -> None:
    *beside, last = called(psgd, "--jobs", "3")
    assert sorted(line[line.index("--seed ") :] for line in beside) == [
        f"--seed {seed} --seeds 1 --out {psgd}/out --json" for seed in range(3)
    ]
    assert "--seed 0 --seeds 3" in last
