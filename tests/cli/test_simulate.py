import json
from pathlib import Path
from typing import Any

import pytest

from psgd.cli.entry import REFUSED, main
from psgd.runlog import Evaluation, Footer, Header, Iteration, read

TIMING = ("--gradients", "none", "--mode", "async", "--compute", "exp:1", "--json")


def simulate(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["simulate", *words], {}) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return figures


def test_timing_among_many_workers_ends_with_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    figures = simulate(capsys, "--workers", "100", "--shards", "4", "--iterations", "20", *TIMING, "--out", str(out))
    assert figures["pushes"] == 2000
    assert figures["pushes_per_s"] == pytest.approx(2000 / figures["virtual_seconds"])
    assert 0 <= figures["idle_share"] < 0.3
    assert figures["lag"]["mean"] == pytest.approx(99, rel=0.05)
    assert sum(figures["lag"]["histogram"].values()) == 2000
    assert figures["lag"]["max"] == max(map(int, figures["lag"]["histogram"]))
    assert figures["max_clock_gap"] > 0
    records = list(read(out))
    assert isinstance(records[0], Header)
    assert records[0].settings["world"]["compute"] == "exp:1"
    assert sum(isinstance(record, Iteration) for record in records) == 2000
    assert isinstance(records[-1], Footer)


def test_a_staleness_bound_holds_in_a_simulation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--workers", "8", "--iterations", "30", "--staleness", "2", *TIMING, "--out", str(tmp_path / "run"))
    assert simulate(capsys, *words)["max_clock_gap"] == 2


def test_training_in_virtual_time_leaves_the_log_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ("--data", "digits", "--workers", "4", "--iterations", "3", "--evaluate-every", "3", "--json")
    figures = simulate(capsys, *words, "--compute", "2", "--straggler", "0:3x", "--out", str(out))
    assert figures["virtual_seconds"] == 18.0
    assert "seconds" not in figures
    assert figures["test_accuracy"] is not None
    records = list(read(out))
    assert [record.time_s for record in records if isinstance(record, Evaluation)] == [18.0]
    assert (out / "weights.safetensors").exists()


def test_local_steps_take_their_time_without_gradients_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--gradients", "none", "--local-steps", "4", "--iterations", "3", "--json", "--out", str(tmp_path / "run"))
    assert simulate(capsys, *words)["virtual_seconds"] == 12.0


def test_clipping_takes_its_round_between_shards_without_gradients_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--gradients", "none", "--iterations", "10", "--latency", "1", "--json")
    free = simulate(capsys, *words, "--out", str(tmp_path / "free"))
    clipped = simulate(capsys, *words, "--clip-norm", "1", "--out", str(tmp_path / "clipped"))
    assert clipped["virtual_seconds"] == free["virtual_seconds"] + 10 * 2.0  # to the lead and back, in every step


def test_a_dry_run_says_what_would_be_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    for words in (("--gradients", "none"), ()):
        figures = simulate(capsys, *words, "--dry-run", "--json", "--latency", "1ms", "--out", str(out))
        assert (figures["slots"], figures["world"]) == (2, "compute 1, latency 1ms, downtime 10")
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--iterations 3 --steps 3", "iterations must be left out with steps and epochs, got 3"),
        ("--gradients none --epochs 3", "epochs must be left out without gradients, got 3; try steps"),
        ("--parameters 10", "parameters must be left out with gradients, got 10: the model's count"),
        ("--gradients none --parameters -1", "parameters must be >= 0, got -1"),
        ("--gradients none --iterations 0", "iterations must be >= 1, got 0"),
        ("--gradients none --slots 0", "slots must be >= 1, got 0"),
        ("--gradients none --workers -3", "workers must be >= 1, got -3"),
        (
            "--gradients none --evaluate-every 4",
            "evaluate_every must be left out without gradients, got 4: nothing is trained; try --gradients real",
        ),
        ("--gradients none --mode async --correction lag-lr", "correction must be left out without gradients, got lag"),
        ("--gradients none --until test_accuracy=0.5", "until must be left out without gradients, got test_accuracy"),
        (
            "--gradients none --wire bfloat16",
            "wire must be left out without gradients, got bfloat16: --parameters numbers travel as float32",
        ),
        ("--gradients none --clip-norm 0", "clip_norm must be a finite number > 0, got 0.0"),
        ("--gradients none --seed -1", "seed must be in 0 … 2**63 - 1, got -1"),
        ("--gradients none --seed 9223372036854775808", "seed must be in 0 … 2**63 - 1, got 9223372036854775808"),
        ("--gradients none --compute 1e308", "compute must be <= 1e+09 s, got 1e308"),
        ("--compute 1e10", "compute must be <= 1e+09 s, got 1e10"),
        ("--gradients none --straggler 0:9999999999x", "straggler factor must be <= 1e+09, got 1e+10"),
        ("--gradients none --straggler 0:exp:1e308", "straggler delay must be <= 1e+09 s, got exp:1e308"),
        ("--gradients some", "--gradients must be real or none, got 'some'"),
        ("--compute exp", "compute: a duration must be NUMBER, exp:MEAN"),
        ("--gradients none --workers 3 --slots 2", "workers must be in 1 … 2, the slots, got 3"),
        ("--plane rpc", "plane must be left out with a world, whose network is its own, got rpc"),
        ("--use-gpu", "world must be left out with GPUs: a simulation computes on the CPU"),
    ],
)
def test_what_can_not_be_simulated_is_refused_in_one_line(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *words.split(), "--out", str(tmp_path / "run")], {}) == REFUSED
    error = capsys.readouterr().err
    assert error.startswith("psgd: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
