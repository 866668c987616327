"""The user's words for a mode, and what must fit together."""

import pytest

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
    numbers = {"slots": 1, "shards": 1, "steps": 1, "evaluate_every": 1} | {field: 0}
    with pytest.raises(ConfigurationError, match=rf"^{field} must be >= 1, got 0$"):
        Rules(Sync(), numbers["slots"], numbers["shards"], numbers["steps"], numbers["evaluate_every"])


def test_backups_leave_one_slot_to_wait_for() -> None:
    with pytest.raises(ConfigurationError, match=r"^backups must be < slots, got 2 of 2 slots$"):
        Rules(Sync(backups=2), slots=2, shards=1, steps=1)


@pytest.mark.parametrize("mode", [Sync(), Sync(backups=1), Async(), Async(staleness=0)])
def test_a_run_may_be_without_budget_and_without_evaluations(mode: Mode) -> None:
    rules = Rules(mode, slots=2, shards=1, steps=None)
    assert (rules.steps, rules.evaluate_every) == (None, None)
