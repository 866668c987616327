import pytest

from psgd.cluster.coordination import Beat, CoordinatorHost
from psgd.coordinator.coordinator import (
    BoundaryReached,
    Coordinator,
    EvaluateSnapshot,
    SettleBoundary,
    SnapshotEvaluated,
    TrainingBegan,
)
from psgd.core.ids import Boundary, Incarnation, Step
from psgd.core.modes import Rules, Sync
from psgd.errors import ConfigurationError
from psgd.runlog import Notice
from psgd.training.policies import EarlyStopping, Policies

RULES = Rules(Sync(), slots=1, shards=1, steps=3, evaluate_every=1)


def host(monitor: str = "test_loss") -> CoordinatorHost:
    policies = Policies(EarlyStopping(monitor, patience=1))
    made = CoordinatorHost(Coordinator(RULES, 1, True, policies, max_failures=0, lease_s=30.0))
    made.tell(TrainingBegan())
    return made


def test_a_decision_is_collected_once() -> None:
    coordinator = host()
    coordinator.tell(BoundaryReached(Boundary(1), Step(1)))
    assert coordinator.collect(0) == ([EvaluateSnapshot(Boundary(1), Step(1))], [])
    assert coordinator.collect(0) == ([], [])


def test_beats_bring_their_records_to_the_driver() -> None:
    coordinator = host()
    beat = Beat(0, Incarnation(0), 1.5, (Notice(1.0, "hello"),))
    coordinator.beat(beat)
    assert coordinator.collect(0) == ([], [beat])


def test_a_stopping_rule_that_raises_is_heard_by_the_driver() -> None:
    coordinator = host(monitor="accuracy")
    coordinator.tell(BoundaryReached(Boundary(1), Step(1)))
    coordinator.collect(0)
    coordinator.tell(SnapshotEvaluated(Boundary(1), (1,), {"test_loss": 0.5}, 0.1))
    with pytest.raises(ConfigurationError, match="monitor must be one of test_loss, got 'accuracy'"):
        coordinator.collect(0)


def test_boundaries_that_are_reported_out_of_order_are_evaluated_in_order() -> None:
    coordinator = host()
    coordinator.tell(BoundaryReached(Boundary(2), Step(2)))
    assert coordinator.collect(0) == ([], [])
    coordinator.tell(BoundaryReached(Boundary(1), Step(1)))
    assert coordinator.collect(0) == (
        [EvaluateSnapshot(Boundary(1), Step(1)), EvaluateSnapshot(Boundary(2), Step(2))],
        [],
    )


def test_settling_reaches_the_driver_with_the_record_before_it() -> None:
    coordinator = host()
    coordinator.tell(BoundaryReached(Boundary(1), Step(1)))
    coordinator.collect(0)
    coordinator.tell(SnapshotEvaluated(Boundary(1), (1,), {"test_loss": 0.5}, 0.1))
    decisions, _ = coordinator.collect(0)
    assert decisions[-1] == SettleBoundary(Boundary(1), stop=False)
