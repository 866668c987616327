"""Records of a run, for tests of whoever observes it."""

from dataclasses import replace
from typing import Any

from psgd.runlog import Evaluation, Iteration

ITERATION = Iteration(
    time_s=1.0,
    worker=0,
    slot=0,
    step=0,
    loss=0.5,
    samples=4,
    status="accepted",
    lag=0,
    version=1,
    lr=(0.1,),
    compute_s=0.25,
    wait_s=0.125,
)
EVALUATION = Evaluation(
    time_s=2.0,
    boundary=1,
    step=3,
    versions=(3, 3),
    metrics={"test_loss": 0.25, "test_accuracy": 0.75},
    seconds=0.5,
    decision="go on: nothing to stop for",
    effective_step=6,
)


def iteration(**changes: Any) -> Iteration:
    """`ITERATION` with some of it changed."""
    return replace(ITERATION, **changes)
