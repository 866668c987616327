import math
from collections.abc import Sequence
from typing import Any

import pytest

from psgd.analysis.iterations import Collector, Iterations
from tests.records import iteration


def columns(*changes: dict[str, Any]) -> Iterations:
    collector = Collector()
    for each in changes:
        collector.add(iteration(**each))
    return collector.columns()


def at(times: Sequence[float], **changes: Any) -> list[dict[str, Any]]:
    return [{"time_s": time, "step": step, **changes} for step, time in enumerate(times)]


def test_on_arrival_as_many_iterations_as_slots_are_a_step_whoever_made_them() -> None:
    found = columns(*at([1.0, 2.0, 4.0]), *at([3.0, 5.0], slot=1))
    assert found.step_ends(2, rounds=False).tolist() == [2.0, 4.0]


def test_in_rounds_a_step_ends_with_the_last_answer_that_it_took_in() -> None:
    found = columns(*at([1.0, 3.0]), *at([1.5, 2.5], slot=1), *at([2.0, 9.0], slot=2, status="late", lr=()))
    assert found.step_ends(3, rounds=True).tolist() == [1.5, 3.0]


def test_a_round_that_was_refused_as_a_whole_has_its_end_too() -> None:
    found = columns(*at([1.0], status="nonfinite"), *at([1.5], slot=1, status="nonfinite"), {"time_s": 2.0, "step": 1})
    assert found.step_ends(2, rounds=True).tolist() == [1.5, 2.0]


def test_a_slot_that_backups_leave_behind_does_not_move_the_ends() -> None:
    quick = [each for slot in (0, 1) for each in at([1.0, 2.0, 3.0], slot=slot)]
    found = columns(*quick, {"time_s": 2.5, "step": 1, "slot": 2, "status": "late"})
    assert found.step_ends(3, rounds=True).tolist() == [1.0, 2.0, 3.0]


def test_a_learning_rate_that_was_infinite_is_none_as_a_log_has_it() -> None:
    found = columns({"lr": (None, 0.1)}, {"lr": (0.5,), "step": 1})
    assert math.isnan(found.lr[0])
    assert found.figures()["effective_lr"] == 0.5


def test_shares_are_of_all_slots_time() -> None:
    found = columns({"compute_s": 1.0, "wait_s": 2.0, "transfer_s": 1.0}, {"compute_s": 3.0, "wait_s": 1.0, "slot": 1})
    figures = found.figures()
    assert [figures[f"{name}_share"] for name in ("compute", "wait", "transfer")] == [0.5, 0.375, 0.125]


def test_lag_and_learning_rate_are_those_of_accepted_pushes() -> None:
    found = columns(
        {"lag": 0, "lr": (0.1, 0.7)},
        {"lag": 2, "lr": (0.05, 0.7)},
        {"lag": 9, "status": "late", "lr": ()},
        {"lag": 2, "lr": ()},
    )
    figures = found.figures()
    assert found.lags() == {0: 1, 2: 2}
    assert figures["lag_mean"] == pytest.approx(4 / 3)
    assert figures["lag_max"] == 2.0
    assert figures["effective_lr"] == pytest.approx(0.075)


def test_with_local_steps_the_learning_rate_is_theirs() -> None:
    assert columns({"lr": (0.7,), "inner_lr": (0.05, 0.3)}).figures()["effective_lr"] == 0.05


def test_what_slots_have_finished_and_what_was_accepted_of_it_is_counted() -> None:
    assert columns({}, {"status": "late"}).heard(3) == ((2, 1), (0, 0), (0, 0))


def test_a_log_without_iterations_knows_nothing() -> None:
    assert columns().figures() == {}
    assert columns().step_ends(2, rounds=True).tolist() == []
    assert columns().lags() == {}
