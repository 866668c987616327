import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from psgd.config import OwnLoop
from psgd.coordinator.outcome import Outcome
from psgd.core.ids import Version
from psgd.core.local_steps import LocalSteps
from psgd.core.messages import Figures
from psgd.core.modes import Async, Sync
from psgd.observers import Recorder
from psgd.result import Result, compute_figures, lags, make_result, save_weights
from psgd.runlog import Record, Reported
from psgd.transport.flat import sha256
from tests.jobs import BATCH, MLP, SLOTS, make_job
from tests.records import EVALUATION, iteration

WEIGHTS = {name: tensor.detach() for name, tensor in MLP().state_dict().items()}
OUTCOME = Outcome(
    weights=WEIGHTS,
    figures=Figures(version=Version(3), steps=3, accepted=6, dropped=2, max_clock_gap=1, clocks=(3, 3), nonfinite=1),
    versions=(3,),
    seconds=2.0,
    stopped_early=None,
)


def record(*records: Record) -> Recorder:
    recorder = Recorder()
    for each in records:
        recorder(each)
    return recorder


def test_the_figures_count_what_the_lead_counted() -> None:
    job = make_job(mode=Async(2), workers=2, shards=3)
    figures = compute_figures(job, OUTCOME, record(EVALUATION), Path("runs/1"))
    assert {name: figures[name] for name in figures if name not in ("torch", "psgd", "train_loss", "lag")} == {
        "mode": "async",
        "staleness": 2,
        "gather": 1,
        "correction": None,
        "backups": 0,
        "workers": 2,
        "slots": SLOTS,
        "shards": 3,
        "steps": 3,
        "updates": 3,
        "pushes": 6,
        "samples": 6 * BATCH,
        "seconds": 2.0,
        "samples_per_s": 3.0 * BATCH,
        "pushes_per_s": 3.0,
        "test_loss": 0.25,
        "test_accuracy": 0.75,
        "weights_sha256": sha256(WEIGHTS),
        "dropped_samples": 2 * BATCH,
        "threads": 1,
        "idle_share": None,
        "bytes": 0,
        "max_clock_gap": 1,
        "dropped_pushes": 2,
        "nonfinite_pushes": 1,
        "arrays": {},
        "stopped_early": None,
        "out": "runs/1",
    }
    assert figures["torch"] == torch.__version__


def test_an_iteration_of_local_steps_has_the_samples_of_all_of_them() -> None:
    figures = compute_figures(make_job(local_steps=LocalSteps(8)), OUTCOME, record(), None)
    assert (figures["samples"], figures["dropped_samples"]) == (6 * 8 * BATCH, 2 * 8 * BATCH)
    assert figures["samples_per_s"] == 3.0 * 8 * BATCH


def test_figures_are_plain_json() -> None:
    figures = compute_figures(make_job(), OUTCOME, record(iteration(), EVALUATION), Path("runs/1"))
    assert json.loads(json.dumps(figures)) == figures


def test_without_an_evaluation_there_is_no_test_metric() -> None:
    figures = compute_figures(make_job(mode=Sync(1)), OUTCOME, record(), None)
    assert (figures["backups"], figures["staleness"]) == (1, None)
    assert (figures["test_loss"], figures["test_accuracy"], figures["train_loss"], figures["out"]) == (None,) * 4


def test_the_idle_share_is_what_the_workers_did_not_compute_until_the_last_iteration() -> None:
    pushes = [iteration(time_s=4.0, compute_s=1.5, bytes=100), iteration(time_s=2.0, compute_s=0.5, bytes=20)]
    figures = compute_figures(make_job(workers=2), OUTCOME, record(*pushes), None)
    assert (figures["idle_share"], figures["bytes"]) == (1 - 2.0 / (2 * 4.0), 120)


def test_slots_that_share_a_worker_do_not_make_less_than_nothing_idle() -> None:
    figures = compute_figures(make_job(workers=1), OUTCOME, record(iteration(time_s=1.0, compute_s=1.25)), None)
    assert figures["idle_share"] == 0.0


def test_in_rounds_the_train_loss_is_the_last_steps() -> None:
    recorder = record(
        iteration(step=0, slot=0, loss=9.0),
        iteration(step=1, slot=1, loss=1.0),
        iteration(step=1, slot=0, loss=2.0),
        iteration(step=0, slot=1, loss=9.0),
    )
    assert compute_figures(make_job(mode=Sync()), OUTCOME, recorder, None)["train_loss"] == 1.5


def test_on_arrival_the_train_loss_is_the_last_pushes() -> None:
    pushes = [iteration(step=step, time_s=float(step), loss=float(step)) for step in (5, 3, 4, 0, 1, 2)]
    figures = compute_figures(make_job(mode=Async()), OUTCOME, record(*pushes), None)
    assert figures["train_loss"] == (2 + 3 + 4 + 5) / SLOTS


def test_an_own_loops_samples_are_those_of_its_batches() -> None:
    job = make_job(workers=SLOTS)
    own = type(job)(
        **{**{name: getattr(job, name) for name in job.__slots__}, "own_loop": OwnLoop(print), "data": None}
    )
    recorder = record(iteration(samples=3, loss=None), iteration(samples=2), iteration(samples=7, status="late"))
    assert compute_figures(own, OUTCOME, recorder, None)["samples"] == 5


def test_samples_that_were_gathered_and_never_applied_do_not_count() -> None:
    job = make_job(mode=Async(gather=3), workers=SLOTS)
    own = type(job)(
        **{**{name: getattr(job, name) for name in job.__slots__}, "own_loop": OwnLoop(print), "data": None}
    )
    arrived = [iteration(samples=number, version=1, time_s=float(number)) for number in range(7, 0, -1)]
    first = [iteration(samples=100, version=0)]
    assert compute_figures(own, OUTCOME, record(*arrived, *first), None)["samples"] == 100 + 1 + 2 + 3 + 4 + 5


def test_the_lag_is_that_of_accepted_pushes() -> None:
    pushes = [iteration(lag=lag) for lag in (2, 0, 2, 0, 0, 1)] + [iteration(lag=9, status="late")]
    assert lags(pushes) == {0: 3, 1: 1, 2: 2}
    figures = compute_figures(make_job(), OUTCOME, record(*pushes), None)
    assert figures["lag"] == {"mean": 5 / 6, "max": 2, "histogram": {"0": 3, "1": 1, "2": 2}}
    assert compute_figures(make_job(), OUTCOME, record(), None)["lag"] == {"mean": 0.0, "max": 0, "histogram": {}}


def result_of(*records: Record) -> Result:
    job, recorder = make_job(), record(*records)
    return make_result(job, OUTCOME, recorder, compute_figures(job, OUTCOME, recorder, None), None, None)


def test_the_history_has_a_row_an_iteration() -> None:
    history = result_of(iteration(slot=0), iteration(slot=1, loss=0.25), EVALUATION).history
    assert list(history["slot"]) == [0, 1]
    assert list(history["loss"]) == [0.5, 0.25]
    assert list(history.columns) == list(iteration().__slots__)


def test_metrics_are_columns_of_evaluations_and_reports() -> None:
    result = result_of(EVALUATION, Reported(1.0, 0, {"f1": 0.5}), Reported(2.0, 1, {"f1": 0.75, "auc": 0.5}))
    assert result.evaluations.to_dict("records")[0] == {
        "time_s": 2.0,
        "boundary": 1,
        "step": 3,
        "versions": (3, 3),
        "seconds": 0.5,
        "decision": "go on: nothing to stop for",
        "effective_step": 6,
        "lr_factor": 1.0,
        "arrays": {},
        "test_loss": 0.25,
        "test_accuracy": 0.75,
    }
    assert list(result.reported["f1"]) == [0.5, 0.75]
    assert list(result.reported["slot"]) == [0, 1]


def test_a_run_without_records_has_empty_tables() -> None:
    result = result_of()
    assert (len(result.history), len(result.evaluations), len(result.reported)) == (0, 0, 0)
    assert "loss" in result.history.columns
    assert (result.metrics, result.staleness_histogram) == ({}, {})


def test_the_metrics_are_the_final_ones() -> None:
    last = Reported(2.0, 0, {"f1": 0.75})
    result = result_of(iteration(), EVALUATION, Reported(1.0, 0, {"f1": 0.5}), last, Reported(3.0, 1, {"f1": 0.0}))
    assert result.metrics == {"f1": 0.75, "train_loss": 0.5, "test_loss": 0.25, "test_accuracy": 0.75}


def test_the_model_comes_with_the_final_weights_and_nothing_is_drawn() -> None:
    before = torch.get_rng_state()
    model = result_of().load_model()
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert sha256(model.state_dict()) == sha256(WEIGHTS)


def test_weights_are_written_whole(tmp_path: Path) -> None:
    path = save_weights(WEIGHTS, tmp_path / "run" / "best.safetensors", {"step": "7"})
    assert path == tmp_path / "run" / "best.safetensors"
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"step": "7"}
    assert sha256(dict(sorted(load_file(path).items()))) == sha256(dict(sorted(WEIGHTS.items())))
    assert list((tmp_path / "run").iterdir()) == [path]
