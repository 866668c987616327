import csv
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from psgd.cli import main
from psgd.folderlock import only_writer
from psgd.tuning.journal import Journal
from tests.cluster.test_end import RUN_VARIABLE, wait_for_end
from tests.tuning.in_process import InProcess

GRID = ("--space", "lr=0.002,0.01", "--space", "batch_size=16,100000", "--search", "grid")
PICTURES = ["history.png", "parallel.png"]
FILES = sorted(["best.yaml", "results.csv", "results.json", "search.yaml", "trials.jsonl", *PICTURES])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder: what a command writes unasked is seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """Trials run here, without Ray."""
    made = InProcess(monkeypatch)
    monkeypatch.setattr("psgd.cli.tune.make_trials", made)
    return made


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts a trial fails the test."""

    def fail(*_: Any) -> NoReturn:
        raise AssertionError("a trial was started")

    monkeypatch.setattr("psgd.cli.tune.make_trials", fail)


def tune(*options: str, **environment: str) -> int:
    return main(["tune", "--plane", "memory", "--steps", "20", *options], environment)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("in_process")
def test_a_search_prints_its_trials_the_best_first_and_why_others_came_to_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(*GRID, "--out", "search") == 0
    captured = capsys.readouterr()
    heading, ruler, *rows = captured.out.splitlines()
    assert heading.split() == ["trial", "lr", "batch_size", "test_accuracy", "steps", "seconds", "status"]
    assert set(ruler) == {"-"}
    assert [row.split()[1:3] + row.split()[-1:] for row in rows] == [
        ["0.01", "16", "done"],
        ["0.002", "16", "done"],
        ["0.002", "100000", "refused"],
        ["0.01", "100000", "refused"],
    ]
    assert "psgd: trials 1, 3 refused: slots * batch_size must be <= the 1437 samples" in captured.err
    assert "psgd: no importance.png: it takes 5 trials" in captured.err
    assert captured.err.splitlines()[-1].startswith(
        "psgd: psgd train --config search/best.yaml trains the best setting"
    )
    assert entries(here) == ["search"]
    assert entries(here / "search") == FILES
    assert len(list(csv.DictReader(Path("search/results.csv").read_text().splitlines()))) == 4


@pytest.mark.usefixtures("in_process")
def test_train_accepts_the_best_options_and_comes_to_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(*GRID, "--out", "search", "--json", "--optimizer-args", "eps=1e-7", "--seed", "3") == 0
    best = json.loads(capsys.readouterr().out.splitlines()[-1])["best"]
    assert best["values"] == {"lr": 0.01, "batch_size": 16}
    assert main(["train", "--config", "search/best.yaml", "--json"], {}) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {name: figures[name] for name in best["metrics"]} == best["metrics"]
    options = yaml.safe_load(Path("search/best.yaml").read_text())
    assert (options["seed"], options["optimizer_args"], options["out"]) == (3, {"eps": 1e-7}, None)
    assert "space" not in options


@pytest.mark.usefixtures("in_process")
def test_json_says_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(*GRID, "--out", "search", "--json", "--objective", "test_loss") == 0
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["objective"], found["goal"], found["trials"], found["out"]) == ("test_loss", "min", 4, "search")
    assert found["statuses"] == {"done": 2, "refused": 2}
    assert (found["best"]["steps"], found["best"]["values"]["batch_size"]) == (20, 16)


def test_an_interrupted_search_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("psgd.cli.tune.make_trials", InProcess(monkeypatch, interrupt_after=1))
    assert tune(*GRID, "--out", "search") == 130
    assert "psgd tune --config search/search.yaml --out search --resume goes on with it" in capsys.readouterr().err
    before = Journal(Path("search")).read()
    again = InProcess(monkeypatch)
    monkeypatch.setattr("psgd.cli.tune.make_trials", again)
    assert main(["tune", "--config", "search/search.yaml", "--out", "search", "--resume"], {}) == 0
    after = Journal(Path("search")).read()
    assert after[:1] == before
    assert len(again.points) == 3
    assert sorted(trial.number for trial in after) == [0, 1, 2, 3]
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_a_search_that_is_complete_is_only_reported_again(
    monkeypatch: pytest.MonkeyPatch, in_process: InProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(*GRID, "--out", "search") == 0
    table = capsys.readouterr().out
    assert tune(*GRID, "--out", "search", "--resume") == 0
    assert capsys.readouterr().out == table
    assert len(in_process.points) == 4


def test_failed_trials_are_made_again(
    monkeypatch: pytest.MonkeyPatch, in_process: InProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> NoReturn:
        raise ZeroDivisionError("the user's own")

    with monkeypatch.context() as patch:
        patch.setattr("psgd.inprocess.run", broken)
        assert tune("--space", "lr=0.1,0.2", "--search", "grid", "--out", "search") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "psgd: error: none of 2 trials has a test_accuracy: trials 0, 1 failed: ZeroDivisionError: "
    )
    assert "best.yaml" not in entries(Path("search"))
    assert tune("--space", "lr=0.1,0.2", "--search", "grid", "--out", "search", "--resume") == 0
    assert [trial.status for trial in Journal(Path("search")).read()] == ["done", "done"]


@pytest.mark.usefixtures("in_process")
def test_more_trials_may_be_asked_for_when_a_search_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    space = ("--space", "lr=log:1e-3:1e-1", "--out", "search")
    assert tune(*space, "--trials", "1") == 0
    assert tune(*space, "--trials", "2", "--resume") == 0
    first, second = Journal(Path("search")).read()
    assert first.point != second.point


@pytest.mark.usefixtures("nobody")
def test_a_dry_run_tells_the_plan_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(*GRID, "--dry-run", "--json", "--out", "search") == 0
    assert json.loads(capsys.readouterr().out) == {
        **{"search": "grid", "trials": 4, "left": 4, "objective": "test_accuracy", "goal": "max", "out": "search"},
        **{"space lr": "0.002,0.01", "space batch_size": "16,100000"},
    }
    assert entries(here) == []


def test_a_metric_that_evaluations_do_not_have_names_those_they_have_and_leaves_nothing(
    here: Path, in_process: InProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(*GRID, "--objective", "accuracy", "--out", "search") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "objective" in error
    assert "test_accuracy, test_loss" in error
    assert len(in_process.points) == 1
    assert entries(here) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", ["space must name what to search"]),
        ("--space lrr=0.1,0.2", ["space", "'lrr'", "did you mean lr?"]),
        ("--space lr", ["--space must be key=value, once for each key"]),
        ("--space lr=0.1,fast", ["space: lr must be a number, got 'fast'"]),
        ("--space lr=log:1e-4:1e-1 --search grid", ["search grid needs choices, got a range for lr"]),
        ("--space lr=0.1,0.2 --search grid --trials 3", ["trials must be left out with search grid"]),
        ("--space lr=0.1,0.2 --search bayes", ["--search must be grid, random, tpe or gp, got 'bayes'"]),
        ("--space lr=0.1,0.2 --goal up", ["--goal must be min or max, got 'up'"]),
        ("--space lr=0.1,0.2 --asha --grace-period 0", ["grace_period must be >= 1 evaluations, got 0"]),
        ("--space lr=0.1,0.2 --asha --reduction-factor 1", ["reduction_factor must be >= 2, got 1"]),
        ("--space workers=0,-1", ["none of 16 points of the space can be run; the first: workers must be >= 1"]),
        ("--space lr=0.1,0.2 --data mnist", ["the first: data mnist needs the folder of its IDX files"]),
        ("--space lr=0.1,0.2 --optimizer sdg", ["the first: optimizer", "'sdg'"]),
    ],
)
@pytest.mark.usefixtures("nobody")
def test_bad_input_is_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, options: str, words: list[str]
) -> None:
    assert tune("--out", "search", *options.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("psgd: error: ")
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err
    assert entries(here) == []


def test_another_search_in_the_folder_is_refused(in_process: InProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(*GRID, "--out", "search") == 0
    written = Path("search/trials.jsonl").read_bytes()
    capsys.readouterr()
    assert tune(*GRID, "--out", "search") == 2
    assert capsys.readouterr().err == (
        "psgd: error: out must be without a search, got search: go on with --resume, or choose another folder\n"
    )
    assert tune(*GRID, "--out", "search", "--resume", "--seed", "7") == 2
    assert capsys.readouterr().err == (
        "psgd: error: resume: seed must be 0 as in search/search.yaml, got 7; "
        "take all options from there with --config search/search.yaml\n"
    )
    assert Path("search/trials.jsonl").read_bytes() == written
    assert len(in_process.points) == 4


def test_a_folder_that_another_process_writes_to_is_refused_in_one_line(
    here: Path, in_process: InProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(*GRID, "--out", "search") == 0
    written = Path("search/trials.jsonl").read_bytes()
    capsys.readouterr()
    with only_writer(here / "search"):
        assert tune(*GRID, "--out", "search", "--resume") == 2
        assert capsys.readouterr().err == (
            "psgd: error: out must have one writer, got search: another process is writing there; wait for its end, or "
            "choose another folder\n"
        )
        assert tune(*GRID, "--out", "search", "--resume", "--dry-run") == 0
    assert Path("search/trials.jsonl").read_bytes() == written
    assert len(in_process.points) == 4


# ------------------------------------------------------------------ on a Ray of its own


@pytest.mark.ray
def test_ctrl_c_leaves_no_process_and_resume_makes_what_is_left(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(uuid.uuid4())
    search = start_search(run, here)
    search.send_signal(signal.SIGINT)
    assert search.wait(timeout=20) == 130
    assert wait_for_end(run, names=()) == []
    assert b"Traceback" not in Path("stderr").read_bytes()
    before = Journal(Path("search")).read()
    assert [(trial.status, trial.reason) for trial in before] == [("done", None), ("stopped", "after 1 evaluation")]
    assert main(["tune", "--config", "search/search.yaml", "--out", "search", "--resume", "--json"], {}) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["statuses"] == {"done": 2, "stopped": 2}
    after = Journal(Path("search")).read()
    assert after[:2] == before
    assert after[2].evaluations[-1].metrics == before[0].evaluations[-1].metrics  # slower, not another


def start_search(run: str, folder: Path) -> "subprocess.Popen[bytes]":
    """Two quick trials, of which ASHA stops the second; it is told to end in the slow ones behind them."""
    program = "import sys; from psgd.cli import main; sys.exit(main())"
    budget = ["--plane", "memory", "--steps", "20", "--evaluate-every", "10", "--concurrent", "1", "--asha"]
    space = ["--space", "lr=0.01,0.0001", "--space", "straggler=[],[0:60ms]", "--search", "grid"]
    with (folder / "stderr").open("wb") as stderr:
        search = subprocess.Popen(
            [sys.executable, "-c", program, "tune", *budget, *space, "--out", "search"],
            env={**os.environ, RUN_VARIABLE: run},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    journal = folder / "search" / "trials.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n") == 2):
        assert search.poll() is None, (folder / "stderr").read_text()
        time.sleep(0.05)
    return search
