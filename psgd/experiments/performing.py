"""A comparison's runs, one after another: those that are there are kept, the others made."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psgd.analysis.comparison import Target, judged_by
from psgd.analysis.numbers import duration
from psgd.analysis.run_figures import RunFigures, read_run
from psgd.errors import ConfigurationError, PsgdError, blame
from psgd.experiments.arms import Comparison, Run
from psgd.experiments.measuring import is_measured, measure_training_set
from psgd.experiments.resumption import State, clear, state_of
from psgd.planning import Plan, check_folder, measured_names
from psgd.runlog import FILE_NAME
from psgd.trainer import Trainer
from psgd.training.names import unknown

MakeTrainer = Callable[[Run], Trainer]
"""The training of a run; where it goes and whether it shows its progress is not its business."""
Tell = Callable[[str], None]
PATIENCE_S = 2.0
"""How long runs are checked before a word is said about it."""


@dataclass(frozen=True, slots=True)
class Task:
    """A run, and what is there of it.

    Args:
        folder: where its log goes, or is.
        settings: what its log says, or is going to say.
    """

    run: Run
    make_trainer: MakeTrainer
    folder: Path
    settings: dict[str, Any]
    state: State

    def plan(self) -> tuple[Trainer, Plan]:
        """The training and its plan, for the run's own folder.

        Raises:
            ConfigurationError: if the run can not be started, or is there already.
        """
        trainer = _quiet(self.make_trainer(self.run), self.folder)
        return trainer, trainer.plan()

    def plan_again(self) -> Plan:
        """The plan of a run that is there already: for the folder above, which has none."""
        return _quiet(self.make_trainer(self.run), self.folder.parent).plan()


def inspect(comparison: Comparison, make_trainer: MakeTrainer, tell: Tell) -> list[Task]:
    """Check every run, and see which of them are there; nothing is started or written.

    Runs that differ in their seeds alone are planned once.

    Args:
        tell: takes a line if it takes longer than `PATIENCE_S`.

    Raises:
        ConfigurationError: if one can not be run or written, or a run with other settings is in its place.
    """
    if (comparison.out / FILE_NAME).exists():
        raise ConfigurationError(
            f"out must be a folder for many runs, got {comparison.out}: a single one is there ({FILE_NAME}); "
            "choose another folder"
        )
    check_folder(comparison.out)
    if comparison.target is not None:
        _check_target(comparison.target, make_trainer(next(comparison.runs())))
    _check_last_seed(comparison, make_trainer)
    due = time.monotonic() + PATIENCE_S
    runs, tasks = list(comparison.runs()), list[Task]()
    planned: dict[Path, dict[str, Any]] = {}  # by the folder of all seeds
    for run in runs:
        if time.monotonic() >= due:
            tell(f"checking {len(runs)} runs")
            due = math.inf
        folder = comparison.out / run.folder
        if folder.parent not in planned:
            planned[folder.parent] = _quiet(make_trainer(run), folder.parent).plan().settings
        settings = _reseeded(planned[folder.parent], run.seed)
        tasks.append(Task(run, make_trainer, folder, settings, state_of(folder, settings)))
    return tasks


def _check_last_seed(comparison: Comparison, make_trainer: MakeTrainer) -> None:
    """Refuse seeds that go too far: what is planned has the first."""
    make_trainer(replace(next(comparison.runs()), seed=comparison.seeds[-1]))


def _quiet(trainer: Trainer, out: Path) -> Trainer:
    return replace(trainer, out=out, progress=False)


def _reseeded(settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """What the log of the same run with another seed says; the options are there if a command has made it."""
    options = settings.get("options")
    told = {"options": {**options, "seed": seed}} if isinstance(options, dict) and "seed" in options else {}
    return {**settings, **told, "seed": seed}


def _check_target(target: Target, trainer: Trainer) -> None:
    """Refuse a target that no run could reach, as nobody measures its metric."""
    job = replace(trainer, callbacks=[], out=None).plan().job
    if job.evaluation_data is None:
        raise ConfigurationError(f"target needs evaluations, and with them val_data, got none for {target.metric}")
    names = measured_names(job.model, job.training, job.evaluation_data)
    if target.metric not in names:
        known = [name.removeprefix("test_") for name in names]
        raise unknown("target: the metric", target.measure.name, known)


def perform(tasks: Sequence[Task], tell: Tell) -> dict[Path, str]:
    """Make the runs that are not complete, within `psgd.folderlock.only_writer` of their folder.

    How far they are is seen again: others may have written there until it was held.

    Args:
        tell: takes a line about each run that has ended, and about those that are there already.

    Returns:
        Why runs have failed, by their folders: the others went on.

    Raises:
        ConfigurationError: if a run can not be started: the others could not, either; or if one with other settings
            has come into its place.
    """
    tasks = [replace(task, state=state_of(task.folder, task.settings)) for task in tasks]
    missing = [task for task in tasks if task.state is not State.COMPLETE]
    if len(missing) < len(tasks):
        tell(f"{len(tasks) - len(missing)} of {len(tasks)} runs are there already and are not made again")
    if missing:
        tell(f"runs to make: {len(missing)}")
    for task in tasks:
        if task.state is State.COMPLETE and not is_measured(task.folder):  # interrupted in between
            measure_training_set(task.plan_again().job, task.folder)
    failed: dict[Path, str] = {}
    began = time.monotonic()
    for done, task in enumerate(missing, start=1):
        try:
            _make(task)
        except ConfigurationError:
            raise
        except PsgdError as error:
            failed[task.folder] = str(error)
        except Exception as error:  # of any kind: it comes from the user's own code
            failed[task.folder] = blame(error)
        left_s = (time.monotonic() - began) / done * (len(missing) - done)
        words = f"failed: {failed[task.folder]}" if task.folder in failed else outcome(task.folder)
        tell(f"{done} of {len(missing)}: {task.run}: {words}{time_left(left_s)}")
    return failed


def _make(task: Task) -> None:
    if task.state is State.BROKEN_OFF:
        clear(task.folder)
    trainer, plan = task.plan()
    trainer.run(plan)
    measure_training_set(plan.job, task.folder)


def outcome(folder: Path) -> str:
    """What has come of a run, as far as its log says."""
    run = read_run(folder)
    if run is None:
        return "its log is not complete"
    seconds = run.figure("seconds")
    took = "" if seconds is None else f" in {duration(seconds)}{' of virtual time' if run.simulated else ''}"
    return f"{_end(run)}{took}"


def _end(run: RunFigures) -> str:
    if run.diverged:
        return "diverged"
    metric, loss = judged_by(run.final_test), run.figure("train_loss")
    if metric.name in run.final_test:
        return f"test {metric.name} {metric.words(run.final_test[metric.name])}"
    return "ended" if loss is None else f"training loss {loss:.4f}"


def time_left(seconds: float) -> str:
    """How long it is going to take, to a precision that one can believe; what a line about progress ends with."""
    if seconds <= 0:
        return ""
    return f"; about {seconds:.0f} s left" if seconds < 90 else f"; about {seconds / 60:.0f} min left"
