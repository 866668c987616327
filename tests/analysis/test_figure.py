from dataclasses import replace

import pytest

from psgd.analysis.comparison import Metric, Target
from psgd.analysis.figure import BY_NAME, REACHING, all_figures, of_metric
from tests.analysis.runs import run_of

TARGET = Target("test_accuracy", 0.75)
TEST = of_metric(Metric("accuracy"), "test")


def test_every_figure_of_the_report_has_a_name_of_its_own() -> None:
    assert [figure.name for figure in all_figures(Metric("accuracy"))] == [
        *("seconds_to_target", "samples_to_target", "seconds", "samples", "steps", "updates", "samples_per_s"),
        *("idle_share", "compute_share", "wait_share", "transfer_share", "dropped_samples", "bytes"),
        *("lag_mean", "lag_max", "effective_lr", "test_accuracy", "train_accuracy", "test_loss", "train_loss"),
    ]
    assert len(all_figures(Metric("loss"))) == len(all_figures(Metric("accuracy"))) - 2


def test_a_run_that_diverged_has_no_final_metric_whatever_its_accuracy() -> None:
    diverged = replace(run_of(None), final_test={"accuracy": 0.98}, final_train={"accuracy": 0.98})
    assert TEST.of(diverged, None) is None
    assert of_metric(Metric("accuracy"), "train").of(diverged, None) is None
    assert TEST.of(run_of(0.98), None) == 0.98


def test_a_target_that_was_not_reached_has_no_time_and_none_is_not_zero() -> None:
    found = [BY_NAME[name].of(run_of(end, seconds=4.0), TARGET) for end in (0.75, 0.5) for name in REACHING]
    assert found == [4.0, 32, None, None]
    assert [BY_NAME[name].of(run_of(0.75), None) for name in REACHING] == [None, None]


def test_what_the_iterations_tell_is_a_figure_too() -> None:
    assert BY_NAME["wait_share"].of(run_of(0.5, measured={"wait_share": 0.25}), None) == 0.25
    assert BY_NAME["wait_share"].of(run_of(0.5), None) is None


@pytest.mark.parametrize(("before", "part"), [(0.5, 0.5), (0.75, 0.25)])
def test_times_to_a_target_are_as_unsure_as_the_last_evaluation_is_far(before: float, part: float) -> None:
    run = run_of(0.75, before=before)
    assert [BY_NAME[name].blur(run, TARGET) for name in REACHING] == pytest.approx([part / 12**0.5] * 2)
    assert TEST.blur(run, TARGET) == BY_NAME["seconds"].blur(run, TARGET) == 0.0
    assert BY_NAME["seconds_to_target"].blur(run_of(0.5), TARGET) == 0.0
