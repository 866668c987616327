import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psgd.analysis.comparison import Budget, Target
from psgd.cli import main
from psgd.cli.building import build_trainer
from psgd.cli.compare import make_trainer, plan
from psgd.cli.compare_config import CompareConfig
from psgd.cli.train_config import TrainConfig
from psgd.core.corrections import LagRate
from psgd.core.modes import Async, Sync
from psgd.errors import LostError
from psgd.experiments.arms import OptimizerChoice, Scheme
from psgd.experiments.performing import inspect
from psgd.folderlock import only_writer
from psgd.runlog import FILE_NAME, Evaluation, Footer, read
from psgd.training.policies import StopAfter, StopAtTarget

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
    assert [(arm.optimizer, arm.scheme, arm.lrs) for arm in config.arms()] == [
        (SGD, Scheme(Sync()), (0.1,)),
        (SGD, Scheme(Async(4)), (0.1,)),
        (OptimizerChoice("adam"), Scheme(Sync()), (0.001, 0.01)),
        (OptimizerChoice("adam"), Scheme(Async(4)), (0.001, 0.01)),
    ]


def test_what_is_not_compared_is_as_in_a_single_run() -> None:
    config = CompareConfig(optimizer="sgd", optimizer_args={"momentum": 0.9}, lr=0.05, mode="async", staleness=2)
    (arm,) = config.arms()
    assert (arm.optimizer, arm.scheme, arm.lrs) == (SGD, Scheme(Async(2)), (0.05,))
    (arm,) = CompareConfig(mode="async", gather=2, correction="lag-lr").arms()
    assert arm.scheme == Scheme(Async(gather=2), LagRate())


def test_optimizers_without_rates_get_their_usual_ones_in_every_mode() -> None:
    sync, late = CompareConfig(optimizers=("adam",), modes=("sync", "async")).arms()
    assert sync.lrs == late.lrs == (0.0003, 0.001, 0.003, 0.01)


def test_seeds_follow_the_first_one() -> None:
    comparison = plan(CompareConfig(seed=7, seeds=3, out="here"))
    assert (comparison.seeds, comparison.out) == ((7, 8, 9), Path("here"))
    assert plan(CompareConfig()).out.parent == Path("runs")


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("sync+1", {"backups": 1}),
        ("async:4/softsync=2/dca", {"mode": "async", "staleness": 4, "gather": 2, "correction": "dca=2:0.95"}),
        ("async/gap=0.9", {"mode": "async", "correction": "gap=0.9"}),
    ],
)
def test_a_run_is_what_psgd_train_would_make_of_the_same_options(mode: str, options: dict[str, Any]) -> None:
    config = CompareConfig(
        plane="memory", steps=3, optimizers=("sgd:momentum=0.9",), modes=(mode,), lrs=("0.1",), seed=5, seeds=1
    )
    run = next(plan(config).runs())
    alone = TrainConfig(
        plane="memory",
        steps=3,
        evaluate_every=1,
        optimizer="sgd",
        optimizer_args={"momentum": 0.9},
        lr=0.1,
        seed=5,
        **options,
    )
    assert make_trainer(config, run).plan().settings == build_trainer(alone).plan().settings


def test_how_the_comparison_was_called_is_no_setting_of_a_run() -> None:
    quiet, loud = CompareConfig(seeds=1), CompareConfig(seeds=2, json=True, out="out")
    settings = [make_trainer(config, next(plan(config).runs())).plan().settings for config in (quiet, loud)]
    assert settings[0] == settings[1]


def settings_of(**options: Any) -> dict[str, Any]:
    """What the log of a first run is going to say."""
    config = CompareConfig(**{"plane": "memory", "steps": 100, **options})
    return make_trainer(config, next(plan(config).runs())).plan().settings


@pytest.mark.parametrize(
    ("options", "evaluate_every"),
    [
        ({"steps": 100}, 2),
        ({"steps": 10}, 1),
        ({"steps": None, "epochs": 40}, 22),  # 1437 samples make 22 steps of 2 slots of 32
        ({"steps": None, "epochs": 80}, 44),
        ({"steps": 100, "evaluate_every": 7}, 7),
        ({"steps": None, "epochs": 80, "budget": "seconds", "seconds": 1.0}, 5),  # four times an epoch, or more often
        ({"steps": 100, "budget": "seconds", "seconds": 1.0}, 2),
    ],
)
def test_a_run_is_evaluated_about_forty_times_unless_said(options: dict[str, Any], evaluate_every: int) -> None:
    settings = settings_of(**options)
    assert settings["evaluate_every"] == settings["options"]["evaluate_every"] == evaluate_every


def test_a_budget_of_seconds_ends_every_run_after_them() -> None:
    config = CompareConfig(budget="seconds", seconds=1.5, steps=100)
    assert plan(config).budget == Budget("seconds", 1.5)
    assert make_trainer(config, next(plan(config).runs())).callbacks == [StopAfter(1.5)]


def test_a_budget_of_seconds_needs_no_length() -> None:
    assert settings_of(steps=None, budget="seconds", seconds=1.5)["steps"] == 1000 * 22
    assert settings_of(steps=None, epochs=3, budget="seconds", seconds=1.5)["steps"] == 3 * 22


@pytest.mark.parametrize("metric", ["", "test_accuracy="])
def test_a_budget_of_a_target_ends_every_run_that_has_reached_it(metric: str) -> None:
    config = CompareConfig(budget="target", target=f"{metric}0.123456789")
    comparison = plan(config)
    assert (comparison.budget, comparison.target) == (Budget("target"), Target("test_accuracy", 0.123456789))
    trainer = make_trainer(config, next(comparison.runs()))
    assert trainer.callbacks == [StopAtTarget("test_accuracy", 0.123456789)]


def test_the_usual_target_of_a_regression_is_its_error() -> None:
    assert plan(CompareConfig(data="diabetes", target="50")).target == Target("test_rmse", 50.0)


@pytest.mark.parametrize("budget", [{}, {"budget": "seconds", "seconds": 1.0}])
def test_a_target_that_is_only_reported_is_no_setting_of_a_run(budget: dict[str, Any]) -> None:
    assert settings_of(**budget, target="0.9") == settings_of(**budget)
    assert plan(CompareConfig(**budget, target="0.9")).target == Target("test_accuracy", 0.9)


def test_stragglers_are_those_of_a_single_run() -> None:
    assert settings_of(straggler=("*:exp:5ms", "1:3x"))["stragglers"] == [
        {"slot": None, "delay": "exp:5ms", "factor": 1.0},
        {"slot": 1, "delay": "0", "factor": 3.0},
    ]


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
        "budget": "samples",
        "target": None,
        "runs": 4,
        "complete": 0,
        "out": "out",
    }
    assert list(here.iterdir()) == []


def footers(folder: Path) -> list[dict[str, Any]]:
    """The figures of every run, in the order of their folders."""
    logs = sorted(folder.glob(f"*/*/*/{FILE_NAME}"))
    ends = [list(read(log))[-1] for log in logs]
    return [end.figures for end in ends if isinstance(end, Footer)]


TWO_MODES = ("--modes", "sync,async", "--seeds", "1", "--out", "out", "--json")


def test_each_budget_is_kept_to(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    target = ("--budget", "target", "--target", "0.5", "--steps", "400", "--evaluate-every", "5")
    assert compare(*TWO_MODES, *target) == 0
    for figures in footers(here / "out"):
        assert figures["stopped_early"].startswith("test_accuracy has reached 0.5 with ")
        assert 10 <= figures["steps"] < 400
    assert compare(*TWO_MODES, *target, "--target", "test_accuracy=0.50", "--seeds", "2") == 0
    assert "2 of 4 runs are there already and are not made again" in capsys.readouterr().err

    seconds = ("--budget", "seconds", "--seconds", "0.05", "--steps", "100000", "--evaluate-every", "5", "--out", "o2")
    assert compare(*TWO_MODES, *seconds) == 0
    for figures in footers(here / "o2"):
        assert figures["stopped_early"].endswith(f" of 0.05 s have passed: stopped at step {figures['steps']}")
        assert figures["seconds"] >= 0.05
    assert "raise --epochs or --steps" not in capsys.readouterr().err

    assert compare(*TWO_MODES, "--steps", "8", "--target", "1", "--out", "o3") == 0
    assert [(figures["steps"], figures["stopped_early"]) for figures in footers(here / "o3")] == [(8, None)] * 2
    evaluations = [r.step for r in read(next((here / "o3").glob(f"*/*/*/{FILE_NAME}"))) if isinstance(r, Evaluation)]
    assert evaluations == list(range(1, 9))
    capsys.readouterr()
    assert compare(*TWO_MODES, "--steps", "8", "--target", "test_loss=0.1", "--out", "o3") == 0
    assert "2 of 2 runs are there already and are not made again" in capsys.readouterr().err


def test_runs_that_had_no_more_to_do_before_their_time_was_over_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--seeds", "1", "--budget", "seconds", "--seconds", "3600") == 0
    assert (
        "1 of 1 runs came to the end of their epochs or steps before their 3600 s were over: raise --epochs or --steps"
    ) in " ".join(capsys.readouterr().out.split())


def test_another_target_to_end_at_makes_other_runs(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--seeds", "1", "--out", "out", "--budget", "target", "--target")
    assert compare(*asked, "0.99") == 0
    capsys.readouterr()
    line = refusal(capsys, *asked, "0.98")
    assert line.endswith("budget target is test_accuracy=0.99 there, test_accuracy=0.98 here; choose another folder")


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


def test_a_report_that_can_not_be_written_loses_no_run_and_is_made_by_the_same_command(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    (here / "out" / "report.json").mkdir(parents=True)
    assert compare("--seeds", "1", "--out", "out") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith(
        "psgd: error: out/report.json can not be written (Is a directory); the runs are kept: "
    )
    (here / "out" / "report.json").rmdir()
    assert compare("--seeds", "1", "--out", "out") == 0
    assert "1 of 1 runs are there already and are not made again" in capsys.readouterr().err
    assert (here / "out" / "report.json").is_file()


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--modes", "sync,asink"), "modes must be sync[+BACKUPS] or async[:STALENESS], then, each behind a slash"),
        (("--modes", "sync+2"), "backups must be < slots"),
        (("--optimizers", ""), "--optimizers must not be empty, got ['']"),
        (("--modes", "sync,async,,"), "--modes must have no empty item, got ['sync,async,,']"),
        (("--optimizers", "adam,sgd:0.9x="), "optimizers must be written NAME or NAME:ARGUMENT=VALUE:..."),
        (("--optimizers", "adam,adam"), "optimizers must differ, got adam 2 times"),
        (("--modes", "sync", "--modes", "async:2", "--modes", "sync"), "modes must differ, got sync 2 times"),
        (("--optimizers", "adma"), "got 'adma'; did you mean adam"),
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
        (
            ("--modes", "async", "--correction", "gap", "--mode", "async"),
            "mode must be left out with modes, got async; say it with modes",
        ),
        (("--modes", "async/softsync=3"), "gather must be <= slots, got 3 of 2 slots"),
        (("--modes", "async/dc=-1"), "delay compensation strength must be a finite number >= 0, got -1.0"),
        (("--seeds", "0"), "seeds must be >= 1, got 0"),
        (("--patience", "3"), "patience must be left out: all runs have the same budget, got 3"),
        (("--plot",), "plot must be left out: a comparison draws pictures of its own; try psgd train"),
        (("--optimizer-args", "momentum=0.9"), "momentum"),
        (("--epochs", "3"), "epochs must be left out with steps"),
        (("--budget", "time"), "budget must be samples, seconds or target, got 'time'"),
        (("--budget", "target"), "target must be given with budget target, got none; try --target 0.95"),
        (("--budget", "seconds"), "seconds must be given with budget seconds, got none; try --seconds 60"),
        (("--seconds", "5"), "seconds must be left out with budget samples, got 5; try --budget seconds"),
        (
            ("--budget", "target", "--target", "0.9", "--seconds", "5"),
            "seconds must be left out with budget target, got 5; try --budget seconds",
        ),
        (("--budget", "seconds", "--seconds", "0"), "seconds must be a finite number > 0, got 0.0"),
        (("--budget", "seconds", "--seconds", "inf"), "seconds must be a finite number > 0, got inf"),
        (("--target", "high"), "target must be VALUE or METRIC=VALUE, such as 0.85 or test_loss=0.1, got 'high'"),
        (("--target", "=0.9"), "target must be VALUE or METRIC=VALUE, such as 0.85 or test_loss=0.1, got '=0.9'"),
        (("--target", "test_loss=nan"), "got 'test_loss=nan'"),
        (
            ("--target", "85"),
            "target must be > 0 and <= 1 in test_accuracy, got 85; try 0.85",
        ),
        (
            ("--budget", "target", "--target", "f1=0.9"),
            "target: the metric must be one of accuracy, loss, got 'f1'",
        ),
        (
            ("--until", "test_loss=1"),
            "until must be left out: all runs have the same budget, got test_loss=1; try --budget target",
        ),
        (
            ("--max-seconds", "5"),
            "max_seconds must be left out: all runs have the same budget, got 5.0; try --budget seconds",
        ),
        (("--straggler", "*:3x,*:2x"), "stragglers must name each slot once, and every slot once"),
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


def test_a_folder_that_another_process_writes_to_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    with only_writer(here / "out"):
        (here / "out" / "of the other").touch()
        assert refusal(capsys, "--seeds", "1", "--out", "out") == (
            "out must have one writer, got out: another process is writing there; wait for its end, or choose another "
            "folder"
        )
        assert compare("--seeds", "1", "--out", "out", "--dry-run") == 0
    assert [path.name for path in (here / "out").iterdir()] == ["of the other"]


def test_a_folder_without_a_name_is_refused(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert refusal(capsys, "--out", "") == "--out must not be empty, got ''"
    assert list(here.iterdir()) == []


def test_a_log_that_is_damaged_in_its_middle_says_what_to_do(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    asked = ("--seeds", "1", "--out", "out")
    assert compare(*asked) == 0
    log = here / "out/adam_sync/0.002/0" / FILE_NAME
    first, *others = log.read_text().splitlines(keepends=True)
    log.write_text("".join([first, "garbage\n", *others]))
    capsys.readouterr()
    assert compare(*asked) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("psgd: error: out/adam_sync/0.002/0/run.jsonl, line 2: not a record of a run log: ")
    assert line.endswith("; remove the folder of that run to have it made again")


def test_a_mode_beside_modes_names_the_file_that_it_is_from(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "world.yaml").write_text("compute: exp:2\nmode: async\n")
    assert refusal(capsys, "--simulate", "--config", "world.yaml", "--modes", "sync,async") == (
        "mode must be left out with modes, got async; say it with modes; psgd calibrate --world-only writes a world "
        "without it; mode is from world.yaml"
    )


def test_the_settings_of_every_seed_are_what_its_own_run_would_log(here: Path) -> None:
    config = CompareConfig(plane="memory", steps=2, seeds=3, seed=4, limit=64, modes=("sync", "async:1"), out="out")
    tasks = inspect(plan(config), lambda run: make_trainer(config, run), lambda line: None)
    assert len(tasks) == 6
    assert [task.settings for task in tasks] == [task.plan()[1].settings for task in tasks]


def test_nothing_is_left_of_the_lock(here: Path) -> None:
    assert compare("--seeds", "1", "--out", "out") == 0
    assert [path.name for path in (here / "out").iterdir() if path.name.startswith(".")] == []


def test_other_settings_in_the_same_folder_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--seeds", "1", "--out", "out") == 0
    capsys.readouterr()
    line = refusal(capsys, "--seeds", "1", "--out", "out", "--batch-size", "16")
    assert line.startswith("out must be without runs of other settings, got out/adam_sync/0.002/0: batch_size is 32")
