import math
from pathlib import Path
from typing import Any

import pytest

from psgd.analysis.iterations import POINTS
from psgd.analysis.run_figures import TRAIN_METRICS_NAME, Reached, read_run
from psgd.errors import DataError
from psgd.runlog import FILE_NAME, Record
from tests.analysis.runs import evaluation, losses, write_run
from tests.records import iteration


def test_curves_are_against_the_samples_that_all_slots_have_drawn(tmp_path: Path) -> None:
    records = [*losses(3.0, 1.0), *losses(1.0, 0.0, slot=1), evaluation(1, accuracy=0.5), evaluation(2, accuracy=0.75)]
    run = read_run(write_run(tmp_path / "run", records))
    assert run is not None
    assert run.test == {"accuracy": ((8, 0.5), (16, 0.75)), "loss": ((8, 0.25), (16, 0.25))}
    assert run.final_test == {"accuracy": 0.75, "loss": 0.25}
    assert run.train_loss == ((8, 2.0), (16, 0.5))
    assert not run.diverged


def test_local_steps_draw_several_batches_a_step(tmp_path: Path) -> None:
    local = {"local_steps": {"steps": 8, "lr": 0.7, "momentum": 0.9}}
    run = read_run(write_run(tmp_path / "run", [*losses(1.0, 0.5), evaluation(2)], settings={"steps": 2} | local))
    assert run is not None
    assert run.test["loss"] == ((2 * 8 * 8, 0.25),)
    assert run.train_loss == ((8 * 8, 1.0), (2 * 8 * 8, 0.5))


def test_a_long_curve_of_the_loss_is_made_of_means(tmp_path: Path) -> None:
    records = losses(*[float(step) for step in range(3 * POINTS)])
    run = read_run(write_run(tmp_path / "run", records, settings={"steps": 3 * POINTS}))
    assert run is not None
    assert len(run.train_loss) == POINTS
    assert run.train_loss[0] == (3 * 8, 1.0)
    assert run.train_loss[-1] == (3 * POINTS * 8, 3 * POINTS - 2.0)


def test_curves_of_one_budget_have_the_same_points_whoever_ran_ahead(tmp_path: Path) -> None:
    even = [*losses(4.0, 3.0), *losses(2.0, 1.0, slot=1)]
    uneven = [*losses(4.0, 3.0, 2.0), *losses(1.0, slot=1)]
    curves = []
    for name, records in (("even", even), ("uneven", uneven)):
        run = read_run(write_run(tmp_path / name, records, settings={"steps": 2}))
        assert run is not None
        curves.append(run.train_loss)
    assert curves == [((8, 3.0), (16, 2.0)), ((8, 2.5), (16, 2.5))]


def test_losses_that_are_no_number_leave_a_gap(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", losses(1.0, math.nan, 3.0)))
    assert run is not None
    assert run.train_loss == ((8, 1.0), (24, 3.0))


@pytest.mark.parametrize("spoilt", [{"loss": math.nan}, {"loss": math.inf}])
def test_a_run_whose_test_loss_ends_as_no_number_has_diverged(tmp_path: Path, spoilt: dict[str, float]) -> None:
    run = read_run(write_run(tmp_path / "run", [evaluation(1), evaluation(2, accuracy=0.1, **spoilt)]))
    assert run is not None
    assert run.diverged
    assert run.final_test == {"accuracy": 0.1}


def test_a_run_whose_training_loss_ends_as_no_number_has_diverged(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", [evaluation(1)], train_loss=None))
    assert run is not None
    assert run.diverged


def test_a_run_without_evaluations_has_not_diverged_for_that(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert run is not None
    assert not run.diverged


def test_metrics_on_the_training_set_are_read_from_beside_the_log(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", train={"accuracy": 0.5, "loss": None}))
    assert run is not None
    assert run.final_train == {"accuracy": 0.5}


def test_what_is_not_complete_is_no_run(tmp_path: Path) -> None:
    assert read_run(tmp_path / "nowhere") is None
    assert read_run(write_run(tmp_path / "broken off", losses(1.0), footer=False)) is None
    killed = write_run(tmp_path / "killed")
    (killed / FILE_NAME).write_text((killed / FILE_NAME).read_text().removesuffix("\n"))
    assert read_run(killed) is None


def test_damaged_files_are_named(tmp_path: Path) -> None:
    damaged = write_run(tmp_path / "run", train={})
    (damaged / TRAIN_METRICS_NAME).write_text("{")
    with pytest.raises(DataError, match=f"{TRAIN_METRICS_NAME}: expected metrics as JSON, got .*; remove it"):
        read_run(damaged)


def timed(*times: float, slot: int = 0, **changes: Any) -> list[Record]:
    """A slot's iterations, one a step, that finished at these times."""
    return [iteration(slot=slot, step=step, time_s=time, **changes) for step, time in enumerate(times)]


def test_a_target_is_reached_when_the_steps_before_its_evaluation_had_finished(tmp_path: Path) -> None:
    late = [
        evaluation(1, accuracy=0.5),
        evaluation(2, accuracy=0.75),
        evaluation(3, accuracy=0.7),
    ]  # at 2.0 s in the log
    run = read_run(write_run(tmp_path / "run", [*timed(1.0, 3.0, 4.0), *timed(1.5, 3.5, 5.0, slot=1), *late]))
    assert run is not None
    assert run.test_by_time["accuracy"] == ((1.5, 0.5), (3.5, 0.75), (5.0, 0.7))
    assert run.reach("accuracy", 0.75, "max") == Reached(16, 3.5, samples_before=8, seconds_before=1.5)
    assert run.reach("accuracy", 0.5, "max") == Reached(8, 1.5)
    assert run.reach("accuracy", 0.76, "max") is None
    assert run.reach("loss", 0.25, "min") == Reached(8, 1.5)
    assert run.reach("f1", 0.5, "max") is None


def test_in_rounds_a_slot_that_is_never_heard_does_not_delay_the_target(tmp_path: Path) -> None:
    heard, late = timed(1.0, 2.0), timed(9.0, slot=1, status="late")
    settings = {"mode": "sync", "backups": 1}
    run = read_run(write_run(tmp_path / "run", [*heard, *late, evaluation(2, accuracy=0.5)], settings=settings))
    assert run is not None
    assert run.reach("accuracy", 0.5, "max") == Reached(16, 2.0)
    assert run.heard == ((2, 2), (1, 0))


def test_a_log_without_iterations_knows_samples_but_no_seconds(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", [evaluation(2, accuracy=0.5)]))
    assert run is not None
    assert run.reach("accuracy", 0.5, "max") == Reached(16, None)


def test_what_the_last_line_says_wins_over_what_iterations_tell(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", timed(1.0, 2.0), idle_share=0.125))
    assert run is not None
    assert run.figure("idle_share") == 0.125
    assert run.figure("wait_share") == pytest.approx(1 / 3)
    assert run.figure("nonsense") is None


def test_local_steps_draw_several_mini_batches_a_step(tmp_path: Path) -> None:
    settings = {"local_steps": {"steps": 3, "lr": 0.7, "momentum": 0.9}}
    run = read_run(write_run(tmp_path / "run", [*timed(1.0), evaluation(1, accuracy=0.5)], settings=settings))
    assert run is not None
    assert run.test["accuracy"] == ((24, 0.5),)


def test_a_run_of_times_alone_has_not_diverged(tmp_path: Path) -> None:
    settings = {"gradients": "none", "world": {"compute": "exp:1"}}
    run = read_run(write_run(tmp_path / "run", timed(1.0, loss=None), settings=settings, train_loss=None))
    assert run is not None
    assert run.simulated
    assert not run.diverged
