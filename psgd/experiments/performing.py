"""A comparison's runs, one after another: those that are there are kept, the others made."""

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


@dataclass(frozen=True, slots=True)
class Task:
    """A run, and what is there of it.

    Args:
        folder: where its log goes, or is.
        settings: what its log says, or is going to say.
    """

    run: Run
    trainer: Trainer
    folder: Path
    settings: dict[str, Any]
    state: State


def inspect(comparison: Comparison, make_trainer: MakeTrainer) -> list[Task]:
    """Check every run, and see which of them are there; nothing is started or written.

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
    return [_task(run, make_trainer(run), comparison.out / run.folder) for run in comparison.runs()]


def _check_target(target: Target, trainer: Trainer) -> None:
    """Refuse a target that no run could reach, as nobody measures its metric."""
    job = replace(trainer, callbacks=[], out=None).plan().job
    if job.evaluation_data is None:
        raise ConfigurationError(f"target needs evaluations, and with them val_data, got none for {target.metric}")
    names = measured_names(job.model, job.training, job.evaluation_data)
    if target.metric not in names:
        raise unknown("target: the metric", target.metric, names)


def _task(run: Run, trainer: Trainer, folder: Path) -> Task:
    trainer = replace(trainer, out=folder, progress=False)
    settings = _plan_of(trainer, folder).settings
    return Task(run, trainer, folder, settings, state_of(folder, settings))


def _plan_of(trainer: Trainer, folder: Path) -> Plan:
    """The plan of a run that may be there already: for a folder beside its own, which planning does not make."""
    return replace(trainer, out=folder.with_name(f"{folder.name}-again")).plan()


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
            measure_training_set(_plan_of(task.trainer, task.folder).job, task.folder)
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
    plan = task.trainer.plan()
    task.trainer.run(plan)
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
