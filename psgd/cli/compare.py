"""``psgd compare``: options in, one training for each arm, learning rate and seed, a report out."""

import dataclasses
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from psgd.analysis.comparison import Budget, ComparisonFigures, Target
from psgd.analysis.comparison_words import in_text
from psgd.analysis.findings import find
from psgd.cli.building import build_trainer, usual_metric
from psgd.cli.compare_config import MOST_EPOCHS, CompareConfig
from psgd.cli.compare_grammar import parse_target
from psgd.cli.figures import print_figures
from psgd.cli.train_config import TrainConfig
from psgd.cli.world import build_world
from psgd.core.local_steps import mini_batches
from psgd.core.modes import Sync
from psgd.errors import ConfigurationError, DataError, LostError
from psgd.experiments.arms import Comparison, Run, Scheme
from psgd.experiments.performing import Task, inspect, perform
from psgd.experiments.reporting import read_figures, write_report
from psgd.experiments.resumption import State
from psgd.folderlock import only_writer
from psgd.planning import new_folder
from psgd.trainer import Trainer

EVALUATIONS = 40
"""Of a run where nothing is said, about: the time to a target is known as finely as evaluations are apart."""
FINE = 4
"""Evaluations an epoch, at least, where runs end by the clock."""


def run(config: CompareConfig) -> None:
    """Compare as the options say; runs that are complete in ``--out`` are kept.

    Raises:
        ConfigurationError: if a run can not be made, or another process writes to ``--out``; nothing has been started
            or written then.
        LostError: if runs have failed; the report has the others.
        PsgdError: if the report can not be written; the runs are kept.
    """
    comparison = plan(config)
    tasks = inspect(comparison, lambda each: make_trainer(config, each), tell)
    if config.dry_run:
        print_figures(_describe(comparison, tasks), config.json)
        return
    with only_writer(comparison.out):
        try:
            failed = perform(tasks, tell)
        finally:
            if any(task.folder.exists() for task in tasks):
                tell(f"the runs are in {comparison.out}; with --out {comparison.out} the same command keeps them")
        findings = find(_read_figures(comparison))
        report = write_report(findings, comparison.out)
    print(json.dumps(report, allow_nan=False) if config.json else in_text(findings), flush=True)
    if failed:
        raise LostError(
            f"{len(failed)} of {len(tasks)} runs have failed, the last one: {list(failed.values())[-1]}; "
            "the same command makes them again"
        )


def _read_figures(comparison: Comparison) -> ComparisonFigures:
    try:
        return read_figures(comparison)
    except DataError as error:
        raise DataError(f"{error}; remove the folder of that run to have it made again") from error


def plan(config: CompareConfig) -> Comparison:
    """What is to be compared, and where it goes.

    Raises:
        ConfigurationError: if two arms can not be told apart.
    """
    out = new_folder("compare", datetime.now(UTC)) if config.out is None else Path(config.out)
    seeds = tuple(range(config.seed, config.seed + config.seeds))
    return Comparison(config.arms(), seeds, out, Budget(config.budget, config.seconds), _target(config))


def _target(config: CompareConfig) -> Target | None:
    if config.target is None:
        return None
    metric, value = parse_target(config.target)
    return Target(metric or usual_metric(config), value)


def make_trainer(config: CompareConfig, each: Run) -> Trainer:
    """The training of a run: what ``psgd train`` would do with the same options, evaluated `EVALUATIONS` times.

    Raises:
        ConfigurationError: if a name is unknown or a value can not be run.
    """
    trainer = _evaluated(_train_options(config, each))
    return dataclasses.replace(trainer, world=build_world(config)) if config.simulate else trainer


def _evaluated(options: TrainConfig) -> Trainer:
    trainer = build_trainer(options)
    counted = trainer.count_steps()
    if counted is None or options.evaluate_every is not None:
        return trainer
    steps, per_epoch = counted
    every = max(1, round(steps / EVALUATIONS))
    if options.max_seconds is not None:  # the steps are a ceiling, perhaps far off; runs end at evaluations
        every = min(every, max(1, per_epoch // FINE))
    return build_trainer(dataclasses.replace(options, evaluate_every=every))


def _train_options(config: CompareConfig, each: Run) -> TrainConfig:
    options = {field.name: getattr(config, field.name) for field in dataclasses.fields(TrainConfig)}
    own = {
        "optimizer": each.arm.optimizer.name,
        "optimizer_args": dict(each.arm.optimizer.args),
        "lr": each.lr,
        "seed": each.seed,
        **_mode_options(each.arm.scheme),
        **_lengths(config, each.arm.scheme),
        **_budget_options(config),
        # How the comparison was called is no setting of a run: it may be called in another way when it is resumed.
        **{"out": None, "json": False, "dry_run": False},
    }
    return TrainConfig(**(options | own))


def _mode_options(scheme: Scheme) -> dict[str, object]:
    """A mode as the options of a single run; those that have nothing to say are left out as they would be there."""
    mode, correction, local = scheme.mode, scheme.correction, scheme.local_steps
    if isinstance(mode, Sync):
        said: dict[str, object] = {"backups": mode.backups or None}
    else:
        said = {"staleness": mode.staleness, "gather": mode.gather if mode.gather > 1 else None}
    unsaid = dict.fromkeys(("backups", "staleness", "gather"))
    return {
        "mode": mode.name,
        **unsaid,
        **said,
        "correction": None if correction is None else str(correction),
        "local_steps": None if local is None else local.steps,
        "outer_lr": None if local is None else local.lr,
        "outer_momentum": None if local is None else local.momentum,
    }


def _lengths(config: CompareConfig, scheme: Scheme) -> dict[str, object]:
    """Steps as the mode counts them: one with local steps draws the samples of several in each."""
    batches = mini_batches(scheme.local_steps)
    lengths = {name: getattr(config, name) for name in ("steps", "evaluate_every")}
    if config.steps is not None and config.steps < batches:
        raise ConfigurationError(f"steps must be >= the {batches} local steps of {scheme}, got {config.steps}")
    return {name: None if length is None else max(length // batches, 1) for name, length in lengths.items()}


def _budget_options(config: CompareConfig) -> dict[str, object]:
    """What ends a run; a target that is only reported is no setting of one."""
    target = _target(config)
    if config.budget == "target" and target is not None:
        return {"until": f"{target.metric}={target.value!r}"}
    if config.budget == "seconds":
        unsaid = config.epochs is None and config.steps is None
        return {"max_seconds": config.seconds, "epochs": MOST_EPOCHS if unsaid else config.epochs}
    return {}


def _describe(comparison: Comparison, tasks: list[Task]) -> dict[str, object]:
    """What would be run."""
    budget, target = comparison.budget, comparison.target
    return {
        "arms": [f"{arm}: lr {' '.join(f'{lr:g}' for lr in arm.lrs)}" for arm in comparison.arms],
        "seeds": list(comparison.seeds),
        "budget": f"{budget.amount:g} seconds" if budget.amount is not None else budget.kind,
        "target": None if target is None else f"{target.metric}={target.value!r}",
        "runs": len(tasks),
        "complete": sum(task.state is State.COMPLETE for task in tasks),
        "out": str(comparison.out),
    }


def tell(line: str) -> None:
    """Say how far we are."""
    print("psgd compare:", line, file=sys.stderr, flush=True)
