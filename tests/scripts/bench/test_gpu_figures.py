import json
import subprocess
from typing import Any

import pytest

from scripts.bench import gpu_figures

MACHINE = {"cpu": "AMD EPYC", "cores": 16, "gpus": ["NVIDIA H200"], "torch": "2.13.0+cu130"}


def figures(psgd_ms: float) -> dict[str, Any]:
    return {
        "params": 25_000_000,
        "workers": 2,
        "shards": 1,
        "psgd_ms": psgd_ms,
        "floor_ms": 4.0,
        "ratio_floor": psgd_ms / 4,
        "machine": MACHINE,
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What was to be measured, without the program."""
    calls: list[tuple[str, ...]] = []

    def run(command: tuple[str, ...], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command[len(gpu_figures.COMMAND) :])
        line = json.dumps(figures(8.0 if "cuda" in command else 20.0))
        return subprocess.CompletedProcess(command, 0, f"a line before\n{line}\n")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_both_places_of_a_shard_are_measured_and_named_with_the_machine(
    asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_figures.main(["--workers", "2"]) == 0
    shared = ("--plane", "shm", "--peers", "none", "--workers", "2", "--json")
    assert asked == [("--use-gpu", "--shard-device", device, *shared) for device in ("cpu", "cuda")]
    assert capsys.readouterr().out.splitlines() == [
        "| a synchronous step | shard on cpu | shard on cuda |",
        "|---|---|---|",
        "| psgd, ms | 20.00 | 8.00 |",
        "| floor, ms | 4.00 | 4.00 |",
        "| psgd / floor | 5.00 | 2.00 |",
        "",
        "25,000,000 parameters, 2 workers on GPUs, 1 shard(s), shm; NVIDIA H200; AMD EPYC, 16 cores; "
        "torch 2.13.0+cu130.",
    ]


def test_a_measurement_that_fails_ends_it_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: tuple[str, ...], **_: object) -> None:
        raise subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(subprocess, "run", fail)
    assert gpu_figures.main([]) == 2
