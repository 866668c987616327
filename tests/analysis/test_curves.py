from dataclasses import replace
from pathlib import Path

from psgd.analysis.curves import MOST_POINTS, Curve
from psgd.analysis.run_figures import RunFigures, read_run
from psgd.analysis.timeline import MOST_SLOTS
from psgd.runlog import FILE_NAME, Evaluation, Footer, Header, Iteration, Record, encode
from tests.records import EVALUATION, iteration

SETTINGS = {"slots": 2, "batch_size": 4, "seed": 3, "mode": "sync"}


def read_log(folder: Path, *records: Record, seconds: float = 4.0, **settings: object) -> RunFigures:
    folder.mkdir(exist_ok=True)
    header = Header(SETTINGS | settings, {}, "2026-01-01T00:00:00+00:00")
    lines = [header, *records, Footer({"seconds": seconds})]
    (folder / FILE_NAME).write_text("".join(encode(line) + "\n" for line in lines))
    run = read_run(folder)
    assert run is not None
    return run


def pair(step: int, time_s: float, losses: tuple[float | None, float | None] = (1.0, 3.0)) -> list[Iteration]:
    """A step of two slots; the second one ends a little later."""
    return [
        iteration(
            slot=slot, step=step, time_s=time_s + slot / 8, loss=loss, compute_s=0.25, transfer_s=0.125, wait_s=0.125
        )
        for slot, loss in enumerate(losses)
    ]


def evaluation(step: int, time_s: float, **metrics: float) -> Evaluation:
    return replace(EVALUATION, step=step, time_s=time_s, metrics=metrics)


def test_the_training_loss_is_the_mean_over_as_many_iterations_as_there_are_slots(tmp_path: Path) -> None:
    run = read_log(tmp_path, *pair(0, 1.0), *pair(1, 2.0, (2.0, None)))
    assert run.train_loss == Curve((8.0, 16.0), (1.125, 2.125), (2.0, 2.0))


def test_iterations_count_in_the_order_of_time_in_whichever_order_they_were_heard_of(tmp_path: Path) -> None:
    late, early = (
        read_log(tmp_path / name, *steps)
        for name, steps in (("a", [*pair(1, 2.0), *pair(0, 1.0)]), ("b", [*pair(0, 1.0), *pair(1, 2.0)]))
    )
    assert late == replace(early, folder=late.folder)


def test_the_curve_of_a_long_run_has_means_of_many(tmp_path: Path) -> None:
    steps = [record for step in range(400) for record in pair(step, float(step))]
    assert len(read_log(tmp_path, *steps).train_loss.values) == MOST_POINTS


def test_evaluations_stand_where_the_steps_before_them_had_ended_however_long_they_took(tmp_path: Path) -> None:
    tests = (evaluation(1, 1.5, test_accuracy=0.5), evaluation(2, 9.0, test_accuracy=0.75))
    for mode in ("sync", "async"):
        run = read_log(tmp_path / mode, *pair(0, 1.0), *pair(1, 2.0), *tests, mode=mode)
        assert run.test == {"accuracy": Curve((8.0, 16.0), (1.125, 2.125), (0.5, 0.75))}


def test_a_step_ends_without_those_that_it_refused(tmp_path: Path) -> None:
    first, late = pair(0, 1.0)
    run = read_log(
        tmp_path, first, replace(late, status="late", time_s=3.0), *pair(1, 2.0), evaluation(1, 9.0, test_loss=0.5)
    )
    assert run.test["loss"].seconds == (1.0,)


def test_local_steps_draw_a_mini_batch_each(tmp_path: Path) -> None:
    run = read_log(tmp_path, *pair(0, 1.0), evaluation(1, 2.0, test_loss=0.5), local_steps={"steps": 8})
    assert run.test["loss"].samples == (64.0,)


def test_without_a_batch_size_the_samples_are_those_of_the_iterations_until_then(tmp_path: Path) -> None:
    measured = evaluation(1, 1.5, test_loss=0.5)
    run = read_log(tmp_path, *pair(0, 1.0), *pair(1, 2.0), measured, own_loop=True, batch_size=None)
    assert run.test["loss"].samples == (8.0,)


def test_a_run_has_diverged_whose_losses_end_as_null(tmp_path: Path) -> None:
    run = read_log(tmp_path, *pair(0, 1.0), *pair(1, 2.0, (None, None)), evaluation(2, 3.0, test_loss=float("nan")))
    assert run.diverged
    assert run.train_loss.values == (2.0, None)
    assert not run.test["loss"].tells


def test_a_run_without_losses_has_not_diverged(tmp_path: Path) -> None:
    run = read_log(tmp_path, *pair(0, 1.0, (None, None)), *pair(1, 2.0, (None, None)))
    assert not run.diverged
    assert run.train_loss == Curve()


def test_lags_and_learning_rates_are_those_of_accepted_pushes(tmp_path: Path) -> None:
    late = iteration(slot=1, time_s=2.0, status="late", lag=5, lr=())
    run = read_log(
        tmp_path,
        iteration(time_s=1.0, lag=2, lr=(0.5, 9.0)),
        late,
        iteration(time_s=3.0, lag=2, lr=(0.25,)),
        iteration(time_s=3.5),
    )
    assert run.lags == {0: 1, 2: 2}
    assert run.lr.values == (0.5, 0.175)


def test_throughput_is_of_accepted_samples(tmp_path: Path) -> None:
    steps = [record for step in range(6) for record in pair(step, step + 0.5)]
    late = replace(steps[-1], status="late")
    run = read_log(tmp_path, *steps[:-1], late, seconds=6.0)
    assert run.throughput == Curve((24.0, 48.0), (3.0, 6.0), (8.0, 20 / 3))


def test_at_a_barrier_an_iteration_ends_with_the_wait(tmp_path: Path) -> None:
    run = read_log(tmp_path, *pair(0, 1.0))
    assert run.timeline is not None
    assert run.timeline.segments[0] == ((0.5, 0.75, "compute"), (0.75, 0.875, "transfer"), (0.875, 1.0, "wait"))
    assert (run.timeline.slots, run.timeline.start_s, run.timeline.end_s) == (2, 0.5, 1.125)


def test_on_arrival_the_wait_comes_first(tmp_path: Path) -> None:
    run = read_log(tmp_path, *pair(0, 1.0), mode="async")
    assert run.timeline is not None
    assert run.timeline.segments[0] == ((0.5, 0.625, "wait"), (0.625, 0.875, "compute"), (0.875, 1.0, "transfer"))


def test_an_iteration_does_not_lie_over_the_one_before_it(tmp_path: Path) -> None:
    run = read_log(tmp_path, *pair(0, 1.0), *pair(1, 1.25))
    assert run.timeline is not None
    assert run.timeline.segments[0][3:] == ((1.0, 1.125, "transfer"), (1.125, 1.25, "wait"))


def test_the_window_is_the_middle_by_iterations_and_does_not_hit_a_pause(tmp_path: Path) -> None:
    steps = [record for step in range(100) for record in pair(step, step + (1000.0 if step >= 30 else 0.0))]
    run = read_log(tmp_path, *steps)
    assert run.timeline is not None
    assert (run.timeline.start_s, run.timeline.end_s) == (1037.125, 1061.125)
    assert all(
        end > 1037.125 and start < 1061.125 for found in run.timeline.segments.values() for start, end, _ in found
    )


def test_of_a_thousand_slots_evenly_chosen_ones_are_shown(tmp_path: Path) -> None:
    run = read_log(tmp_path, *[iteration(slot=slot, time_s=1.0 + slot) for slot in range(1000)], slots=1000)
    assert run.timeline is not None
    shown = list(run.timeline.segments)
    assert (len(shown), shown[0], shown[1], shown[-1], run.timeline.slots) == (MOST_SLOTS, 0, 43, 999, 1000)


def test_a_log_without_iterations_has_no_timeline(tmp_path: Path) -> None:
    run = read_log(tmp_path, evaluation(1, 1.5, test_loss=0.5))
    assert run.timeline is None
    assert run.throughput == run.train_loss == Curve()
    assert run.test["loss"] == Curve((8.0,), (1.5,), (0.5,))
