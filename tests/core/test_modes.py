"""The user's words for a mode, and what must fit together."""

from typing import Any

import pytest

from psgd.core.corrections import DelayCompensation, GapAware, LagRate
from psgd.core.modes import Async, Mode, Rules, Sync
from psgd.errors import ConfigurationError


@pytest.mark.parametrize(("backups", "quorum"), [(0, 4), (1, 3), (3, 1)])
def test_a_step_waits_for_all_slots_but_the_backups(backups: int, quorum: int) -> None:
    assert Sync(backups).quorum(slots=4) == quorum


def test_a_negative_number_of_backups_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^backups must be >= 0, got -1$"):
        Sync(backups=-1)


def test_a_negative_staleness_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^staleness must be >= 0 or None, got -2$"):
        Async(staleness=-2)


@pytest.mark.parametrize("field", ["slots", "shards", "steps", "evaluate_every"])
def test_a_number_below_one_is_refused(field: str) -> None:
    numbers: dict[str, Any] = {"slots": 1, "shards": 1, "steps": 1, "evaluate_every": 1} | {field: 0}
    with pytest.raises(ConfigurationError, match=rf"^{field} must be >= 1, got 0$"):
        Rules(Sync(), numbers["slots"], numbers["shards"], numbers["steps"], numbers["evaluate_every"])


def test_backups_leave_one_slot_to_wait_for() -> None:
    with pytest.raises(ConfigurationError, match=r"^backups must be < slots, got 2 of 2 slots$"):
        Rules(Sync(backups=2), slots=2, shards=1, steps=1)


@pytest.mark.parametrize("mode", [Sync(), Sync(backups=1), Async(), Async(staleness=0)])
def test_a_run_may_be_without_budget_and_without_evaluations(mode: Mode) -> None:
    rules = Rules(mode, slots=2, shards=1, steps=None)
    assert (rules.steps, rules.evaluate_every) == (None, None)


def test_an_update_averages_at_least_one_gradient_and_at_most_one_a_slot() -> None:
    with pytest.raises(ConfigurationError, match=r"^gather must be >= 1, got 0$"):
        Async(gather=0)
    with pytest.raises(ConfigurationError, match=r"^gather must be <= slots, got 3 of 2 slots$"):
        Rules(Async(gather=3), slots=2, shards=1, steps=1)


@pytest.mark.parametrize(("steps", "budget"), [(5, 15), (None, None)])
def test_the_budget_counts_the_iterations_of_all_slots(steps: int | None, budget: int | None) -> None:
    assert Rules(Async(), slots=3, shards=2, steps=steps).budget == budget


def test_corrections_belong_to_async_mode() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Rules(Sync(), slots=2, shards=1, steps=1, correction=DelayCompensation())
    assert str(caught.value) == (
        "correction must be left out with mode sync, where nothing is stale, got dc=0.04; try async"
    )


def test_only_what_compares_weights_has_shards_keep_what_was_pulled() -> None:
    corrections = [None, LagRate(), DelayCompensation(0.0), DelayCompensation(), GapAware()]
    kept = [Rules(Async(), slots=2, shards=1, steps=1, correction=each).keeps_pulled for each in corrections]
    assert kept == [False, False, False, True, True]
