"""``psgd compare``: options in, one training for each arm, learning rate and seed, a report out."""

import dataclasses
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from psgd.analysis.comparison_words import in_text
from psgd.cli.building import build_trainer
from psgd.cli.compare_config import CompareConfig
from psgd.cli.figures import print_figures
from psgd.cli.train_config import TrainConfig
from psgd.core.modes import Async, Mode
from psgd.errors import LostError
from psgd.experiments.arms import Comparison, Run
from psgd.experiments.performing import Task, inspect, perform
from psgd.experiments.reporting import read_figures, write_report
from psgd.experiments.resumption import State
from psgd.planning import new_folder
from psgd.trainer import Trainer


def run(config: CompareConfig) -> None:
    """Compare as the options say; runs that are complete in ``--out`` are kept.

    Raises:
        ConfigurationError: if a run can not be made; nothing has been started or written then.
        LostError: if runs have failed; the report has the others.
    """
    comparison = plan(config)
    tasks = inspect(comparison, lambda each: make_trainer(config, each))
    if config.dry_run:
        print_figures(_describe(comparison, tasks), config.json)
        return
    try:
        failed = perform(tasks, tell)
    finally:
        if comparison.out.exists():
            tell(f"the runs are in {comparison.out}; with --out {comparison.out} the same command keeps them")
    figures = read_figures(comparison)
    report = write_report(figures, comparison.out)
    print(json.dumps(report, allow_nan=False) if config.json else in_text(figures), flush=True)
    if failed:
        raise LostError(
            f"{len(failed)} of {len(tasks)} runs have failed, the last one: {list(failed.values())[-1]}; "
            "the same command makes them again"
        )


def plan(config: CompareConfig) -> Comparison:
    """What is to be compared, and where it goes.

    Raises:
        ConfigurationError: if two arms can not be told apart.
    """
    out = new_folder("compare", datetime.now(UTC)) if config.out is None else Path(config.out)
    return Comparison(config.arms(), tuple(range(config.seed, config.seed + config.seeds)), out)


def make_trainer(config: CompareConfig, each: Run) -> Trainer:
    """The training of a run: what ``psgd train`` would do with the same options.

    Raises:
        ConfigurationError: if a name is unknown or a value can not be run.
    """
    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(TrainConfig)}
    own = {
        "optimizer": each.arm.optimizer.name,
        "optimizer_args": dict(each.arm.optimizer.args),
        "lr": each.lr,
        "seed": each.seed,
        **_mode_options(each.arm.mode),
        # How the comparison was called is no setting of a run: it may be called in another way when it is resumed.
        **{"out": None, "json": False, "dry_run": False},
    }
    return build_trainer(TrainConfig(**(options | own)))


def _mode_options(mode: Mode) -> dict[str, object]:
    if isinstance(mode, Async):
        return {"mode": "async", "staleness": mode.staleness, "backups": None}
    return {"mode": "sync", "staleness": None, "backups": mode.backups or None}


def _describe(comparison: Comparison, tasks: list[Task]) -> dict[str, object]:
    """What would be run."""
    return {
        "arms": [f"{arm}: lr {' '.join(f'{lr:g}' for lr in arm.lrs)}" for arm in comparison.arms],
        "seeds": list(comparison.seeds),
        "runs": len(tasks),
        "complete": sum(task.state is State.COMPLETE for task in tasks),
        "out": str(comparison.out),
    }


def tell(line: str) -> None:
    """Say how far we are."""
    print("psgd compare:", line, file=sys.stderr, flush=True)
