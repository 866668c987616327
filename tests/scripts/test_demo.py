import json
from pathlib import Path

import pytest

from scripts import demo

FIGURES = {
    "test_accuracy": 0.98765,
    "test_loss": 0.05,
    "samples_per_s": 12345.6,
    "seconds": 1.25,
    "lag": {"mean": 0.5, "max": 2, "histogram": {}},
}


@pytest.fixture
def psgd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in psgd's place: notes its words and prints figures."""
    program = tmp_path / "psgd"
    program.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/calls\necho starting\necho '{json.dumps(FIGURES)}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(demo, "PSGD", program)
    return program


def test_both_modes_are_run_and_compared(psgd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["out"]) == 0
    calls = (psgd.parent / "calls").read_text().splitlines()
    shared = "train --data digits --workers 2 --shards 2"
    assert calls == [
        f"{shared} --mode sync --out out/sync --json",
        f"{shared} --mode async --staleness 2 --out out/async --json",
    ]
    assert capsys.readouterr().out.splitlines() == [
        "mode                test accuracy  test loss  samples/s  seconds  lag mean  lag max",
        "-----------------------------------------------------------------------------------",
        "sync                       0.9877     0.0500     12,346      1.2      0.50        2",
        "async, staleness 2         0.9877     0.0500     12,346      1.2      0.50        2",
    ]


def test_a_run_that_fails_ends_the_demo_with_its_code(psgd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    psgd.write_text("#!/bin/sh\nexit 3\n")
    assert demo.main(["out"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == "demo: the sync run ended with exit code 3"
