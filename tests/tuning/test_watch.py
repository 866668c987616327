import math
from typing import Any

from psgd.tuning.attempt import FAILED, NAMES, REFUSED
from psgd.tuning.trials import Measured, Trial
from psgd.tuning.watch import Watch
from tests.tuning.in_process import Tried


class Told:
    """A watch, and what it has told."""

    def __init__(self, *made: Trial) -> None:
        self.ended: list[Trial] = []
        self.watch = Watch("test_loss", made, self.ended.append)

    def start(self, name: str = "a") -> Tried:
        tried: Any = Tried(name)
        self.watch.on_trial_start(0, [], tried)
        return tried  # type: ignore[no-any-return]

    def report(self, tried: Any, step: int, final: bool = False, **metrics: float) -> None:
        result = {**metrics, "step": step, "seconds": step / 10, "final": final, NAMES: sorted(metrics)}
        self.watch.on_trial_result(0, [], tried, result)
        tried.last_result = result

    def complete(self, tried: Any) -> Trial:
        self.watch.on_trial_complete(0, [], tried)
        return self.ended[-1]


def test_the_final_report_completes_the_last_evaluation() -> None:
    told = Told()
    tried = told.start()
    told.report(tried, 10, test_loss=0.5)
    told.report(tried, 20, test_loss=0.25)
    told.report(tried, 20, final=True, test_loss=0.25, train_loss=0.125)
    assert told.complete(tried) == Trial(
        0,
        {"lr": 0.1},
        "done",
        None,
        (Measured(10, 1.0, {"test_loss": 0.5}), Measured(20, 2.0, {"test_loss": 0.25, "train_loss": 0.125})),
    )


def test_a_trial_that_ends_without_its_final_report_was_stopped() -> None:
    told = Told()
    tried = told.start()
    told.report(tried, 10, test_loss=0.5)
    trial = told.complete(tried)
    assert (trial.status, trial.reason) == ("stopped", "after 1 evaluation")


def test_a_trial_whose_metric_is_not_finite_has_diverged() -> None:
    told = Told()
    tried = told.start()
    told.report(tried, 10, final=True, test_loss=math.nan)
    trial = told.complete(tried)
    assert (trial.status, trial.reason) == ("diverged", "test_loss is not finite")


def test_refusals_and_failures_keep_their_reason() -> None:
    told = Told()
    refused, failed = told.start("a"), told.start("b")
    refused.last_result = {REFUSED: "slots must be >= 1"}
    failed.last_result = {FAILED: "ZeroDivisionError: the user's own"}
    assert [(t.number, t.status, t.reason) for t in map(told.complete, (refused, failed))] == [
        (0, "refused", "slots must be >= 1"),
        (1, "failed", "ZeroDivisionError: the user's own"),
    ]


def test_a_process_that_died_is_a_failure_with_the_last_line_of_its_account() -> None:
    told = Told()
    tried: Any = Tried("a", error="Failure # 1\nray.exceptions.ActorDiedError: ...\n  out of memory\n\n")
    told.watch.on_trial_error(0, [], tried)  # it has not even started
    assert [(t.number, t.status, t.reason) for t in told.ended] == [(0, "failed", "out of memory")]


def test_numbers_that_are_taken_are_left_out() -> None:
    told = Told(Trial(0, {}, "done"), Trial(2, {}, "done"))
    assert [told.complete(told.start(name)).number for name in "abc"] == [1, 3, 4]


def test_a_metric_that_evaluations_do_not_have_ends_the_search_and_names_those_there_are() -> None:
    told = Told()
    tried = told.start()
    assert not told.watch.stop_all()
    told.report(tried, 10, test_acc=0.5, train_loss=1.0)
    assert told.watch.stop_all()
    refusal = str(told.watch.refusal)
    assert "objective" in refusal
    assert "test_loss" in refusal
    assert "test_acc, train_loss" in refusal
    told.watch.on_trial_complete(0, [], tried)  # type: ignore[arg-type]
    assert told.ended == []
