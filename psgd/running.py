"""A planned run from start to `Result`: who is told what happens, where it runs, what is written in the end."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from psgd.coordinator.coordinator import SaveSnapshot
from psgd.coordinator.outcome import Outcome
from psgd.errors import InternalError
from psgd.observers import (
    Broadcast,
    DivergenceWarning,
    JsonLinesWriter,
    Recorder,
    TensorBoardWriter,
    Tolerant,
    progress_display,
)
from psgd.planning import Plan, describe_timing, explain_copies
from psgd.result import WEIGHTS_NAME, Result, compute_figures, make_result, save_weights, timing_figures
from psgd.runlog import Evaluation, Footer, Header, Iteration, Notice, Observer, Record, versions
from psgd.simulation.timing import TimingJob, run_timing
from psgd.simulation.world import World
from psgd.training.callbacks import Callback

log = logging.getLogger("psgd")


def run(plan: Plan, callbacks: Sequence[Callback], progress: bool) -> Result:
    """Train as planned.

    Args:
        progress: show how far it is.

    Returns:
        The result, also when the run was stopped early.

    Raises:
        PsgdError: if the run has failed.
    """
    recorder = Recorder()
    with Broadcast([recorder, *_observers(plan, callbacks, progress)]) as observe:
        for callback in callbacks:
            callback.on_start()
        note = explain_copies(plan.job)
        if note is not None:
            observe(Notice(0.0, note))
        outcome = _launch(plan, observe)
        result = _conclude(plan, outcome, recorder, observe)
    for callback in callbacks:
        callback.on_end(result)
    return result


def run_without_gradients(job: TimingJob, world: World, out: Path | None, progress: bool) -> dict[str, Any]:
    """Simulate the timing of a job, with a log like any other run's.

    Args:
        out: the folder for the log; None writes nothing.
        progress: show how far it is.

    Returns:
        The figures.
    """
    recorder = Recorder()
    observers: list[Observer] = [recorder]
    if progress:
        observers.append(progress_display(job.rules.slots, job.rules.steps))
    if out is not None:
        observers.append(Tolerant(JsonLinesWriter(out, _header(describe_timing(job, world)))))
    with Broadcast(observers) as observe:
        timing = run_timing(job, world, observe)
        figures = timing_figures(job, timing, recorder, out)
        observe(Footer(figures))
    return figures


def _header(settings: dict[str, Any]) -> Header:
    return Header(settings, versions(), datetime.now(UTC).isoformat(timespec="seconds"))


def _observers(plan: Plan, callbacks: Sequence[Callback], progress: bool) -> list[Observer]:
    """Who is told what happens: the user first, then what is written."""
    rules = plan.job.rules
    observers: list[Observer] = [DivergenceWarning(), *map(CallbackObserver, callbacks)]
    if progress:
        observers.append(progress_display(rules.slots, rules.steps))
    if plan.out is not None:
        observers.append(Tolerant(JsonLinesWriter(plan.out, _header(plan.settings))))
        observers.append(Tolerant(TensorBoardWriter(plan.out, rules.slots)))
    return observers


class CallbackObserver:
    """Tells a user's callback the records that it has methods for."""

    def __init__(self, callback: Callback) -> None:
        self._callback = callback

    def __call__(self, record: Record) -> None:
        """Pass the record on."""
        match record:
            case Iteration():
                self._callback.on_step(record)
            case Evaluation():
                self._callback.on_evaluation(record)

    def close(self) -> None:
        """Nothing to let go of."""


def _launch(plan: Plan, observe: Callable[[Record], None]) -> Outcome:
    """Run on the plane of the plan, or in its world; Ray is imported only for those that need it."""
    keep = partial(_save_measured, plan.out)
    if plan.world is not None:
        from psgd.simulation import training as simulation

        return simulation.run(plan.job, plan.world, plan.initial, plan.policies, observe, keep)
    if plan.job.plane == "memory":
        from psgd import inprocess

        return inprocess.run(plan.job, plan.initial, plan.policies, observe, keep)
    from psgd import cluster

    return cluster.run(plan.job, plan.placement, plan.initial, plan.policies, observe, keep)


def _save_measured(out: Path | None, decision: SaveSnapshot, weights: Mapping[str, Tensor]) -> None:
    """Write what an evaluation has measured; a disk that does not take it does not end the run."""
    if out is None:
        raise InternalError("weights are to be kept, and there is no folder for them")
    header = {"step": str(decision.step), **{name: str(value) for name, value in decision.metrics.items()}}
    for name in decision.names:
        try:
            save_weights(weights, out / f"{name}.safetensors", header)
        except OSError as error:
            log.warning("the weights of step %d are not kept as %s: %s", decision.step, name, error)


def _conclude(plan: Plan, outcome: Outcome, recorder: Recorder, observe: Callable[[Record], None]) -> Result:
    """Write the weights, then the log's last line: a log that has one is a run that is complete."""
    figures = compute_figures(plan.job, outcome, recorder, plan.out)
    checkpoint = None
    if plan.out is not None:
        try:
            checkpoint = save_weights(outcome.weights, plan.out / WEIGHTS_NAME)
        except OSError as error:
            log.warning("the weights are not saved: %s; Result.weights has them", error)
    observe(Footer(figures))
    return make_result(plan.job, outcome, recorder, figures, checkpoint, plan.out)
