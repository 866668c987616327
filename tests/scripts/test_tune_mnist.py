import json
from pathlib import Path
from typing import Any

import pytest

from scripts import tune_mnist
from scripts.tune_mnist import SEARCHES, main


def trial(number: int, accuracy: float | None) -> dict[str, Any]:
    measured = {"step": 186, "seconds": 1.5, "metrics": {"test_accuracy": accuracy, "test_loss": 0.5}}
    return {
        "number": number,
        "point": {"lr": 0.0123456, "optimizer_args.weight_decay": 0.0},
        "status": "refused" if accuracy is None else "done",
        "evaluations": [] if accuracy is None else [measured],
    }


@pytest.fixture
def psgd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in psgd's place: notes its words; what it would write is there."""
    program = tmp_path / "psgd"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    program.chmod(0o755)
    for name in SEARCHES:
        folder = tmp_path / "out" / name
        folder.mkdir(parents=True)
        (folder / "parallel.png").write_bytes(name.encode())
        content = {"trials": [trial(7, 0.9825), trial(0, 0.5), trial(1, None)]}
        (folder / "results.json").write_text(json.dumps(content))
    monkeypatch.setattr(tune_mnist, "PSGD", (str(program),))
    return tmp_path


def test_a_grid_and_bayesian_searches_stand_side_by_side(psgd: Path) -> None:
    folders = ("--data-dir", "/data", "--out", f"{psgd}/out", "--results", f"{psgd}/results")
    main([*folders, "--limit", "200", "--epochs", "2"])
    shared = "tune --data mnist --data-dir /data --limit 200 --model cnn --optimizer sgd --optimizer-args momentum=0.9"
    shared += " --epochs 2 --evaluate-every 6"
    bounds = "--space lr=log:1e-3:1 --space optimizer_args.weight_decay=log:1e-5:1e-2"
    grid = "--space lr=0.001,0.01,0.1,1 --space optimizer_args.weight_decay=0,1e-4,1e-3,1e-2"
    assert (psgd / "calls").read_text().splitlines() == [
        f"{shared} --plane memory --search grid {grid} --out {psgd}/out/grid --resume --json",
        f"{shared} --plane memory --search tpe --trials 10 {bounds} --out {psgd}/out/tpe --resume --json",
        f"{shared} --plane memory --search gp --trials 10 {bounds} --out {psgd}/out/gp --resume --json",
    ]
    page = (psgd / "results" / "tune_mnist.md").read_text().splitlines()
    assert "| grid | 3 | 98.25 % | 7 | 0.0123 | 0 |" in page
    assert "| Gaussian process | 3 | 98.25 % | 7 | 0.0123 | 0 |" in page
    assert page.count("| 7 | 0.0123 | 0 | 98.25 % | done |") == 3
    assert page.count("| 1 | 0.0123 | 0 | – | refused |") == 3
    assert (psgd / "results" / "tune_mnist_tpe.png").read_bytes() == b"tpe"
