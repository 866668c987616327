import os
from collections.abc import Mapping
from typing import Any

import pytest

from psgd.errors import ConfigurationError
from psgd.trainer import Trainer
from psgd.tuning.search import QUIET, Asha, Search, _quiet, probe
from psgd.tuning.space import Choices, Range
from psgd.tuning.trials import Trial
from tests.tuning.test_trainable import make_trainer

GRID = Search({"workers": Choices((0, 1, 2)), "shards": Choices((1, 2))}, "grid", 16, "test_loss", "min")
BAYES = Search({"batch_size": Range(1, 50, whole=True)}, "tpe", 4, "test_loss", "min")


def make(values: Mapping[str, Any]) -> Trainer:
    return make_trainer(**values)


def test_a_grid_is_as_large_as_it_is() -> None:
    assert GRID.size() == 6
    assert (
        GRID.left([Trial(0, {"workers": 0, "shards": 1}, "refused"), Trial(1, {"workers": 9, "shards": 1}, "done")])
        == 5
    )


def test_a_search_that_learns_is_as_large_as_it_is_told() -> None:
    assert (BAYES.size(), BAYES.left([])) == (4, 4)
    assert BAYES.left([Trial(k, {"batch_size": k}, "done") for k in range(5)]) == 0


def test_one_point_that_can_be_run_is_found_before_anything_starts() -> None:
    trainer = probe(GRID, make)
    assert trainer.workers in (1, 2)
    assert trainer.out is None


@pytest.mark.parametrize("search", [Search({"workers": Choices((0, -1))}, "grid", 16, "test_loss", "min"), BAYES])
def test_a_space_without_any_is_refused_with_the_first_reason(search: Search) -> None:
    with pytest.raises(ConfigurationError, match=r"none of (2|32) points .* can be run; the first: .* got (0|-2)$"):
        probe(search, lambda values: make_trainer(**{"workers": -2, **values}))


@pytest.mark.parametrize(
    ("given", "words"),
    [({"grace_period": 0}, "grace_period must be >= 1"), ({"reduction_factor": 1}, "reduction_factor must be >= 2")],
)
def test_a_halving_that_halves_nothing_is_refused(given: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Asha(**given)


def test_what_tune_is_told_by_the_environment_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "1")
    monkeypatch.delenv("TUNE_PRINT_ALL_TRIAL_ERRORS", raising=False)
    with _quiet():
        assert {name: os.environ[name] for name in QUIET} == QUIET
    assert os.environ["RAY_AIR_NEW_OUTPUT"] == "1"
    assert "TUNE_PRINT_ALL_TRIAL_ERRORS" not in os.environ
