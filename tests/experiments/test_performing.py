import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from psgd import inprocess
from psgd.analysis.comparison import Target
from psgd.analysis.run_figures import read_run
from psgd.errors import ConfigurationError, LostError
from psgd.experiments.arms import Comparison, Run
from psgd.experiments.performing import inspect, outcome, perform, time_left
from psgd.experiments.resumption import State
from psgd.planning import Plan
from psgd.runlog import FILE_NAME, Record
from psgd.trainer import Trainer
from tests.analysis.runs import evaluation, write_run
from tests.experiments.small import trainer_of, two_arms

LOG_OF_ONE = Path("sgd_momentum=0.5_sync", "0.125", "1", FILE_NAME)


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return two_arms(tmp_path / "out")


def quiet(line: str) -> None:
    raise AssertionError(line)


def make(comparison: Comparison) -> list[str]:
    lines: list[str] = []
    assert perform(inspect(comparison, trainer_of, quiet), lines.append) == {}
    return lines


def complete(comparison: Comparison) -> int:
    return sum(read_run(comparison.out / run.folder) is not None for run in comparison.runs())


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the runs of seed 1 of the synchronous arm fail, after their log has begun."""
    real: Callable[..., Any] = inprocess.run

    def run(job: Any, *more: Any, **named: Any) -> Any:
        if job.training.seed == 1 and job.rules.mode.weights_stand:
            raise error
        return real(job, *more, **named)

    monkeypatch.setattr("psgd.inprocess.run", run)


def test_inspecting_starts_and_writes_nothing(comparison: Comparison) -> None:
    tasks = inspect(comparison, trainer_of, quiet)
    assert [task.run for task in tasks] == list(comparison.runs())
    assert all(task.state is State.ABSENT for task in tasks)
    assert not comparison.out.exists()


def test_runs_that_differ_in_their_seed_are_planned_once_and_as_they_would_be_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, planned = Trainer.plan, list[int]()

    def counted(trainer: Trainer) -> Plan:
        planned.append(trainer.seed)
        return plan(trainer)

    monkeypatch.setattr(Trainer, "plan", counted)
    tasks = inspect(two_arms(tmp_path / "out", seeds=(3, 4, 5)), trainer_of, quiet)
    assert planned == [3, 3, 3]
    assert [task.settings for task in tasks] == [task.plan()[1].settings for task in tasks]


def test_seeds_that_go_too_far_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^seed must be in 0 … 2\*\*63 - 1, got 9223372036854775808$"):
        inspect(two_arms(tmp_path / "out", seeds=(2**63 - 1, 2**63)), trainer_of, quiet)


def test_it_is_told_once_that_runs_are_checked_if_that_takes_long(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psgd.experiments.performing.PATIENCE_S", 0.0)
    lines: list[str] = []
    inspect(comparison, trainer_of, lines.append)
    assert lines == ["checking 6 runs"]


def test_every_run_is_made_logged_and_measured(comparison: Comparison) -> None:
    lines = make(comparison)
    for run in comparison.runs():
        figures = read_run(comparison.out / run.folder)
        assert figures is not None
        assert figures.settings["seed"] == run.seed
        assert figures.settings["options"] == {"lr": run.lr}
        assert figures.final_train.keys() >= {"accuracy", "loss"}
    assert lines[0] == "runs to make: 6"
    assert len(lines) == 7
    assert lines[1].startswith("1 of 6: sgd:momentum=0.5, sync, lr 0.125, seed 0: test accuracy ")
    assert lines[1].endswith(" s left")
    assert lines[6].startswith("6 of 6: adam, async:1, lr 0.125, seed 1: test accuracy ")
    assert not lines[6].endswith("left")


def test_arms_start_from_the_same_weights_and_see_the_same_samples(comparison: Comparison) -> None:
    first, *others = (trainer_of(run) for run in comparison.runs() if run.seed == 0)
    weight = first.plan().initial["weight"].tolist()
    assert [other.plan().initial["weight"].tolist() for other in others] == [weight, weight]


def test_complete_runs_are_not_made_again(comparison: Comparison) -> None:
    make(comparison)
    logs = {path: path.read_text() for path in comparison.out.rglob(FILE_NAME)}
    assert make(comparison) == ["6 of 6 runs are there already and are not made again"]
    assert {path: path.read_text() for path in comparison.out.rglob(FILE_NAME)} == logs


def test_a_run_that_was_broken_off_is_made_anew(comparison: Comparison) -> None:
    make(comparison)
    log = comparison.out / LOG_OF_ONE
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    (log.parent / "stale").touch()
    lines = make(comparison)
    assert lines[:2] == ["5 of 6 runs are there already and are not made again", "runs to make: 1"]
    assert lines[2].startswith("1 of 1: sgd:momentum=0.5, sync, lr 0.125, seed 1: ")
    assert read_run(log.parent) is not None
    assert not (log.parent / "stale").exists()


def test_what_others_have_made_since_the_runs_were_inspected_is_kept(comparison: Comparison) -> None:
    tasks, lines = inspect(comparison, trainer_of, quiet), list[str]()
    make(comparison)
    logs = {path: path.read_text() for path in comparison.out.rglob(FILE_NAME)}
    assert perform(tasks, lines.append) == {}
    assert lines == ["6 of 6 runs are there already and are not made again"]
    assert {path: path.read_text() for path in comparison.out.rglob(FILE_NAME)} == logs


def test_a_run_of_other_settings_that_was_broken_off_since_is_kept(comparison: Comparison) -> None:
    tasks = inspect(comparison, trainer_of, quiet)
    best = write_run(comparison.out / LOG_OF_ONE.parent, footer=False) / "best.safetensors"
    best.touch()
    with pytest.raises(ConfigurationError, match=r"^out must be without runs of other settings"):
        perform(tasks, lambda line: None)
    assert best.exists()
    assert complete(comparison) == 0


def test_a_run_without_evaluations_is_told_by_its_training_loss(tmp_path: Path) -> None:
    comparison, lines = two_arms(tmp_path / "out", seeds=(0,)), list[str]()
    tasks = inspect(comparison, lambda run: replace(trainer_of(run), val_data=None), quiet)
    assert perform(tasks, lines.append) == {}
    assert re.match(r"1 of 3: sgd:momentum=0\.5, sync, lr 0\.125, seed 0: training loss 0\.\d{4} in ", lines[1])
    assert complete(comparison) == 3


@pytest.mark.parametrize(
    ("settings", "evaluations", "figures", "words"),
    [
        ({}, [evaluation(4, accuracy=0.5)], {}, "test accuracy 50.00 % in 20.0 s"),
        ({}, [evaluation(2, accuracy=0.5), evaluation(4, accuracy=math.nan)], {}, "test loss 0.2500 in 20.0 s"),
        ({}, [evaluation(2), evaluation(4, loss=math.nan)], {}, "diverged in 20.0 s"),
        ({"gradients": "none", "world": {}}, [], {"train_loss": None}, "ended in 20.0 s of virtual time"),
        ({}, [], {"seconds": None}, "training loss 0.5000"),
    ],
)
def test_what_has_come_of_a_run_is_told_by_what_is_there(
    tmp_path: Path, settings: dict[str, Any], evaluations: list[Record], figures: dict[str, Any], words: str
) -> None:
    assert outcome(write_run(tmp_path / "run", evaluations, settings=settings, **figures)) == words


def test_more_seeds_need_only_their_own_runs(comparison: Comparison, tmp_path: Path) -> None:
    make(comparison)
    assert make(two_arms(tmp_path / "out", seeds=(0, 1, 2)))[1] == "runs to make: 3"


def test_what_was_interrupted_before_it_was_measured_is_measured(comparison: Comparison) -> None:
    make(comparison)
    measured = comparison.out / LOG_OF_ONE.with_name("train_metrics.json")
    before = measured.read_text()
    measured.unlink()
    make(comparison)
    assert measured.read_text() == before


def test_runs_of_other_settings_are_refused_before_anything_starts(comparison: Comparison) -> None:
    make(comparison)
    with pytest.raises(ConfigurationError, match=r"steps is 2 there, 3 here; choose another folder$"):
        inspect(comparison, lambda run: trainer_of(run, steps=3), quiet)


def test_what_can_not_be_run_is_refused_before_anything_starts(comparison: Comparison) -> None:
    with pytest.raises(ConfigurationError, match="shards must be <="):
        inspect(comparison, lambda run: replace(trainer_of(run), shards=9), quiet)


def test_a_target_that_nobody_measures_is_refused_before_anything_starts(comparison: Comparison) -> None:
    asked = replace(comparison, target=Target("test_f2", 0.5))
    with pytest.raises(ConfigurationError, match=r"^target: the metric must be one of accuracy, loss, got 'f2'"):
        inspect(asked, trainer_of, quiet)
    with pytest.raises(ConfigurationError, match=r"^target needs evaluations, and with them val_data, got none for"):
        inspect(asked, lambda run: replace(trainer_of(run), val_data=None), quiet)
    assert not comparison.out.exists()


def test_a_target_that_is_only_reported_leaves_the_runs_as_they_are(comparison: Comparison) -> None:
    make(comparison)
    lines = make(replace(comparison, target=Target("test_accuracy", 0.5)))
    assert lines == ["6 of 6 runs are there already and are not made again"]


def test_a_folder_that_can_not_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(ConfigurationError, match=rf"^out must be a folder, got {tmp_path}/out: .*/out is a file$"):
        inspect(two_arms(tmp_path / "out"), trainer_of, quiet)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("adam_async_1", "out must be a folder, got {out}/adam_async_1/0.125: {out}/adam_async_1 is a file"),
        (
            "adam_async_1/0.125",
            "out must be a folder, got {out}/adam_async_1/0.125: {out}/adam_async_1/0.125 is a file",
        ),
        ("adam_async_1/0.125/1", "out must have a folder for each run, got {file}, a file; choose another folder"),
    ],
)
def test_a_file_in_the_place_of_runs_is_named(comparison: Comparison, file: str, words: str) -> None:
    path = comparison.out / file
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(ConfigurationError) as caught:
        inspect(comparison, trainer_of, quiet)
    assert str(caught.value) == words.format(out=comparison.out, file=path)


def test_the_folder_of_a_single_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").touch()
    with pytest.raises(ConfigurationError, match=r"^out must be a folder for many runs, got .*run\.jsonl"):
        inspect(two_arms(tmp_path), trainer_of, quiet)


@pytest.mark.parametrize("error", [LostError("shard 1 is gone"), ValueError("shard 1 is gone")], ids=["lost", "raised"])
def test_a_run_that_fails_does_not_stop_the_others(
    error: Exception, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, error)
    lines: list[str] = []
    failed = perform(inspect(comparison, trainer_of, quiet), lines.append)
    folders = [comparison.out / run.folder for run in comparison.runs() if run.seed == 1 and run.arm.optimizer.args]
    assert failed.keys() == set(folders)
    assert all("shard 1 is gone" in reason for reason in failed.values())
    assert lines[4].startswith("4 of 6: sgd:momentum=0.5, sync, lr 0.125, seed 1: failed: ")
    assert complete(comparison) == 4


@pytest.mark.parametrize("error", [ConfigurationError("workers must be fewer"), KeyboardInterrupt()])
def test_what_ends_every_run_ends_the_comparison(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    failing(monkeypatch, error)
    with pytest.raises(type(error)):
        perform(inspect(comparison, trainer_of, quiet), lambda line: None)
    assert complete(comparison) == 3


def test_a_run_that_diverges_is_told_and_kept(tmp_path: Path) -> None:
    comparison = two_arms(tmp_path / "out", seeds=(0,))

    def diverging(run: Run) -> Trainer:
        if run.lr != 0.25:
            return trainer_of(run)
        contradictory = TensorDataset(torch.ones(16, 2), torch.tensor([0, 1]).repeat(8))
        return replace(trainer_of(Run(run.arm, 1e38, run.seed), steps=8), train_data=contradictory)

    lines: list[str] = []
    assert perform(inspect(comparison, diverging, quiet), lines.append) == {}
    assert lines[2].startswith("2 of 3: sgd:momentum=0.5, sync, lr 0.25, seed 0: diverged in ")
    assert complete(comparison) == 3


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, ""), (5.4, "; about 5 s left"), (89.0, "; about 89 s left"), (150.0, "; about 2 min left")],
)
def test_what_is_left_is_told_to_a_precision_that_one_can_believe(seconds: float, words: str) -> None:
    assert time_left(seconds) == words
