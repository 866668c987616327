import json
from pathlib import Path
from typing import Any

import pytest

from psgd.cli import main
from psgd.cli.report_config import ReportConfig
from psgd.errors import ConfigurationError
from tests.analysis.runs import evaluation, write_run
from tests.records import iteration


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: runs of two modes with two seeds each, one below the other."""
    monkeypatch.chdir(tmp_path)
    for mode, pace in (("sync", 2.0), ("async", 1.0)):
        for seed in (0, 1):
            records = [iteration(slot=slot, step=step, time_s=pace * (step + 1)) for step in (0, 1) for slot in (0, 1)]
            settings: dict[str, Any] = {"mode": mode, "seed": seed, "optimizer": "SGD", "optimizer_args": {"lr": 0.1}}
            write_run(tmp_path / "runs" / mode / str(seed), [*records, evaluation(2, accuracy=0.75)], settings=settings)
    return tmp_path


def report(*words: str) -> int:
    return main(["report", *words], {})


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert report(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line.removeprefix("psgd: error: ")


def test_runs_made_elsewhere_get_a_report(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert report("runs") == 0
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()[2:4]] == ["sync", "async"]
    assert captured.err == "psgd report: the report is in report\n"
    assert {"report.json", "table.md", "curves.png"} <= {path.name for path in (here / "report").iterdir()}


def test_a_target_is_of_the_metric_that_runs_are_judged_by_unless_it_names_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report("runs/sync", "--target", "0.7", "runs/async", "--out", "there", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(Path("there/report.json").read_text())
    assert found["target"] == {"metric": "test_accuracy", "value": 0.7}
    assert [mode["figures"]["seconds_to_target"]["values"] for mode in found["modes"]] == [[4.0, 4.0], [2.0, 2.0]]
    assert found["modes"][0]["folders"] == ["../runs/sync/0", "../runs/sync/1"]
    assert report("runs", "--target", "loss=0.3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["target"] == {"metric": "test_loss", "value": 0.3}


def test_a_target_that_nobody_reached_is_no_time_of_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert report("runs", "--target", "0.9") == 0
    table = capsys.readouterr().out.split("\n\n")[0]
    assert table.count("not reached") == 4
    found = json.loads(Path("report/report.json").read_text())
    assert [mode["reached"] for mode in found["modes"]] == [0, 0]
    assert [mode["figures"]["seconds_to_target"]["values"] for mode in found["modes"]] == [[None, None]] * 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "RUN must be given: folders with a run.jsonl, or that hold such folders"),
        (
            ["nowhere"],
            "RUN must be a folder with a run.jsonl, or one that holds such folders, got nowhere: there is none",
        ),
        (
            ["runs", "--target", "fast"],
            "target must be VALUE or METRIC=VALUE, such as 0.85 or test_loss=0.1, got 'fast'",
        ),
        (["runs", "--target", "=1"], "target must be VALUE or METRIC=VALUE, such as 0.85 or test_loss=0.1, got '=1'"),
        (["runs", "--target", "f1=1"], "target: the metric must be one of accuracy, loss, got 'f1'"),
        (["runs", ""], "RUN must not be empty, got ''"),
        (["runs", "--out", ""], "--out must not be empty, got ''"),
        (["runs", "--targt", "1"], "unrecognized arguments: --targt 1; did you mean --target?; see psgd report --help"),
    ],
)
def test_what_can_not_be_reported_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], here: Path, words: list[str], line: str
) -> None:
    assert refusal(capsys, *words) == line
    assert not (here / "report").exists()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (b'"seed": 1, ', b"", ": the header's seed must be a whole number >= 0, got none"),
        (b'"time_s": 2.0', b'"time_s": "\xff"', ", line 2: not a record of a run log: "),
        (b'"time_s": 2.0', b'"time_s": "soon"', "(time_s must be a number, got 'soon')"),
    ],
)
def test_a_damaged_log_is_refused_in_one_line_that_names_it(
    capsys: pytest.CaptureFixture[str], here: Path, before: bytes, after: bytes, words: str
) -> None:
    log = here / "runs/sync/1/run.jsonl"
    log.write_bytes(log.read_bytes().replace(before, after))
    line = refusal(capsys, "runs")
    assert line.startswith("runs/sync/1/run.jsonl")
    assert words in line


def test_help_names_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert report("--help") == 0
    assert capsys.readouterr().out.startswith("usage: psgd report [OPTION ...] RUN ...\n")


def test_a_target_is_checked_before_any_log_is_read() -> None:
    with pytest.raises(ConfigurationError, match="target must be"):
        ReportConfig(runs=("a",), target="nan")


@pytest.mark.parametrize("out", ["a_file", "a_file/below"])
def test_a_report_that_can_not_be_written_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], here: Path, out: str
) -> None:
    (here / "a_file").write_text("mine")
    assert refusal(capsys, "runs", "--out", out).startswith(f"out must be a folder, got {out}: ")
    assert (here / "a_file").read_text() == "mine"


@pytest.mark.parametrize("name", ["report.json", "curves.png", "table.md", "report.html"])
def test_a_report_that_fails_in_the_end_says_what_to_do_in_one_line(
    capsys: pytest.CaptureFixture[str], here: Path, name: str
) -> None:
    (here / "report" / name).mkdir(parents=True)
    assert report("runs") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"psgd: error: report/{name} can not be written (Is a directory); the runs are kept: mend that, and psgd "
        "report, or the same command with the same --out, makes the report again\n"
    )


def test_runs_without_evaluations_reach_no_target(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    write_run(here / "timed", settings={"gradients": "none"})
    assert refusal(capsys, "timed", "--target", "0.5") == (
        "target must be left out of runs without evaluations, got 0.5"
    )
