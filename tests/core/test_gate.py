"""Who may start an iteration: the barrier, the staleness bound, the budget and the evaluations."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from psgd.core.gate import UNREACHED, ClockGate, RoundGate, boundary_at, boundary_step, may_start
from psgd.core.ids import Boundary, Slot, Step
from psgd.core.messages import Ended, Granted, Settle
from psgd.core.modes import Async, Rules, Sync

A, B, C, D = Slot(0), Slot(1), Slot(2), Slot(3)


def granted(step: int, tick: int) -> Granted:
    return Granted(Step(step), tick)


# ------------------------------------------------------------------ boundaries


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [(7, 3, [0, 3, 6, 7, 7]), (6, 3, [0, 3, 6, 6]), (2, 5, [0, 2, 2]), (4, None, [0, 4, 4]), (None, 3, [0, 3, 6])],
)
def test_boundaries_lie_at_every_so_many_steps_and_at_the_end(
    steps: int | None, every: int | None, expected: list[int]
) -> None:
    rules = Rules(Sync(), 1, 1, steps, every)
    assert [boundary_step(rules, boundary) for boundary in range(len(expected))] == expected


def test_a_run_without_budget_and_evaluations_has_no_boundary() -> None:
    rules = Rules(Sync(), 1, 1, steps=None)
    assert boundary_step(rules, 1) == boundary_step(rules, 2) == UNREACHED
    assert boundary_at(rules, 1000) is None


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [
        (7, 3, [None, None, None, 1, None, None, 2, 3]),
        (6, 3, [None, None, None, 1, None, None, 2]),
        (2, 5, [None, None, 1]),
        (2, None, [None, None, 1]),
    ],
)
def test_a_step_knows_its_boundary(steps: int, every: int | None, expected: list[int | None]) -> None:
    rules = Rules(Sync(), 1, 1, steps, every)
    assert [boundary_at(rules, step) for step in range(len(expected))] == expected


# ------------------------------------------------------------------ rounds


def test_only_the_open_step_may_start() -> None:
    gate = RoundGate(Rules(Sync(), 2, 1, steps=5))
    assert gate.decide(A, Step(0)) == granted(0, tick=0)
    assert gate.decide(A, Step(1)) is None
    gate.closed(1)
    assert gate.decide(A, Step(1)) == granted(1, tick=1)
    assert (gate.steps, gate.finished_steps, gate.clocks, gate.max_clock_gap) == (1, 1, (1, 1), 0)


def test_a_slot_that_fell_behind_goes_on_at_the_open_step() -> None:
    gate = RoundGate(Rules(Sync(backups=1), 2, 1, steps=5))
    gate.closed(3)
    assert gate.decide(B, Step(0)) == granted(3, tick=3)


def test_rounds_end_with_the_budget() -> None:
    gate = RoundGate(Rules(Sync(), 1, 1, steps=2))
    gate.closed(2)
    assert gate.ended
    assert gate.decide(A, Step(2)) == Ended()


def test_no_step_behind_the_next_boundary_starts_before_the_evaluation_is_settled() -> None:
    gate = RoundGate(Rules(Sync(), 1, 1, steps=9, evaluate_every=2))
    gate.closed(3)
    assert gate.decide(A, Step(3)) == granted(3, tick=3)
    gate.closed(4)
    assert gate.decide(A, Step(4)) is None
    gate.settle(Settle(Boundary(1), False))
    assert gate.decide(A, Step(4)) == granted(4, tick=4)


@pytest.mark.parametrize("closed", [2, 3, 4], ids=["at once", "late", "at the last moment"])
def test_a_stop_ends_rounds_exactly_at_the_following_boundary(closed: int) -> None:
    gate = RoundGate(Rules(Sync(), 1, 1, steps=9, evaluate_every=2))
    gate.closed(closed)
    gate.settle(Settle(Boundary(1), True))
    gate.closed(3)
    assert gate.decide(A, Step(3)) == granted(3, tick=3)
    gate.closed(4)
    assert gate.decide(A, Step(4)) == Ended()


def test_a_stop_at_the_last_boundary_but_one_ends_with_the_budget() -> None:
    gate = RoundGate(Rules(Sync(), 1, 1, steps=3, evaluate_every=2))
    gate.settle(Settle(Boundary(1), True))
    gate.closed(2)
    assert gate.decide(A, Step(2)) == granted(2, tick=2)
    gate.closed(3)
    assert gate.decide(A, Step(3)) == Ended()


def test_a_stop_ends_a_run_without_budget() -> None:
    gate = RoundGate(Rules(Sync(), 1, 1, steps=None, evaluate_every=2))
    gate.settle(Settle(Boundary(1), True))
    gate.closed(4)
    assert gate.ended


def test_a_second_verdict_changes_nothing() -> None:
    gate = RoundGate(Rules(Sync(), 1, 1, steps=9, evaluate_every=2))
    gate.settle(Settle(Boundary(1), False))
    gate.settle(Settle(Boundary(1), True))
    gate.closed(4)
    assert gate.decide(A, Step(4)) == granted(4, tick=4)


def test_rounds_end_where_a_slot_has_left() -> None:
    gate = RoundGate(Rules(Sync(), 3, 1, steps=None))
    gate.leave(4)
    gate.leave(2)
    gate.leave(3)
    gate.closed(1)
    assert gate.decide(A, Step(1)) == granted(1, tick=1)
    gate.closed(2)
    assert gate.cut_short
    assert gate.decide(A, Step(2)) == Ended()


# ------------------------------------------------------------------ clocks


@pytest.mark.parametrize(
    ("clock", "slowest", "staleness", "may"),
    [(0, 0, 0, True), (1, 0, 0, False), (3, 0, 3, True), (4, 0, 3, False), (10**6, 0, None, True)],
)
def test_a_slot_may_run_ahead_as_far_as_the_bound(clock: int, slowest: int, staleness: int | None, may: bool) -> None:
    assert may_start(clock, slowest, staleness) is may


def clock_gate(
    slots: int, steps: int | None = 100, staleness: int | None = None, every: int | None = None
) -> ClockGate:
    mode = Async(staleness)
    return ClockGate(Rules(mode, slots, 1, steps, every), mode)


def test_a_slot_waits_for_the_slowest() -> None:
    gate = clock_gate(slots=2, staleness=1)
    for step in (0, 1):
        gate.finish(A, step)
        assert gate.decide(A, Step(step)) is not None
    gate.finish(A, 2)
    assert gate.decide(A, Step(2)) is None
    gate.finish(B, 1)
    assert gate.decide(A, Step(2)) == granted(2, tick=1)
    assert (gate.max_clock_gap, gate.clocks) == (1, (2, 1))


def test_without_a_bound_the_gap_is_only_measured() -> None:
    gate = clock_gate(slots=2)
    for step in range(8):
        gate.finish(A, step)
        assert gate.decide(A, Step(step)) is not None
    assert gate.max_clock_gap == 7


def test_the_schedule_ticks_once_every_slots_grants() -> None:
    gate = clock_gate(slots=2)
    ticks = [gate.decide(slot, Step(step)) for slot, step in [(A, 0), (B, 0), (A, 1), (A, 2), (A, 3)]]
    assert ticks == [granted(0, 0), granted(0, 0), granted(1, 1), granted(2, 1), granted(3, 2)]
    assert gate.steps == 2


@pytest.mark.parametrize("step", [0, 1], ids=["a late one", "the last one"])
def test_a_repeated_question_draws_nothing_and_gets_the_last_grant(step: int) -> None:
    gate = clock_gate(slots=1, steps=3)
    gate.decide(A, Step(0))
    gate.finish(A, 1)
    assert gate.decide(A, Step(1)) == granted(1, tick=1)
    assert gate.decide(A, Step(step)) == granted(1, tick=1)
    assert gate.steps == 2


def test_the_budget_is_shared_and_grants_steps_times_slots_iterations() -> None:
    gate = clock_gate(slots=2, steps=2)
    for step in range(3):
        assert gate.decide(A, Step(step)) is not None
    assert gate.decide(B, Step(0)) == granted(0, tick=1)
    assert gate.decide(A, Step(3)) == gate.decide(B, Step(1)) == Ended()


def test_finished_steps_are_finished_iterations_over_slots_rounded_down() -> None:
    gate = clock_gate(slots=2)
    gate.finish(A, 3)
    gate.finish(B, 2)
    gate.finish(B, 1)
    assert (gate.finished_steps, gate.clocks) == (2, (3, 2))


def test_no_iteration_behind_the_next_boundary_is_granted_before_the_evaluation_is_settled() -> None:
    gate = clock_gate(slots=2, steps=9, every=1)
    for step in range(4):
        assert gate.decide(A, Step(step)) is not None
    assert gate.decide(B, Step(0)) is None
    gate.settle(Settle(Boundary(1), False))
    assert gate.decide(B, Step(0)) == granted(0, tick=2)


def test_a_stop_ends_clocks_exactly_at_the_following_boundary() -> None:
    gate = clock_gate(slots=2, steps=9, every=1)
    for step in range(3):
        gate.decide(A, Step(step))
    gate.settle(Settle(Boundary(1), True))
    assert gate.decide(A, Step(3)) == granted(3, tick=1)
    assert gate.decide(B, Step(0)) == Ended()


def test_nobody_waits_for_a_slot_that_has_left() -> None:
    gate = clock_gate(slots=3, staleness=0, steps=None)
    assert gate.decide(A, Step(0)) is not None
    gate.finish(A, 1)
    gate.leave(B, 0)
    assert gate.decide(A, Step(1)) is None
    gate.leave(C, 0)
    assert gate.decide(A, Step(1)) == granted(1, tick=0)
    assert gate.clocks == (1, 0, 0)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([A, B, C]), st.integers(0, 6)), max_size=20))
def test_what_is_counted_as_it_happens_is_what_a_look_at_every_slot_would_find(
    events: list[tuple[bool, Slot, int]],
) -> None:
    gate = clock_gate(slots=4, steps=None)
    finished, left = {A: 0, B: 0, C: 0, D: 0}, set()
    for leaves, slot, count in events:
        finished[slot] = max(finished[slot], count)
        if leaves:
            gate.leave(slot, count)
            left.add(slot)
        else:
            gate.finish(slot, count)
    assert gate.finished_steps == sum(finished.values()) // 4
    assert gate.clocks == tuple(finished.values())
    gate.leave(D, finished[D])
    slowest = min((count for slot, count in finished.items() if slot not in {*left, D}), default=None)
    if slowest is not None:
        asking = next(slot for slot in finished if slot not in {*left, D})
        assert gate.decide(asking, Step(9)) is not None
        assert gate.max_clock_gap == 9 - slowest


def test_a_slot_that_has_left_is_granted_nothing() -> None:
    gate = clock_gate(slots=2)
    gate.leave(A, 0)
    assert gate.decide(A, Step(0)) == Ended()


def test_an_iteration_that_a_leaving_slot_leaves_undone_is_free_again() -> None:
    gate = clock_gate(slots=2, steps=1)
    gate.decide(A, Step(0))
    gate.decide(B, Step(0))
    gate.finish(B, 1)
    assert gate.decide(B, Step(1)) == Ended()
    gate.leave(A, 0)
    gate.leave(A, 0)
    assert gate.decide(B, Step(1)) == granted(1, tick=0)
    assert gate.decide(B, Step(2)) == Ended()


def test_an_iteration_that_a_leaving_slot_has_done_stays_drawn() -> None:
    gate = clock_gate(slots=2, steps=1)
    gate.decide(A, Step(0))
    gate.decide(B, Step(0))
    gate.leave(A, 1)
    assert gate.decide(B, Step(1)) == Ended()


def settled(boundary: int, lr_factor: float) -> Settle:
    return Settle(Boundary(boundary), False, lr_factor)


def test_what_an_evaluation_makes_of_the_learning_rate_takes_effect_at_the_following_boundary() -> None:
    gate = RoundGate(Rules(Sync(), slots=1, shards=1, steps=9, evaluate_every=2))
    seen = []
    for step in range(9):
        gate.closed(step)
        if step in (2, 4, 6):
            gate.settle(settled(step // 2, 0.5 ** (step // 2)))
        answer = gate.decide(A, Step(step))
        assert isinstance(answer, Granted)
        seen.append(answer.lr_factor)
    assert seen == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_on_arrival_it_takes_effect_with_the_samples_drawn() -> None:
    gate = ClockGate(Rules(Async(), slots=2, shards=1, steps=9, evaluate_every=1), Async())
    seen = []
    for step in range(3):
        for slot in (A, B):
            answer = gate.decide(slot, Step(step))
            assert isinstance(answer, Granted)
            seen.append((answer.tick, answer.lr_factor))
            gate.finish(slot, step + 1)
        gate.settle(settled(step + 1, 0.5))
    assert seen == [(0, 1.0), (0, 1.0), (1, 1.0), (1, 1.0), (2, 0.5), (2, 0.5)]


def test_a_repeated_verdict_does_not_change_the_learning_rate() -> None:
    gate = RoundGate(Rules(Sync(), slots=1, shards=1, steps=9, evaluate_every=1))
    gate.settle(settled(1, 0.5))
    gate.settle(settled(1, 0.1))
    gate.closed(2)
    assert gate.lr_factor == 0.5
