import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psgd.cli import main
from psgd.cli.building import build_trainer
from psgd.cli.compare import make_trainer, plan
from psgd.cli.compare_config import CompareConfig
from psgd.cli.train_config import TrainConfig
from psgd.core.modes import Async, Sync
from psgd.errors import LostError
from psgd.experiments.arms import OptimizerChoice
from psgd.runlog import FILE_NAME

TINY = ("--data", "digits", "--steps", "2", "--seeds", "2")
SGD = OptimizerChoice("sgd", {"momentum": 0.9})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder: what a command writes unasked is seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(*options: str, **environment: str) -> int:
    return main(["compare", "--plane", "memory", *TINY, *options], environment)


def refusal(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line that the options are refused with."""
    assert compare(*options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("psgd: error: ")
    return line.removeprefix("psgd: error: ")


# ------------------------------------------------------------------ what is compared


def test_arms_are_every_optimizer_in_every_mode() -> None:
    config = CompareConfig(
        optimizers=("sgd:momentum=0.9", "adam"), modes=("sync", "async:4"), lrs=("0.1", "adam=0.001", "0.01")
    )
    assert [(arm.optimizer, arm.mode, arm.lrs) for arm in config.arms()] == [
        (SGD, Sync(), (0.1,)),
        (SGD, Async(4), (0.1,)),
        (OptimizerChoice("adam"), Sync(), (0.001, 0.01)),
        (OptimizerChoice("adam"), Async(4), (0.001, 0.01)),
    ]


def test_what_is_not_compared_is_as_in_a_single_run() -> None:
    config = CompareConfig(optimizer="sgd", optimizer_args={"momentum": 0.9}, lr=0.05, mode="async", staleness=2)
    (arm,) = config.arms()
    assert (arm.optimizer, arm.mode, arm.lrs) == (SGD, Async(2), (0.05,))


def test_optimizers_without_rates_get_their_usual_ones_in_every_mode() -> None:
    sync, late = CompareConfig(optimizers=("adam",), modes=("sync", "async")).arms()
    assert sync.lrs == late.lrs == (0.0003, 0.001, 0.003, 0.01)


def test_seeds_follow_the_first_one() -> None:
    comparison = plan(CompareConfig(seed=7, seeds=3, out="here"))
    assert (comparison.seeds, comparison.out) == ((7, 8, 9), Path("here"))
    assert plan(CompareConfig()).out.parent == Path("runs")


def test_a_run_is_what_psgd_train_would_make_of_the_same_options() -> None:
    config = CompareConfig(
        plane="memory", steps=3, optimizers=("sgd:momentum=0.9",), modes=("sync+1",), lrs=("0.1",), seed=5, seeds=1
    )
    run = next(plan(config).runs())
    alone = TrainConfig(
        plane="memory", steps=3, optimizer="sgd", optimizer_args={"momentum": 0.9}, backups=1, lr=0.1, seed=5
    )
    assert make_trainer(config, run).plan().settings == build_trainer(alone).plan().settings


def test_how_the_comparison_was_called_is_no_setting_of_a_run() -> None:
    quiet, loud = CompareConfig(seeds=1), CompareConfig(seeds=2, json=True, out="out")
    settings = [make_trainer(config, next(plan(config).runs())).plan().settings for config in (quiet, loud)]
    assert settings[0] == settings[1]


# ------------------------------------------------------------------ the command


def test_a_comparison_ends_with_a_table_and_a_report(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    asked = ("--optimizers", "sgd:momentum=0.9,adam", "--lrs", "0.1,adam=0.001,0.01", "--out", "out")
    assert compare(*asked) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert " ".join(lines[0].split()).startswith("optimizer mode lr test accuracy train accuracy samples/s")
    assert lines[2].split()[:3] == ["sgd:momentum=0.9", "sync", "0.1"]
    assert lines[3].split()[:2] == ["adam", "sync"]
    told = captured.err.splitlines()
    assert told[0] == "psgd compare: runs to make: 6"
    assert told[1].startswith("psgd compare: 1 of 6: sgd:momentum=0.9, sync, lr 0.1, seed 0: test accuracy ")
    assert told[-1] == "psgd compare: the runs are in out; with --out out the same command keeps them"
    report = json.loads((here / "out" / "report.json").read_text())
    assert [(arm["arm"], len(arm["lrs"])) for arm in report["modes"]] == [
        ("sgd:momentum=0.9, sync", 1),
        ("adam, sync", 2),
    ]
    assert report["seeds"] == [0, 1]
    best = max(report["modes"][1]["lrs"], key=lambda rate: rate["test_accuracy"]["median"])
    assert report["modes"][1]["lr"] == best["lr"]
    assert len(list((here / "out").glob(f"*/*/*/{FILE_NAME}"))) == 6
    assert {"table.md", "curves.png", "sensitivity.png"} <= {path.name for path in (here / "out").iterdir()}

    assert compare(*asked, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1]) == report
    assert captured.err.splitlines()[0] == "psgd compare: 6 of 6 runs are there already and are not made again"


def test_a_dry_run_says_what_is_missing_and_writes_nothing(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert compare("--modes", "sync,async:1", "--dry-run", "--json", "--out", "out") == 0
    assert json.loads(capsys.readouterr().out) == {
        "arms": ["adam, sync: lr 0.002", "adam, async:1: lr 0.002"],
        "seeds": [0, 1],
        "runs": 4,
        "complete": 0,
        "out": "out",
    }
    assert list(here.iterdir()) == []


def test_a_comparison_in_which_runs_failed_says_so_after_its_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from psgd import inprocess

    real: Callable[..., Any] = inprocess.run

    def run(job: Any, *more: Any, **named: Any) -> Any:
        if job.training.seed == 1:
            raise LostError("shard 1 is gone")
        return real(job, *more, **named)

    monkeypatch.setattr("psgd.inprocess.run", run)
    assert compare("--out", "out", "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["modes"][0]["failed"] == 1
    assert captured.err.splitlines()[-1] == (
        "psgd: error: 1 of 2 runs have failed, the last one: shard 1 is gone; the same command makes them again"
    )


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--modes", "sync,asink"), "modes must be sync, sync+BACKUPS, async or async:STALENESS, got 'asink'"),
        (("--modes", "sync+2"), "backups must be < slots"),
        (("--optimizers", "adam,,sgd:0.9x="), "optimizers must be written NAME or NAME:ARGUMENT=VALUE:..."),
        (("--optimizers", "adam,adam"), "arms must differ, got adam_sync 2 times"),
        (("--optimizers", "my.pkg:Mine"), "lrs must be given for my.pkg:Mine"),
        (("--optimizers", "adm", "--lrs", "0.1"), "adm"),
        (("--optimizers", "sgd:momentu=0.9", "--lrs", "0.1"), "momentu"),
        (("--optimizers", "adam", "--lrs", "sgd=0.1"), "lrs: the optimizer"),
        (("--lrs", "0.1,0.1"), "lrs must differ, got 0.1 2 times"),
        (("--lrs", "fast"), "lrs must be numbers > 0, or NAME= and such numbers, got 'fast'"),
        (("--lrs", "0.1", "--lr", "0.2"), "lr must be left out with lrs, got 0.2; say it with lrs"),
        (("--optimizers", "sgd", "--lr", "0.2"), "lr must be left out with optimizers, got 0.2; say it with lrs"),
        (("--optimizers", "sgd", "--optimizer", "sgd"), "optimizer must be left out with optimizers, got sgd"),
        (("--modes", "async", "--mode", "async"), "mode must be left out with modes, got async; say it with modes"),
        (("--seeds", "0"), "seeds must be >= 1, got 0"),
        (("--patience", "3"), "patience must be left out: all runs have the same budget, got 3"),
        (("--plot",), "plot must be left out: a comparison draws pictures of its own; try psgd train"),
        (("--optimizer-args", "momentum=0.9"), "momentum"),
        (("--epochs", "3"), "epochs must be left out with steps"),
    ],
)
def test_what_can_not_be_compared_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], here: Path, options: tuple[str, ...], words: str
) -> None:
    assert words in refusal(capsys, *options, "--out", "out")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("words", [["--help"], ["--modes", "asink"], ["--lrs", "adm=1"]])
def test_help_and_refusals_come_without_torch(words: list[str]) -> None:
    program = (
        f"import sys; from psgd.cli import main; main(['compare', *{words}], {{}}); "
        "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_other_settings_in_the_same_folder_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--seeds", "1", "--out", "out") == 0
    capsys.readouterr()
    line = refusal(capsys, "--seeds", "1", "--out", "out", "--batch-size", "16")
    assert line.startswith("out must be without runs of other settings, got out/adam_sync/0.002/0: batch_size is 32")
