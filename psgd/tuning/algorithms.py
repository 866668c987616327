"""How the next trial is chosen: grid and random search by Ray Tune, TPE and Gaussian processes by Optuna."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ray import tune
from ray.tune.search import Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.variant_generator import generate_variants

from psgd.errors import ConfigurationError
from psgd.runlog import Goal
from psgd.tuning.space import Choices, Domain, Point, Space
from psgd.tuning.trials import Trial

if TYPE_CHECKING:  # psgd runs without it
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

Algorithm = Literal["grid", "random", "tpe", "gp"]


MOST_STARTUPS, FEWEST_STARTUPS = 10, 4
"""Random trials before a sampler of Optuna's models anything: its own default, and the least for a small budget."""


def check_algorithm(algorithm: Algorithm) -> None:
    """Refuse an algorithm whose package is missing.

    Raises:
        ConfigurationError: if it is Optuna's, and that is not installed.
    """
    if algorithm in ("tpe", "gp"):
        try:
            import optuna  # noqa: F401  # only whether it is there
        except ImportError:
            raise ConfigurationError(
                f"search {algorithm} takes Optuna, which is missing: pip install 'psgd[tune]', or try random"
            ) from None


def points(space: Space, algorithm: Algorithm, trials: int, seed: int) -> list[Point]:
    """The points of a search that does not learn from its trials; the first ones are the same for more trials.

    Args:
        trials: how many are drawn at random; a grid has as many as it has.
    """
    if algorithm == "grid":
        grid = {name: tune.grid_search(list(_choices(name, domain).labels)) for name, domain in space.items()}
        return [_in_order(space, spec["config"]) for _, spec in generate_variants({"config": grid})]
    drawn, domains = np.random.RandomState(seed), tune_space(space)
    draws = (next(generate_variants({"config": domains}, random_state=drawn)) for _ in itertools.count())
    return [_in_order(space, spec["config"]) for _, spec in itertools.islice(draws, trials)]


def _in_order(space: Space, config: Mapping[str, Any]) -> Point:
    return {name: config[name] for name in space}


def _choices(name: str, domain: Domain) -> Choices:
    if isinstance(domain, Choices):
        return domain
    raise ConfigurationError(f"a grid needs choices: list some for {name}, as A,B,..., or search random, tpe or gp")


def tune_space(space: Space) -> dict[str, Any]:
    """The space as Ray Tune draws from it."""
    return {name: _tune_domain(domain) for name, domain in space.items()}


def _tune_domain(domain: Domain) -> Any:
    match domain:
        case Choices():
            return tune.choice(list(domain.labels))
        case _ if domain.whole:  # whose upper bounds are exclusive
            draw = tune.lograndint if domain.log else tune.randint
            return draw(int(domain.low), int(domain.high) + 1)
        case _:
            return (tune.loguniform if domain.log else tune.uniform)(domain.low, domain.high)


def optuna_space(space: Space) -> "dict[str, BaseDistribution]":
    """The space as Optuna draws from it."""
    return {name: _optuna_distribution(domain) for name, domain in space.items()}


def _optuna_distribution(domain: Domain) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match domain:
        case Choices():
            return CategoricalDistribution(domain.labels)
        case _ if domain.whole:
            return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
        case _:
            return FloatDistribution(domain.low, domain.high, log=domain.log)


def generator(
    space: Space, made: Sequence[Point], wanted: Sequence[Point], concurrent: int | None
) -> BasicVariantGenerator:
    """What hands out the points that are wanted and not made yet, in their order."""
    return BasicVariantGenerator(points_to_evaluate=remaining(made, wanted), max_concurrent=concurrent or 0)


def remaining(made: Sequence[Point], wanted: Sequence[Point]) -> list[Point]:
    """The wanted points without those that are made; one that was drawn twice is made twice."""
    left = list(wanted)
    for point in made:
        if point in left:
            left.remove(point)
    return left


def suggester(
    space: Space, algorithm: Algorithm, metric: str, goal: Goal, trials: int, seed: int, made: Sequence[Trial]
) -> Searcher:
    """Optuna's sampler, which knows the trials that are made.

    Args:
        trials: of the whole search; a small budget is spent on fewer trials at random.
        seed: a search that goes on draws other numbers than it did at its beginning.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    startups = min(MOST_STARTUPS, max(FEWEST_STARTUPS, trials // 3))
    drawn = int(np.random.SeedSequence([seed, len(made)]).generate_state(1)[0])
    samplers = {"tpe": optuna.samplers.TPESampler, "gp": optuna.samplers.GPSampler}
    sampler: BaseSampler = samplers[algorithm](seed=drawn, n_startup_trials=startups)
    search = _Suggester(optuna_space(space), metric=metric, mode=goal, sampler=sampler)
    for trial in made:
        value = trial.value(metric)
        # Its annotation forgets that a pruned trial has no value.
        search.add_evaluated_point(trial.point, value, pruned=value is None)  # type: ignore[arg-type]
    return search


class _Suggester(OptunaSearch):
    """Optuna's search that takes a trial without a finite metric (refused, failed, diverged) for a bad one."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if self.metric in result:
            super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        value = math.nan if error or result is None else result.get(str(self.metric), math.nan)
        super().on_trial_complete(trial_id, result if math.isfinite(value) else None)
