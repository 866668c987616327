"""A search: Ray Tune runs the trials that an algorithm chooses, and each is told as it ends."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator

from psgd.cluster.resources import SHARED_CORES, Need
from psgd.cluster.session import ray_session, unwinding
from psgd.config import Placement
from psgd.errors import ConfigurationError
from psgd.runlog import Goal
from psgd.trainer import Trainer
from psgd.tuning.algorithms import Algorithm, generator, points, remaining, suggester, tune_space
from psgd.tuning.attempt import MakeTrainer, attempt
from psgd.tuning.space import Point, Space, values_of
from psgd.tuning.trainable import attended, fits, reserved_by
from psgd.tuning.trials import Trial
from psgd.tuning.watch import Watch

MOST_PROBED = 32
"""Points that are tried before anything starts, until one can be run."""

LONGEST = 10**6
"""Evaluations of the longest trial; ASHA wants a bound, and makes a rung for each power of the reduction below it."""

QUIET = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C unwinds; Tune would go on until its trials have come to an end
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # psgd writes its own results
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a refused trial has no metrics
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # psgd tells them, on one line
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # a search goes on from psgd's own journal
    "RAY_AIR_NEW_OUTPUT": "0",  # its old output can be switched off
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths, and the user's modules, lie where psgd was called
}
"""Ray Tune can be told this by the environment alone."""


@dataclass(frozen=True, slots=True)
class Asha:
    """Asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934).

    After ``grace_period``, ``grace_period * reduction_factor``, … evaluations a trial goes on only if it is in the best
    ``1 / reduction_factor`` of those that have come as far.

    Raises:
        ConfigurationError: if nothing could be stopped so.
    """

    grace_period: int = 1
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        """Refuse a rung before the first evaluation, and one that everybody passes."""
        if self.grace_period < 1:
            raise ConfigurationError(f"grace_period must be >= 1 evaluations, got {self.grace_period}")
        if self.reduction_factor < 2:
            raise ConfigurationError(f"reduction_factor must be >= 2, got {self.reduction_factor}")


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched, and how.

    Args:
        trials: how many; a grid has as many as it has points, and takes no notice.
        metric: that the last evaluation of a trial is to have least or most of.
        seed: of what is drawn; each trial's own training has the seed of its options.
        asha: None trains every trial to its end.
        concurrent: trials at the same time; None: as many as fit.
        alone: each trial computes in its own process, which should have a core for itself.
    """

    space: Space
    algorithm: Algorithm
    trials: int
    metric: str
    goal: Goal
    seed: int = 0
    asha: Asha | None = None
    concurrent: int | None = None
    alone: bool = False

    @property
    def learns(self) -> bool:
        """Whether the next point depends on what came of those before."""
        return self.algorithm in ("tpe", "gp")

    def wanted(self) -> list[Point]:
        """The points of a search that does not learn."""
        return points(self.space, self.algorithm, self.trials, self.seed)

    def size(self) -> int:
        """Trials of the whole search."""
        return self.trials if self.algorithm != "grid" else len(self.wanted())

    def left(self, made: Sequence[Trial]) -> int:
        """Trials that are still to be made."""
        if self.learns:
            return max(0, self.trials - len(made))
        return len(remaining([trial.point for trial in made], self.wanted()))


def probe(search: Search, make_trainer: MakeTrainer) -> Trainer:
    """Look for a point that can be run, before anything starts.

    Returns:
        Its trainer.

    Raises:
        ConfigurationError: if there seems to be none; says why the first one can not.
    """
    some = search.wanted() if not search.learns else points(search.space, "random", MOST_PROBED, search.seed)
    stride = max(1, len(some) // MOST_PROBED)
    first: ConfigurationError | None = None
    probed = some[::stride][:MOST_PROBED]
    for point in probed:
        try:
            trainer = attended(make_trainer(values_of(search.space, point)), _ignore)
            trainer.plan()
        except ConfigurationError as error:
            first = first or error
        else:
            return trainer
    raise ConfigurationError(f"none of {len(probed)} points of the space can be run; the first: {first}") from first


def _ignore(_: Mapping[str, Any]) -> None:
    """Nobody listens."""


def run(
    search: Search,
    trainer: Trainer,
    make_trainer: MakeTrainer,
    made: Sequence[Trial],
    tell: Callable[[Trial], None],
) -> None:
    """Make the trials that are left, on the Ray that psgd itself would use.

    Args:
        trainer: of one of the points, for what a trial needs; see `probe`.
        made: trials of this search that are to be kept.
        tell: told of each trial as it ends, in this thread.

    Raises:
        ConfigurationError: if evaluations do not have the metric.
        ResourceError: if the cluster has no room for a trial.
        PsgdError: if Ray Tune has failed.
    """
    own, others, _ = reserved_by(trainer)
    workers, placement = trainer.scale()
    need = Need(workers, trainer.shards, placement) if others else Need(1, 0, Placement(cpus_per_worker=own["CPU"]))
    session = ray_session(need, show_output=False, shared_cores=1 if search.alone else SHARED_CORES)
    watch = Watch(search.metric, made, tell)
    with (
        unwinding() as take_signals_over,
        session,
        _quiet(),
        tempfile.TemporaryDirectory(prefix="psgd-tune-") as folder,
    ):
        take_signals_over()
        tuner = tune.Tuner(
            attempt(search.space, make_trainer),
            param_space={} if search.learns else tune_space(search.space),
            tune_config=_tune_config(search, made, fits([own, *others])),
            run_config=tune.RunConfig(storage_path=folder, name="tune", verbose=0, stop=watch, callbacks=[watch]),
        )
        tuner.fit()
    if watch.refusal is not None:
        raise watch.refusal


def _tune_config(search: Search, made: Sequence[Trial], fitting: int) -> tune.TuneConfig:
    """What Ray Tune is told.

    Args:
        fitting: trials that fit at the same time.
    """
    asha = search.asha
    scheduler = (
        None
        if asha is None
        else ASHAScheduler(
            time_attr="evaluation",
            max_t=LONGEST,
            grace_period=asha.grace_period,
            reduction_factor=asha.reduction_factor,
        )
    )
    algorithm: Searcher | BasicVariantGenerator
    if search.learns:
        algorithm = suggester(
            search.space, search.algorithm, search.metric, search.goal, search.trials, search.seed, made
        )
        limit = search.concurrent or max(1, fitting)  # one that waits for room would not have learned of the others
    else:
        algorithm = generator(search.space, [trial.point for trial in made], search.wanted(), search.concurrent)
        limit = None  # the generator keeps it
    return tune.TuneConfig(
        metric=search.metric,
        mode=search.goal,
        search_alg=algorithm,
        scheduler=scheduler,
        num_samples=search.left(made),
        max_concurrent_trials=limit,
        reuse_actors=True,  # the next trial finds torch imported, and the data read
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Tune does as psgd wants, and says nothing: psgd tells what happens."""
    before = {name: os.environ.get(name) for name in QUIET}
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train")]
    levels = [logger.level for logger in loggers]
    os.environ.update(QUIET)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
