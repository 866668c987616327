"""``psgd tune``: options in, trials, a table and the best setting out."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from psgd.analysis.tables import as_text
from psgd.cli.building import build_trainer
from psgd.cli.figures import print_figures
from psgd.cli.options import as_yaml, parse, plain
from psgd.cli.search_space import override
from psgd.cli.train_config import TrainConfig
from psgd.cli.tune_config import TRIALS, TuneConfig
from psgd.errors import ConfigurationError, PsgdError
from psgd.folderlock import only_writer
from psgd.planning import check_folder, new_folder
from psgd.trainer import Trainer
from psgd.tuning.algorithms import check_algorithm
from psgd.tuning.journal import Journal
from psgd.tuning.pictures import draw
from psgd.tuning.progress import Score, search_display
from psgd.tuning.results import CSV_NAME, JSON_NAME, reasons, table, write_csv, write_json
from psgd.tuning.search import Asha, Search, probe
from psgd.tuning.search import run as make_trials
from psgd.tuning.space import values_of
from psgd.tuning.trials import Trial, best

SEARCH_NAME, BEST_NAME = "search.yaml", "best.yaml"

MAY_CHANGE = {"trials", "concurrent", "resume", "out", "json", "dry_run"}
"""Options that may be others when a search goes on."""


def run(config: TuneConfig) -> None:
    """Search as the options say.

    Raises:
        ConfigurationError: if no trial can be run, or the folder holds another search, or another process writes to
            it; nothing has been started then.
        PsgdError: if the search has failed, or every trial of it.
    """
    search, out = plan(config), _folder(config)
    check_algorithm(search.algorithm)
    check_folder(out)
    with nullcontext() if config.dry_run else only_writer(out):
        _search(config, search, out)


def _search(config: TuneConfig, search: Search, out: Path) -> None:
    journal = Journal(out)
    made = _kept(config, journal, out)
    first = probe(search, partial(trainer_of, _located(config.shared())))
    if config.dry_run:
        print_figures(_describe(config, search, made, out), config.json)
        return
    try:
        trials = [*made, *_make(config, search, first, made, out)]
    except BaseException:  # Ctrl-C above all
        if journal.exists:
            tell(f"the search is in {out}: psgd tune --config {out / SEARCH_NAME} --out {out} --resume goes on with it")
        raise
    _report(config, search, trials, out)


def plan(config: TuneConfig) -> Search:
    """The search that the options stand for.

    Raises:
        ConfigurationError: if a value can not be searched with.
    """
    given = {"grace_period": config.grace_period, "reduction_factor": config.reduction_factor}
    space = config.domains()
    return Search(
        space=space,
        algorithm=config.search,
        trials=TRIALS if config.trials is None else config.trials,
        metric=config.objective,
        goal=config.choose_goal(),
        seed=config.seed,
        asha=Asha(**{name: value for name, value in given.items() if value is not None}) if config.asha else None,
        concurrent=config.concurrent,
        alone=config.plane == "memory" and "plane" not in space,
    )


def trainer_of(shared: TrainConfig, values: Mapping[str, Any]) -> Trainer:
    """The run of one trial: what ``psgd train`` would do with the same options, but that it writes nothing.

    Raises:
        ConfigurationError: if they can not be run together.
    """
    return build_trainer(replace(override(shared, values), keep_best=False))


def _located(shared: TrainConfig) -> TrainConfig:
    """The options with files that are found from anywhere, and nothing that is about this command's own output."""
    data_dir = None if shared.data_dir is None else str(Path(shared.data_dir).absolute())
    warm_start = None if shared.warm_start is None else str(Path(shared.warm_start).absolute())
    return replace(shared, data_dir=data_dir, warm_start=warm_start, out=None, json=False, dry_run=False, plot=False)


def _folder(config: TuneConfig) -> Path:
    return new_folder("tune", datetime.now(UTC)) if config.out is None else Path(config.out)


def _kept(config: TuneConfig, journal: Journal, out: Path) -> list[Trial]:
    """The trials that need not be made again.

    Raises:
        ConfigurationError: if a search is there that is not to be resumed, or one with other options.
        DataError: if its journal is damaged.
    """
    if not journal.exists:
        return []
    if not config.resume:
        raise ConfigurationError(
            f"out must be without a search, got {out}: go on with --resume, or choose another folder"
        )
    before = plain(parse(TuneConfig, "psgd tune", ["--config", str(out / SEARCH_NAME)], {}))
    now = plain(config)
    others = [name for name in now if name not in MAY_CHANGE and before[name] != now[name]]
    if others:
        name = others[0]
        raise ConfigurationError(
            f"resume: {name} must be {before[name]!r} as in {out / SEARCH_NAME}, got {now[name]!r}; "
            f"take all options from there with --config {out / SEARCH_NAME}"
        )
    return [trial for trial in journal.read() if trial.status != "failed"]


def _make(config: TuneConfig, search: Search, first: Trainer, made: Sequence[Trial], out: Path) -> list[Trial]:
    """Make the trials that are left, on disk and on the screen as they end."""
    new: list[Trial] = []
    if search.left(made) == 0:
        return new
    journal = Journal(out)
    score = Score(search.space, search.metric, search.goal, made, search.size())
    with search_display(score) as display:

        def ended(trial: Trial) -> None:
            display(trial)
            try:
                if not new:  # only now: a search that comes to nothing leaves nothing
                    _begin(config, journal, made, out)
                journal.append(trial)
            except OSError as error:
                tell(f"trial {trial.number} is not in the journal, and would be made again: {error}")
            new.append(trial)

        make_trials(search, first, partial(trainer_of, _located(config.shared())), made, ended)
    return new


def _begin(config: TuneConfig, journal: Journal, made: Sequence[Trial], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / SEARCH_NAME).write_text(as_yaml(config), encoding="utf-8")
    journal.begin(made)


def _report(config: TuneConfig, search: Search, trials: Sequence[Trial], out: Path) -> None:
    """Write what was found, and print it.

    Raises:
        PsgdError: if no trial has a metric.
    """
    about = search.space, trials, search.metric, search.goal
    write_csv(out / CSV_NAME, *about)
    write_json(out / JSON_NAME, *about)
    first = best(trials, search.metric, search.goal)
    if first is None:
        kind = ConfigurationError if all(trial.status == "refused" for trial in trials) else PsgdError
        raise kind(f"none of {len(trials)} trials has a {search.metric}: {reasons(trials)[0]}")
    values = values_of(search.space, first.point)
    (out / BEST_NAME).write_text(as_yaml(override(_located(config.shared()), values)), encoding="utf-8")
    for line in draw(*about, out):
        tell(line)
    if config.json:
        print_figures(_figures(search, trials, first, out), as_json=True)
        return
    print(as_text(table(*about), words={0, len(search.space) + 4}), flush=True)
    for line in reasons(trials):
        tell(line)
    tell(f"psgd train --config {out / BEST_NAME} trains the best setting, trial {first.number}, again")


def _figures(search: Search, trials: Sequence[Trial], first: Trial, out: Path) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "objective": search.metric,
        "goal": search.goal,
        "best": {
            "trial": first.number,
            "values": values_of(search.space, first.point),
            "metrics": dict(first.evaluations[-1].metrics),
            "steps": first.step,
            "seconds": first.seconds,
        },
        "trials": len(trials),
        "statuses": {trial.status: sum(other.status == trial.status for other in trials) for trial in trials},
        "out": str(out),
    }


def _describe(config: TuneConfig, search: Search, made: Sequence[Trial], out: Path) -> dict[str, Any]:
    """What a search would be."""
    return {
        "search": search.algorithm,
        "trials": search.size(),
        "left": search.left(made),
        "objective": search.metric,
        "goal": search.goal,
        **{f"space {name}": str(config.space.get(name, domain)) for name, domain in search.space.items()},
        "out": str(out),
    }


def tell(line: str) -> None:
    """Say what is no result."""
    print("psgd:", line, file=sys.stderr, flush=True)
