from collections.abc import Mapping, Sequence
from itertools import permutations

import pytest

from psgd.coordinator.coordinator import (
    STARTING_S,
    BoundaryReached,
    Coordinator,
    Decision,
    EvaluateSnapshot,
    Event,
    FailRun,
    FinishRun,
    Log,
    ReplaceWorker,
    SaveSnapshot,
    SettleBoundary,
    SnapshotEvaluated,
    Ticked,
    TrainingBegan,
    WorkerBeat,
    WorkerEnded,
    WorkerLost,
)
from psgd.core.ids import Boundary, Incarnation, Step
from psgd.core.membership import Membership
from psgd.core.modes import Rules, Sync
from psgd.errors import InternalError
from psgd.runlog import Evaluation
from psgd.training.policies import (
    Continue,
    EarlyStopping,
    ModelCheckpoint,
    Policies,
    ReduceLROnPlateau,
    Stop,
    StopAfter,
    StopAtTarget,
)

USED_UP = FinishRun("the budget is used up")


def coordinator(
    *,
    workers: int = 1,
    steps: int | None = 10,
    evaluate_every: int | None = None,
    evaluates: bool = True,
    policies: Policies | None = None,
    max_failures: int = 3,
) -> Coordinator:
    rules = Rules(Sync(), slots=4, shards=2, steps=steps, evaluate_every=evaluate_every)
    return begun(Coordinator(rules, workers, evaluates, policies or Policies(), max_failures, lease_s=10.0))


def begun(run: Coordinator, now: float = 0.0) -> Coordinator:
    """Its workers were told to run."""
    assert run.handle(TrainingBegan(), now) == []
    return run


def reached(boundary: int, step: int) -> BoundaryReached:
    return BoundaryReached(Boundary(boundary), Step(step))


def evaluated(boundary: int, loss: float = 1.0) -> SnapshotEvaluated:
    return SnapshotEvaluated(Boundary(boundary), (boundary, boundary), {"test_loss": loss}, 0.5)


def evaluate(boundary: int, step: int) -> EvaluateSnapshot:
    return EvaluateSnapshot(Boundary(boundary), Step(step))


def settle(boundary: int, stop: bool = False) -> SettleBoundary:
    return SettleBoundary(Boundary(boundary), stop)


def handled(run: Coordinator, *events: Event, now: float = 0.0) -> list[Decision]:
    return [decision for event in events for decision in run.handle(event, now)]


def unlogged(decisions: Sequence[Decision]) -> list[Decision]:
    return [decision for decision in decisions if not isinstance(decision, Log)]


# ------------------------------------------------------------------ evaluations


def test_a_boundary_is_evaluated_then_logged_and_settled() -> None:
    run = coordinator(evaluate_every=4)
    assert handled(run, reached(1, 4)) == [evaluate(1, 4)]
    assert handled(run, evaluated(1, 0.25)) == [
        Log(
            Evaluation(
                time_s=0.0,
                boundary=1,
                step=4,
                versions=(1, 1),
                metrics={"test_loss": 0.25},
                seconds=0.5,
                decision="go on: nothing to stop for",
                effective_step=8,
            )
        ),
        settle(1),
    ]


def test_the_last_boundary_takes_effect_at_the_end() -> None:
    run = coordinator(evaluate_every=4)
    steps = [
        decision.record.effective_step
        for boundary, step in ((1, 4), (2, 8), (3, 10))
        for decision in handled(run, reached(boundary, step), evaluated(boundary))
        if isinstance(decision, Log)
    ]
    assert steps == [8, 10, 10]


def test_without_an_evaluator_a_boundary_is_settled_at_once() -> None:
    assert handled(coordinator(evaluates=False, evaluate_every=4), reached(1, 4)) == [settle(1)]


def test_the_learning_rate_falls_when_a_metric_has_stopped_improving() -> None:
    plateau = ReduceLROnPlateau(patience=0, factor=0.5)
    run = coordinator(evaluate_every=2, policies=Policies(plateau=plateau, lr=0.25))
    decisions = []
    for boundary, loss in ((1, 1.0), (2, 1.0), (3, 0.5), (4, 0.75)):
        decisions += handled(run, reached(boundary, 2 * boundary), evaluated(boundary, loss))
    settled = [each for each in decisions if isinstance(each, SettleBoundary)]
    assert settled == [SettleBoundary(Boundary(k + 1), False, f) for k, f in enumerate([1.0, 0.5, 0.5, 0.25])]
    records = [each.record for each in decisions if isinstance(each, Log)]
    assert [record.lr_factor for record in records] == [1.0, 0.5, 0.5, 0.25]
    assert [record.decision for record in records] == [
        "go on: test_loss: the best is 1",
        "go on: test_loss has not improved on 1: learning rate x 0.5",
        "go on: test_loss: the best is 0.5",
        "go on: test_loss has not improved on 0.5: learning rate x 0.5",
    ]


def test_the_best_weights_are_saved_before_their_boundary_is_settled() -> None:
    run = coordinator(evaluate_every=2, policies=Policies(keeping=ModelCheckpoint()))
    names = []
    for boundary, loss in ((1, 1.0), (2, 2.0), (3, 0.5)):
        decisions = handled(run, reached(boundary, 2 * boundary), evaluated(boundary, loss))[1:]
        saved = decisions[0]
        assert isinstance(saved, SaveSnapshot)
        assert (saved.boundary, saved.step, saved.metrics) == (boundary, 2 * boundary, {"test_loss": loss})
        assert isinstance(decisions[-1], SettleBoundary)
        names.append(saved.names)
    assert names == [("best", "last"), ("last",), ("best", "last")]


# ------------------------------------------------------------------ the end


@pytest.mark.parametrize("order", list(permutations(("evaluated", "worker 0", "worker 1"))))
def test_a_run_ends_once_whatever_comes_last(order: tuple[str, ...]) -> None:
    run = coordinator(workers=2)
    events: Mapping[str, Event] = {"evaluated": evaluated(1), "worker 0": WorkerEnded(0), "worker 1": WorkerEnded(1)}
    handled(run, reached(1, 10))
    steps = [unlogged(handled(run, events[name])) for name in order]
    expected: dict[str, list[Decision]] = {"evaluated": [settle(1)], "worker 0": [], "worker 1": []}
    assert steps == [[*expected[name], *([USED_UP] if name == order[-1] else [])] for name in order]


def test_workers_may_end_before_the_last_boundary_is_heard_of() -> None:
    run = coordinator()
    assert handled(run, WorkerEnded(0)) == []
    assert handled(run, reached(1, 10)) == [evaluate(1, 10)]
    assert unlogged(handled(run, evaluated(1))) == [settle(1), USED_UP]


def test_without_an_evaluator_the_last_boundary_ends_the_run() -> None:
    run = coordinator(evaluates=False)
    assert handled(run, WorkerEnded(0), reached(1, 10)) == [settle(1), USED_UP]
    run = coordinator(evaluates=False)
    assert handled(run, reached(1, 10), WorkerEnded(0)) == [settle(1), USED_UP]


def test_an_earlier_boundary_does_not_end_the_run() -> None:
    run = coordinator(evaluate_every=5, evaluates=False)
    assert handled(run, WorkerEnded(0), reached(1, 5)) == [settle(1)]
    assert handled(run, reached(2, 10)) == [settle(2), USED_UP]


def test_nothing_ends_a_run_twice() -> None:
    run = coordinator(evaluates=False)
    handled(run, reached(1, 10), WorkerEnded(0))
    assert handled(run, WorkerEnded(0), WorkerLost(0, "gone"), Ticked(), now=1e9) == []


# ------------------------------------------------------------------ loops without a budget


def test_loops_without_a_budget_are_measured_when_all_have_ended() -> None:
    run = coordinator(workers=2, steps=None)
    assert handled(run, WorkerEnded(0)) == []
    assert handled(run, WorkerEnded(1)) == [evaluate(0, 0)]
    log, *rest = handled(run, evaluated(0))
    assert isinstance(log, Log)
    assert (log.record.decision, log.record.effective_step) == ("go on: nothing to stop for", 0)
    assert rest == [settle(0), USED_UP]


def test_loops_without_a_budget_and_evaluator_end_the_run() -> None:
    assert handled(coordinator(steps=None, evaluates=False), WorkerEnded(0)) == [USED_UP]


def test_an_evaluation_under_way_does_not_take_the_place_of_the_final_one() -> None:
    run = coordinator(steps=None, evaluate_every=5)
    handled(run, reached(1, 5), evaluated(1), reached(2, 10))
    assert handled(run, WorkerEnded(0)) == [evaluate(0, 0)]
    assert unlogged(handled(run, evaluated(2))) == [settle(2)]
    assert unlogged(handled(run, evaluated(0))) == [settle(0), USED_UP]


def test_loops_without_a_budget_stop_early_too() -> None:
    run = coordinator(steps=None, evaluate_every=5, policies=Policies(EarlyStopping(patience=1)))
    assert unlogged(handled(run, reached(1, 5), evaluated(1, 1.0), reached(2, 10))) == [
        evaluate(1, 5),
        settle(1),
        evaluate(2, 10),
    ]
    assert unlogged(handled(run, evaluated(2, 1.5))) == [settle(2, stop=True)]
    assert handled(run, WorkerEnded(0), reached(3, 15)) == [evaluate(3, 15)]
    reason = "test_loss has not improved on 1 for 1 evaluations: stopped at step 15"
    assert unlogged(handled(run, evaluated(3, 2.0))) == [settle(3), FinishRun(reason)]


def test_what_is_measured_after_all_loops_stops_nothing() -> None:
    run = coordinator(steps=None, evaluate_every=5, policies=Policies(EarlyStopping(patience=1)))
    handled(run, reached(1, 5), evaluated(1, 1.0))
    assert handled(run, WorkerEnded(0)) == [evaluate(0, 0)]
    assert unlogged(handled(run, evaluated(0, 2.0))) == [settle(0), USED_UP]
    assert run.stopped_early is None


# ------------------------------------------------------------------ early stopping


def test_early_stopping_takes_effect_at_the_following_boundary() -> None:
    run = coordinator(steps=100, evaluate_every=10, policies=Policies(EarlyStopping(patience=2)))
    decisions = [
        unlogged(handled(run, reached(k, 10 * k), evaluated(k, loss)))
        for k, loss in enumerate([3.0, 2.0, 2.5, 2.25], start=1)
    ]
    assert decisions == [[evaluate(k, 10 * k), settle(k, stop=k == 4)] for k in range(1, 5)]
    reason = "test_loss has not improved on 2 for 2 evaluations: stopped at step 50"
    assert run.stopped_early == reason
    assert handled(run, WorkerEnded(0)) == []  # boundary 5 is still to be evaluated
    assert unlogged(handled(run, reached(5, 50), evaluated(5, 9.0))) == [
        evaluate(5, 50),
        settle(5),
        FinishRun(reason),
    ]


def test_the_log_says_what_was_decided_and_why() -> None:
    run = coordinator(steps=100, evaluate_every=10, policies=Policies(EarlyStopping(patience=1)))
    handled(run, reached(1, 10), evaluated(1, 1.0), reached(2, 20))
    log = handled(run, evaluated(2, 1.5))[0]
    assert isinstance(log, Log)
    assert log.record.decision == "stop: test_loss has not improved on 1 for 1 evaluations"
    assert log.record.effective_step == 30


def test_the_end_of_the_budget_is_no_early_stop() -> None:
    run = coordinator(steps=20, evaluate_every=10, policies=Policies(EarlyStopping(patience=1)))
    handled(run, reached(1, 10), evaluated(1, 1.0), reached(2, 20))
    log, settled = handled(run, evaluated(2, 1.5))
    assert isinstance(log, Log)
    assert log.record.decision == "go on: test_loss has not improved on 1 for 1 evaluations"
    assert settled == settle(2)
    assert run.stopped_early is None


class StopOnce(EarlyStopping):
    """Says stop at the second evaluation only."""

    def decide(self, history: Sequence[Mapping[str, float]]) -> Stop | Continue:
        return Stop("enough") if len(history) == 2 else Continue("more")


def test_a_decision_to_stop_is_not_taken_back() -> None:
    rules = Rules(Sync(), 4, 2, steps=100, evaluate_every=10)
    run = begun(Coordinator(rules, 1, True, Policies(StopOnce()), max_failures=0, lease_s=1.0))
    handled(run, reached(1, 10), evaluated(1), reached(2, 20), evaluated(2), reached(3, 30))
    assert unlogged(handled(run, evaluated(3))) == [settle(3)]
    assert handled(run, WorkerEnded(0)) == [FinishRun("enough: stopped at step 30")]


def test_a_target_that_is_reached_ends_the_run_at_the_following_boundary() -> None:
    run = coordinator(steps=100, evaluate_every=10, policies=Policies(target=StopAtTarget("test_loss", 0.5)))
    assert unlogged(handled(run, reached(1, 10), evaluated(1, 0.75)))[1:] == [settle(1)]
    assert unlogged(handled(run, reached(2, 20), evaluated(2, 0.5)))[1:] == [settle(2, stop=True)]
    handled(run, reached(3, 30), evaluated(3, 0.75))
    assert handled(run, WorkerEnded(0)) == [FinishRun("test_loss has reached 0.5 with 0.5: stopped at step 30")]
    assert run.stopped_early == "test_loss has reached 0.5 with 0.5: stopped at step 30"


def test_the_time_of_a_run_counts_from_when_training_began() -> None:
    rules = Rules(Sync(), 4, 2, steps=100, evaluate_every=10)
    run = Coordinator(rules, 1, True, Policies(limit=StopAfter(5.0)), max_failures=0, lease_s=1.0)
    run.handle(WorkerBeat(0, Incarnation(0)), 1.0)
    begun(run, now=1000.0)
    handled(run, reached(1, 10), reached(2, 20), now=1001.0)
    first, second = (unlogged(handled(run, evaluated(k), now=now)) for k, now in ((1, 1004.9), (2, 1005.0)))
    assert (first, second) == ([settle(1)], [settle(2, stop=True)])
    assert run.stopped_early == "5.0 of 5 s have passed: stopped at step 30"


def test_a_target_that_is_reached_at_the_end_stops_nothing_early() -> None:
    run = coordinator(steps=10, evaluate_every=10, policies=Policies(target=StopAtTarget("test_loss", 0.5)))
    assert unlogged(handled(run, reached(1, 10), evaluated(1, 0.25)))[1:] == [settle(1)]
    assert handled(run, WorkerEnded(0)) == [USED_UP]
    assert run.stopped_early is None


def test_an_evaluation_before_training_began_is_our_bug() -> None:
    run = Coordinator(Rules(Sync(), 4, 2, steps=10), 1, True, Policies(), max_failures=0, lease_s=1.0)
    with pytest.raises(InternalError, match="boundary 1 was evaluated before training began"):
        handled(run, reached(1, 10), evaluated(1))


# ------------------------------------------------------------------ lost workers


def test_a_lost_worker_is_replaced_by_its_next_incarnation() -> None:
    run = coordinator(workers=2)
    assert run.membership == Membership.first(slots=4, workers=2)
    (decision,) = handled(run, WorkerLost(1, "killed"))
    assert decision == ReplaceWorker(1, run.membership, "killed")
    assert run.membership.generation == 1
    assert run.membership.incarnations == (0, 1, 0, 1)
    assert run.membership.workers == (0, 1, 0, 1)


@pytest.mark.parametrize(("max_failures", "replaced"), [(0, 0), (1, 1), (3, 3)])
def test_a_run_fails_when_more_workers_are_lost_than_may_be(max_failures: int, replaced: int) -> None:
    run = coordinator(max_failures=max_failures)
    for _ in range(replaced):
        (decision,) = handled(run, WorkerLost(0, "killed"))
        assert isinstance(decision, ReplaceWorker)
    failed = FailRun(f"worker 0 was lost (killed), and max_failures is {max_failures}")
    assert handled(run, WorkerLost(0, "killed")) == [failed]
    assert handled(run, WorkerLost(0, "killed")) == []


def test_workers_are_replaced_without_end_where_that_is_wanted() -> None:
    run = coordinator(max_failures=-1)
    lost = handled(run, *[WorkerLost(0, "killed")] * 50)
    assert [type(decision) for decision in lost] == [ReplaceWorker] * 50
    assert run.membership.incarnations == (50,) * 4


def test_a_worker_that_has_ended_can_not_be_lost() -> None:
    assert handled(coordinator(workers=2), WorkerEnded(1), WorkerLost(1, "exited")) == []


def test_a_replacement_that_never_starts_is_lost_too() -> None:
    run = coordinator(workers=2)
    handled(run, WorkerLost(0, "killed"), now=0.0)
    assert handled(run, Ticked(), now=STARTING_S + 10.0) == []
    assert [d.worker for d in handled(run, Ticked(), now=STARTING_S + 10.5) if isinstance(d, ReplaceWorker)] == [0]


def test_a_worker_without_a_sign_of_life_is_lost() -> None:
    run = coordinator(workers=2)
    handled(run, WorkerBeat(0, Incarnation(0)), WorkerBeat(1, Incarnation(0)), now=0.0)
    handled(run, WorkerBeat(1, Incarnation(0)), now=8.0)
    assert handled(run, Ticked(), now=10.0) == []
    (decision,) = handled(run, Ticked(), now=12.0)
    assert decision == ReplaceWorker(0, run.membership, "no sign of life for 12 s")
    assert handled(run, Ticked(), now=13.0) == []  # its successor has all the time to start
    assert handled(run, WorkerBeat(0, Incarnation(1)), now=14.0) == []
    assert handled(run, WorkerBeat(0, Incarnation(0)), now=20.0) == []  # a sign of the one that was replaced
    assert [d.worker for d in handled(run, Ticked(), now=24.5) if isinstance(d, ReplaceWorker)] == [0, 1]


def test_a_worker_that_has_ended_needs_no_sign_of_life() -> None:
    run = coordinator(workers=2)
    handled(run, WorkerBeat(0, Incarnation(0)), WorkerEnded(0))
    assert handled(run, Ticked(), now=100.0) == []
