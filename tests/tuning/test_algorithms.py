import math
import sys
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from ray.tune.search.sample import Categorical, Float, Integer

from psgd.errors import ConfigurationError
from psgd.tuning.algorithms import (
    Algorithm,
    check_algorithm,
    optuna_space,
    points,
    remaining,
    suggester,
    tune_space,
)
from psgd.tuning.space import Choices, Range, Space
from psgd.tuning.trials import Measured, Trial

SPACE: Space = {
    "lr": Range(1e-4, 1e-1, log=True),
    "momentum": Range(0.0, 0.9),
    "shards": Range(1, 3, whole=True),
    "batch_size": Range(8, 64, log=True, whole=True),
    "betas": Choices((None, [0.9, 0.99])),
}


def test_a_grid_has_every_point_once() -> None:
    space: Space = {
        "lr": Choices((0.1, 0.2)),
        "mode": Choices(("sync", "async")),
        "betas": Choices((None, [0.9, 0.99])),
    }
    grid = points(space, "grid", trials=0, seed=0)
    assert len(grid) == 8
    assert {tuple(point.items()) for point in grid} == {
        (("lr", lr), ("mode", mode), ("betas", pair))
        for lr in (0.1, 0.2)
        for mode in ("sync", "async")
        for pair in (None, "[0.9, 0.99]")
    }


def test_a_grid_over_a_range_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"list some for lr, as A,B,..., or search random, tpe or gp"):
        points(SPACE, "grid", trials=0, seed=0)


def test_random_points_follow_from_the_seed_and_more_trials_begin_with_the_same() -> None:
    assert points(SPACE, "random", 3, seed=1) == points(SPACE, "random", 5, seed=1)[:3]
    assert points(SPACE, "random", 3, seed=1) != points(SPACE, "random", 3, seed=2)


def test_random_points_reach_both_ends_of_whole_ranges_and_stay_within_all() -> None:
    drawn = points(SPACE, "random", 200, seed=0)
    assert {point["shards"] for point in drawn} == {1, 2, 3}
    assert {point["betas"] for point in drawn} == {None, "[0.9, 0.99]"}
    assert all(1e-4 <= point["lr"] <= 1e-1 and 8 <= point["batch_size"] <= 64 for point in drawn)
    assert sum(point["lr"] < 10**-2.5 for point in drawn) in range(80, 121)  # half of it, on the log scale


def test_the_space_is_told_to_tune_in_its_own_words() -> None:
    lr, momentum, shards, batch_size, betas = tune_space(SPACE).values()
    assert (type(lr), lr.lower, lr.upper, type(lr.sampler).__name__) == (Float, 1e-4, 1e-1, "_LogUniform")
    assert (type(momentum), type(momentum.sampler).__name__) == (Float, "_Uniform")
    assert (type(shards), shards.lower, shards.upper) == (Integer, 1, 4)  # exclusive
    assert (batch_size.upper, type(batch_size.sampler).__name__) == (65, "_LogUniform")
    assert (type(betas), betas.categories) == (Categorical, [None, "[0.9, 0.99]"])


def test_the_space_is_told_to_optuna_in_its_own_words() -> None:
    assert optuna_space(SPACE) == {
        "lr": FloatDistribution(1e-4, 1e-1, log=True),
        "momentum": FloatDistribution(0.0, 0.9),
        "shards": IntDistribution(1, 3),
        "batch_size": IntDistribution(8, 64, log=True),
        "betas": CategoricalDistribution((None, "[0.9, 0.99]")),
    }


def test_only_what_is_not_made_remains_and_what_was_drawn_twice_is_made_twice() -> None:
    a, b = {"lr": 0.1}, {"lr": 0.2}
    assert remaining([b], [a, b, a, b]) == [a, a, b]
    assert remaining([a, a, {"lr": 0.3}], [a, b, a]) == [b]


def trial(number: int, point: dict[str, Any], loss: float | None) -> Trial:
    if loss is None:
        return Trial(number, point, "refused", "no")
    return Trial(number, point, "done", None, (Measured(1, 1.0, {"test_loss": loss}),))


POINT = {"lr": 0.01, "momentum": 0.5, "shards": 1, "batch_size": 8, "betas": None}


def test_optuna_knows_what_is_made() -> None:
    made = [trial(0, POINT, 0.25), trial(1, {**POINT, "lr": 0.1}, None)]
    search: Any = suggester(SPACE, "tpe", "test_loss", "min", 10, 0, made)
    known = search._ot_study.trials
    assert [(each.state, each.value, each.params["lr"]) for each in known] == [
        (TrialState.COMPLETE, 0.25, 0.01),
        (TrialState.PRUNED, None, 0.1),
    ]


@pytest.mark.parametrize(("algorithm", "trials"), [("tpe", 30), ("gp", 9)])
def test_suggestions_move_to_what_was_good(algorithm: Algorithm, trials: int) -> None:
    search: Any = suggester({"lr": Range(1e-4, 1e-1, log=True)}, algorithm, "test_loss", "min", trials, 0, [])
    for number in range(trials):
        lr = search.suggest(str(number))["lr"]
        search.on_trial_complete(str(number), {"test_loss": (math.log10(lr) + 2) ** 2})
    later = [math.log10(each.params["lr"]) for each in search._ot_study.trials[trials // 2 :]]
    near = sum(abs(exponent + 2) < 0.75 for exponent in later)
    assert near / len(later) > 2 / 3  # one in two, were it by chance


def test_a_search_that_goes_on_does_not_draw_again_what_it_drew_at_its_beginning() -> None:
    first: Any = suggester(SPACE, "tpe", "test_loss", "min", 10, 0, [])
    again: Any = suggester(SPACE, "tpe", "test_loss", "min", 10, 0, [])
    further: Any = suggester(SPACE, "tpe", "test_loss", "min", 10, 0, [trial(0, POINT, 0.5)])
    assert first.suggest("a") == again.suggest("a") != further.suggest("a")


@pytest.mark.parametrize("result", [None, {}, {"test_loss": math.nan}, {"refused": "too large"}])
def test_a_trial_without_a_finite_metric_counts_as_a_bad_one(result: dict[str, Any] | None) -> None:
    search: Any = suggester(SPACE, "tpe", "test_loss", "min", 10, 0, [])
    search.suggest("a")
    if result:
        search.on_trial_result("a", {**result, "training_iteration": 1})
    search.on_trial_complete("a", result)
    assert search._ot_study.trials[0].state == TrialState.PRUNED


def test_bayesian_search_without_optuna_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    check_algorithm("random")
    with pytest.raises(
        ConfigurationError, match=r"search gp takes Optuna, .*pip install 'psgd\[tune\]', or try random"
    ):
        check_algorithm("gp")
