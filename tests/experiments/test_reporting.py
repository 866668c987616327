import errno
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from psgd.analysis.comparison import Budget, Target
from psgd.analysis.findings import find
from psgd.core.corrections import LagRate
from psgd.core.modes import Async, Sync
from psgd.errors import PsgdError
from psgd.experiments.arms import Arm, Comparison, Run, Scheme
from psgd.experiments.reporting import read_figures, write_report
from tests.analysis.runs import evaluation, losses, write_run
from tests.experiments.small import ADAM, SGD
from tests.records import iteration


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """Two arms of which one has a run less."""
    arms = Arm(SGD, Scheme(Sync(1)), (0.2, 0.1)), Arm(ADAM, Scheme(Async(4)), (0.1,))
    comparison = Comparison(arms, (3, 4), tmp_path / "out")
    for run in comparison.runs():
        if run != Run(arms[1], 0.1, 4):
            records = [*losses(1.0, 0.5), evaluation(2, accuracy=run.lr)]
            write_run(comparison.out / run.folder, records, settings={"seed": run.seed}, train={"accuracy": 0.75})
    return comparison


def test_everything_is_read_back_from_the_logs(comparison: Comparison) -> None:
    figures = read_figures(comparison)
    sgd, adam = figures.arms
    assert figures.seeds == (3, 4)
    assert (sgd.optimizer, sgd.mode) == ("sgd:momentum=0.5", "sync+1")
    assert [rate.lr for rate in sgd.rates] == [0.1, 0.2]
    assert [run and run.settings["seed"] for run in sgd.rates[0].runs] == [3, 4]
    assert adam.about == {
        "arm": "adam, async:4",
        "optimizer": "adam",
        "optimizer_args": {},
        "mode": "async",
        "staleness": 4,
        "gather": 1,
        "correction": None,
        "local_steps": None,
        "backups": 0,
    }
    assert adam.rates[0].runs[1] is None
    assert sgd.about["backups"] == 1


def test_what_a_mode_does_otherwise_is_among_what_machines_know(tmp_path: Path) -> None:
    arm = Arm(SGD, Scheme(Async(None, gather=3), LagRate()), (0.1,))
    (read,) = read_figures(Comparison((arm,), (3,), tmp_path)).arms
    assert read.mode == "async/softsync=3/lag-lr"
    assert (read.about["staleness"], read.about["gather"], read.about["correction"]) == (None, 3, "lag-lr")


def test_the_figures_know_budget_and_target(comparison: Comparison) -> None:
    assert (read_figures(comparison).budget, read_figures(comparison).target) == (Budget("samples"), None)
    budget, target = Budget("seconds", 2.0), Target("test_accuracy", 0.5)
    figures = read_figures(replace(comparison, budget=budget, target=target))
    assert (figures.budget, figures.target) == (budget, target)


def test_the_report_is_a_page_json_and_pictures(comparison: Comparison) -> None:
    returned = write_report(find(read_figures(comparison)), comparison.out)
    files = sorted(path.name for path in comparison.out.iterdir() if path.suffix != ".png" and path.is_file())
    assert files == ["report.html", "report.json", "table.md"]
    assert {"curves.png", "loss.png", "sensitivity.png"} <= {path.name for path in comparison.out.iterdir()}
    report = json.loads((comparison.out / "report.json").read_text())
    assert report == returned
    assert [(arm["arm"], arm["lr"], arm["failed"]) for arm in report["modes"]] == [
        ("sgd:momentum=0.5, sync+1", 0.2, 0),
        ("adam, async:4", 0.1, 1),
    ]
    page = (comparison.out / "table.md").read_text()
    assert "| sgd:momentum=0.5 | sync+1 | 0.2 | 20.00 % | 75.00 % |" in page
    assert "![sensitivity](sensitivity.png)" in page


def test_without_matplotlib_all_but_the_pictures_is_written(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with caplog.at_level(logging.WARNING, "psgd"):
        write_report(find(read_figures(comparison)), comparison.out)
    assert "there are no pictures" in caplog.text
    assert "pip install 'psgd[plots]'" in caplog.text
    files = sorted(path.name for path in comparison.out.iterdir() if path.is_file())
    assert files == ["report.html", "report.json", "table.md"]
    assert "![" not in (comparison.out / "table.md").read_text()


KEPT = "the runs are kept: mend that, and psgd report, or the same command with the same --out, makes the report again"


@pytest.mark.parametrize("name", ["report.json", "report.html", "table.md", "curves.png", "lags.png"])
def test_a_file_that_can_not_be_written_is_named_with_the_reason_and_the_remedy(
    comparison: Comparison, name: str
) -> None:
    write_run(comparison.out / Run(comparison.arms[1], 0.1, 4).folder, [iteration(lag=3)])
    (comparison.out / name).mkdir()
    with pytest.raises(PsgdError) as caught:
        write_report(find(read_figures(comparison)), comparison.out)
    assert str(caught.value) == f"{comparison.out / name} can not be written (Is a directory); {KEPT}"


@pytest.mark.parametrize(
    ("writer", "named"),
    [
        ("pathlib.Path.write_text", "{}/report.json"),
        ("psgd.experiments.reporting.write_page", "{}/report.html"),
        ("psgd.experiments.reporting.draw", "a picture in {}"),
    ],
)
def test_a_full_disk_is_told_though_its_error_names_no_file(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, writer: str, named: str
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    findings = find(read_figures(comparison))
    monkeypatch.setattr(writer, fail)
    with pytest.raises(PsgdError) as caught:
        write_report(findings, comparison.out)
    assert str(caught.value) == f"{named.format(comparison.out)} can not be written (No space left on device); {KEPT}"


def test_a_folder_that_can_not_be_made_is_told(comparison: Comparison) -> None:
    taken = comparison.out / "taken"
    taken.touch()
    with pytest.raises(PsgdError, match=rf"^{taken} can not be written \(File exists\); the runs are kept: "):
        write_report(find(read_figures(comparison)), taken)
