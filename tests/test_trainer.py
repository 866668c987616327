import errno
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import TensorDataset

import psgd
from psgd.config import Job, OwnLoop, Placement, Straggler
from psgd.coordinator.outcome import Outcome
from psgd.durations import constant
from psgd.errors import ConfigurationError, ResourceError
from psgd.observers import JsonLinesWriter
from psgd.runlog import Evaluation, Footer, Header, Iteration, Record, read
from psgd.trainer import Trainer
from psgd.training.callbacks import Callback
from psgd.training.metrics import evaluate
from psgd.training.policies import EarlyStopping, StopAfter, StopAtTarget
from psgd.training.warm_start import apply_weights
from psgd.transport.flat import sha256
from psgd.worker.outgoing import Outgoing
from tests.jobs import CLASSES, CNN, MLP, SGD, SHAPE
from tests.records import ITERATION


@cache
def images() -> TensorDataset:
    """160 samples."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(160, *SHAPE, generator=generator)
    return TensorDataset(inputs, torch.randint(CLASSES, (160,), generator=generator))


GIVEN: dict[str, Any] = {
    "model": MLP,
    "optimizer": SGD,
    "train_data": images(),
    "val_data": images(),
    "workers": 2,
    "shards": 2,
    "batch_size": 20,  # 160 images: 4 steps of 2 slots an epoch
    "epochs": 2,
    "plane": "memory",
    "out": None,
    "progress": False,
}
Launched = tuple[Job, Placement]


def make(**changes: Any) -> Trainer:
    return Trainer(**{**GIVEN, **changes})


def own_loop() -> None:
    pass


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        make(**changes).plan()
    return str(caught.value)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Launched]:
    """What is launched on Ray, with a cluster that refuses everything."""
    launched: list[Launched] = []

    def refuse(job: Job, placement: Placement, *_: Any) -> Outcome:
        launched.append((job, placement))
        raise ResourceError("the cluster has 2 CPUs, the run needs 4")

    monkeypatch.setattr("psgd.cluster.run", refuse)
    return launched


# ------------------------------------------------------------------ fit


@pytest.mark.parametrize("mode", [psgd.Sync(), psgd.Async(staleness=1)])
def test_fit_trains_and_says_how_it_went(mode: Any) -> None:
    result = make(mode=mode, epochs=5).fit()
    assert result.figures["steps"] == 20
    assert result.figures["pushes"] == len(result.history) == 40
    assert result.figures["samples"] == 800
    assert result.metrics["train_loss"] < result.history["loss"][0]
    assert list(result.evaluations["step"]) == [4, 8, 12, 16, 20]
    assert result.metrics["test_loss"] == result.figures["test_loss"] == list(result.evaluations["test_loss"])[-1]
    assert sum(result.staleness_histogram.values()) == 40
    assert (result.path, result.checkpoint) == (None, None)
    assert sha256(result.load_model().state_dict()) == result.figures["weights_sha256"]


@pytest.mark.parametrize("correction", [psgd.LagRate(), psgd.DelayCompensation(), psgd.GapAware()], ids=str)
def test_fit_corrects_late_gradients_and_gathers_them(correction: Any) -> None:
    result = make(mode=psgd.Async(gather=2), correction=correction, epochs=5).fit()
    assert (result.figures["gather"], result.figures["correction"]) == (2, str(correction))
    assert (result.figures["updates"], result.figures["pushes"], result.figures["dropped_pushes"]) == (20, 40, 0)
    assert result.metrics["train_loss"] < result.history["loss"][0]


def test_the_run_is_written_below_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run"
    result = make(out=out, labels={"data": "images"}).fit()
    assert sorted(path.name for path in out.iterdir()) == ["run.jsonl", "tensorboard", "weights.safetensors"]
    assert (result.path, result.checkpoint) == (out, out / "weights.safetensors")
    header, *records, footer = read(out)
    assert isinstance(header, Header)
    assert header.settings["data"] == "images"
    assert header.settings["optimizer_args"]["momentum"] == 0.9
    assert [type(record) for record in records].count(Iteration) == 16
    assert [type(record) for record in records].count(Evaluation) == 2
    assert isinstance(footer, Footer)
    assert footer.figures == json.loads(json.dumps(result.figures))
    stored = load_file(out / "weights.safetensors")
    assert sha256({name: stored[name] for name in result.weights}) == result.figures["weights_sha256"]


def test_the_history_persists_even_if_the_weights_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("psgd.running.save_weights", fail)
    result = make(out=tmp_path).fit()
    assert result.checkpoint is None
    assert result.weights.keys() == MLP().state_dict().keys()
    assert isinstance(list(read(tmp_path))[-1], Footer)
    assert "the weights are not saved: [Errno 28] No space left on device" in caplog.text


def test_a_full_disk_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JsonLinesWriter, "__call__", fail)
    result = make(out=tmp_path).fit()
    assert result.figures["steps"] == 8
    assert "JsonLinesWriter gave up: [Errno 28] No space left on device; training goes on unwritten" in caplog.text


def test_nothing_is_written_before_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(out="auto").plan()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_found_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = make(out="auto").fit().path
    assert path is not None
    assert path.parent == Path("runs")
    assert path.name.endswith("-sync")
    assert (tmp_path / path / "run.jsonl").is_file()


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_ones_alone() -> None:
    before = torch.get_rng_state()
    plans = [make(seed=seed).plan() for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    first, second, other = (sha256(plan.initial) for plan in plans)
    assert first == second != other
    results = [make(seed=1, shards=shards, workers=workers, slots=2).fit() for shards, workers in ((1, 2), (3, 1))]
    assert len({result.figures["weights_sha256"] for result in results}) == 1


def test_training_goes_on_from_a_warm_start(tmp_path: Path) -> None:
    first = make(out=tmp_path).fit()
    for source in (first.weights, first.checkpoint):
        assert sha256(make(warm_start=source).plan().initial) == first.figures["weights_sha256"]


# ------------------------------------------------------------------ callbacks


class Diary(Callback):
    def __init__(self) -> None:
        self.entries: list[str] = []

    def on_start(self) -> None:
        self.entries.append("start")

    def on_step(self, iteration: Iteration) -> None:
        self.entries.append("step")

    def on_evaluation(self, evaluation: Evaluation) -> None:
        self.entries.append(f"evaluation {evaluation.step}")

    def on_end(self, result: object) -> None:
        assert isinstance(result, psgd.Result)
        self.entries.append("end")


def test_a_callback_is_told_everything_in_order() -> None:
    diary = Diary()
    make(callbacks=[diary], epochs=1).fit()
    assert [entry for entry in diary.entries if entry != "step"] == ["start", "evaluation 4", "end"]
    assert diary.entries.count("step") == 8


def test_an_error_in_a_callback_ends_the_run_and_closes_the_log(tmp_path: Path) -> None:
    class Broken(Callback):
        def on_evaluation(self, evaluation: Evaluation) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make(callbacks=[Broken()], out=tmp_path).fit()
    assert not isinstance(list(read(tmp_path))[-1], Footer)
    assert not (tmp_path / "weights.safetensors").exists()


def test_early_stopping_ends_the_run_at_the_following_evaluation() -> None:
    stopping = EarlyStopping(monitor="test_accuracy", mode="max", min_delta=1.0, patience=1)
    result = make(callbacks=[stopping], epochs=9).fit()
    # The first accuracy is the best so far; the second is no better by 1.0, which takes effect at the third.
    assert result.figures["steps"] == 12
    assert result.figures["stopped_early"].startswith("test_accuracy has not improved")


def test_a_target_ends_the_run_at_the_evaluation_behind_the_one_that_reached_it() -> None:
    result = make(callbacks=[StopAtTarget("test_loss", 1e9)], epochs=9).fit()
    assert result.figures["steps"] == 2 * 4
    assert result.figures["stopped_early"].startswith("test_loss has reached 1e+09 with ")


def test_a_time_ends_the_run_at_the_evaluation_behind_the_one_that_noticed() -> None:
    result = make(callbacks=[StopAfter(1e-9)], epochs=9).fit()
    assert result.figures["steps"] == 2 * 4
    assert re.fullmatch(r"\d+\.\d of 1e-09 s have passed: stopped at step 8", result.figures["stopped_early"])


@pytest.mark.parametrize("wire", ["float32", "bfloat16", "onebit"])
def test_gradients_leave_during_backward_unless_told_otherwise_and_the_bits_are_the_same(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[str] = []
    leave = Outgoing.leave

    def note(self: Outgoing, name: str) -> None:
        left.append(name)
        leave(self, name)

    monkeypatch.setattr(Outgoing, "leave", note)
    begun = make(wire=wire).fit().figures["weights_sha256"]
    assert len(left) == 8 * 2 * len(MLP().state_dict())  # steps, slots, parameters
    left.clear()
    assert make(wire=wire, overlap=False).fit().figures["weights_sha256"] == begun
    assert left == []


# ------------------------------------------------------------------ the plan


def test_the_length_is_given_in_epochs_or_steps() -> None:
    rules = make(epochs=3).plan().job.rules
    assert (rules.steps, rules.evaluate_every) == (12, 4)
    rules = make(epochs=None, steps=7).plan().job.rules
    assert (rules.steps, rules.evaluate_every) == (7, 4)
    assert make(evaluate_every=5).plan().job.rules.evaluate_every == 5
    assert make(val_data=None).plan().job.rules.evaluate_every is None


def test_slots_follow_the_workers_unless_they_are_given() -> None:
    assert make(workers=3, batch_size=10).plan().job.rules.slots == 3
    assert make(workers=1, slots=4).plan().job.rules.slots == 4
    assert make(workers=None).plan().job.workers == 1


def test_steps_are_counted_without_starting_anything() -> None:
    assert make(epochs=3).count_steps() == (3 * 4, 4)
    assert make(epochs=None, steps=7).count_steps() == (7, 4)
    own = make(train_data=None, epochs=None, train_loop=own_loop, plane="rpc")
    assert own.count_steps() is None


def test_data_may_come_from_functions() -> None:
    job = make(train_data=images, val_data=images).plan().job
    assert job.data is images
    assert job.evaluation_data is images


def test_everything_reaches_the_job() -> None:
    def schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.StepLR(optimizer, 3)

    stragglers = [Straggler(1, constant(0.5))]
    plan = make(
        mode=psgd.Async(3),
        loss=nn.CrossEntropyLoss(label_smoothing=0.1),
        lr_scheduler=schedule,
        accumulate=2,
        precision="bf16",
        threads=2,
        overlap=False,
        seed=5,
        layout="whole",
        stragglers=stragglers,
        placement=Placement(gpus_per_worker=1),
        callbacks=[EarlyStopping(patience=2)],
    ).plan()
    job, training = plan.job, plan.job.training
    assert job.rules.mode == psgd.Async(3)
    assert (job.schedule, job.whole, job.own_loop) == (schedule, True, None)
    assert (training.accumulate, training.precision, training.threads, training.seed) == (2, "bf16", 2, 5)
    assert (training.use_gpu, training.stragglers) == (True, tuple(stragglers))
    assert (training.overlap, plan.settings["overlap"]) == (False, False)
    assert plan.policies.stopping == EarlyStopping(patience=2)
    assert plan.placement == Placement(gpus_per_worker=1)
    json.dumps(plan.settings)


def test_a_loop_of_ones_own_runs_once_a_worker() -> None:
    plan = make(train_data=None, epochs=None, train_loop=own_loop, train_loop_config={"lr": 1}, plane="rpc").plan()
    assert plan.job.own_loop == OwnLoop(own_loop, {"lr": 1})
    assert (plan.job.data, plan.job.rules.steps, plan.job.rules.evaluate_every) == (None, None, None)
    assert plan.job.rules.slots == plan.job.workers == 2


def test_ray_trains_configs_are_taken_over(tmp_path: Path) -> None:
    scaling = SimpleNamespace(num_workers=2, resources_per_worker={"CPU": 0.5}, placement_strategy="SPREAD")
    failures = SimpleNamespace(max_failures=7)
    run = SimpleNamespace(name="fruits", storage_path=str(tmp_path), failure_config=failures)
    plan = make(workers=None, scaling_config=scaling, run_config=run, out="auto").plan()
    assert plan.job.workers == 2
    assert plan.placement == Placement(cpus_per_worker=0.5, strategy="SPREAD", max_failures=7)
    assert plan.out == tmp_path / "fruits"


def test_on_a_cluster_that_has_too_little_nothing_is_written(tmp_path: Path, launches: list[Launched]) -> None:
    with pytest.raises(ResourceError):
        make(plane="auto", out=tmp_path / "run", placement=Placement(cpus_per_worker=2)).fit()
    assert list(tmp_path.iterdir()) == []
    (launched,) = launches
    assert launched[0].workers == 2
    assert launched[1].cpus_per_worker == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupted_run_keeps_what_was_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupted(job: Job, initial: Any, policies: Any, observe: Callable[[Record], None], keep: Any) -> Outcome:
        observe(ITERATION)
        raise error

    monkeypatch.setattr("psgd.inprocess.run", interrupted)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        make(out=tmp_path).fit()
    assert list(read(tmp_path))[1:] == [ITERATION]


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    make(progress=True, epochs=1).fit()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("step 4: test_loss ")


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 0}, "workers must be >= 1, got 0"),
        ({"slots": 0}, "slots must be >= 1, got 0"),
        ({"workers": 3, "slots": 2}, "workers must be <= slots (2), got 3"),
        ({"shards": 0}, "shards must be >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        (
            {"batch_size": 81},
            "slots * batch_size must be <= the 160 samples of the data set, got 2 * 81 = 162; lower one of them",
        ),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"epochs": None, "steps": 0}, "steps must be >= 1, got 0"),
        ({"epochs": None}, "either epochs or steps must be given, got epochs=None and steps=None"),
        ({"steps": 3}, "either epochs or steps must be given, got epochs=2 and steps=3"),
        ({"evaluate_every": 0}, "evaluate_every must be >= 1, got 0"),
        ({"evaluate_every": 2, "val_data": None}, "evaluate_every needs val_data, got 2 and no data"),
        ({"mode": psgd.Sync(2)}, "backups must be < slots, got 2 of 2 slots"),
        (
            {"mode": psgd.Async(), "correction": "gap"},
            "correction must be psgd.LagRate(), psgd.DelayCompensation(...) or psgd.GapAware(...), got 'gap'",
        ),
        (
            {"correction": psgd.LagRate()},
            "correction must be left out with mode sync, where nothing is stale, got lag-lr; try async",
        ),
        ({"mode": psgd.Async(gather=3)}, "gather must be <= slots, got 3 of 2 slots"),
        ({"mode": "sync"}, "mode must be psgd.Sync(...) or psgd.Async(...), got 'sync'"),
        ({"plane": "pigeon"}, "plane must be one of auto, shm, rpc, memory, got 'pigeon'"),
        ({"layout": "cut"}, "layout must be auto, sliced or whole, got 'cut'"),
        ({"precision": "fp16"}, "precision must be fp32 or bf16, got fp16"),
        ({"threads": 0}, "threads must be >= 1, got 0"),
        ({"accumulate": 21}, "accumulate must be <= batch_size (20), got 21"),
        ({"seed": -1}, "seed must be in 0 … 2**63 - 1, got -1"),
        ({"stragglers": [Straggler(2)]}, "straggler slot must be < slots (2), got 2"),
        ({"model": CNN()}, "model must be a function that makes it, got Sequential"),
        ({"model": nn.ReLU}, "model: ReLU must have at least one parameter to train, got none"),
        ({"optimizer": "sgd"}, "optimizer must be a function that makes it, got str"),
        ({"loss": nn.MSELoss(reduction="sum")}, "loss must have reduction='mean', got 'sum'"),
        ({"train_data": None}, "train_data must be given, unless train_loop is; got neither"),
        ({"train_loop_config": {}}, "train_loop_config must be left out without a train_loop"),
        ({"train_loop": own_loop}, "train_data must be left out with a train_loop, which does that itself"),
        (
            {"train_loop": own_loop, "train_data": None},
            "epochs must be left out with a train_loop, which does that itself",
        ),
        (
            {"train_loop": own_loop, "train_data": None, "epochs": None, "overlap": False},
            "overlap must be left out with a train_loop, which does that itself",
        ),
        (
            {"train_loop": own_loop, "train_data": None, "epochs": None, "local_steps": psgd.LocalSteps(8)},
            "local_steps must be left out with a train_loop, which does that itself",
        ),
        ({"local_steps": 8}, "local_steps must be psgd.LocalSteps(steps=...), got 8"),
        (
            {"local_steps": psgd.LocalSteps(9)},
            "local steps must be <= the 8 batches that a slot draws in all epochs, got 9; lower them or batch_size, "
            "or train for more epochs",
        ),
        (
            {
                "local_steps": psgd.LocalSteps(3),
                "callbacks": [psgd.LearningRateScheduler(lambda epoch, lr: lr / (epoch + 1))],
            },
            "callbacks: LearningRateScheduler needs local steps that divide 4, the batches that a slot draws in an "
            "epoch, got 3; give an lr_scheduler instead",
        ),
        (
            {"train_loop": own_loop, "train_data": None, "epochs": None, "slots": 4},
            "an own loop runs one slot a worker: slots must be 2, got 4",
        ),
        (
            {"callbacks": [EarlyStopping(), EarlyStopping()]},
            "callbacks must hold at most one EarlyStopping, got 2",
        ),
        ({"callbacks": [EarlyStopping()], "val_data": None}, "callbacks: EarlyStopping needs val_data, got none"),
        ({"callbacks": [StopAfter(1)], "val_data": None}, "callbacks: StopAfter needs val_data, got none"),
        (
            {"callbacks": [StopAtTarget("kappa", 1)]},
            "monitor must be one of test_accuracy, test_loss, got 'kappa'",
        ),
        ({"warm_start": {}}, "weights must fit the model Sequential, got missing: 1.weight, 1.bias, 3.weight, 3.bias"),
        (
            {"scaling_config": SimpleNamespace(num_workers=2)},
            "workers and placement must be left out beside scaling_config",
        ),
        (
            {"run_config": SimpleNamespace(name="a", storage_path="/b", failure_config=None)},
            "out must be left out beside run_config, got None",
        ),
    ],
)
def test_what_can_not_be_run_is_refused(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes) == message


def test_values_are_refused_when_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "plan", None)
    with pytest.raises(ConfigurationError, match=r"^shards must be >= 1, got 0$"):
        make(shards=0)


def test_a_folder_with_a_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text("other\n")
    with pytest.raises(ConfigurationError, match=r"^out must be without a run, got "):
        make(out=tmp_path).fit()
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]
    assert (tmp_path / "run.jsonl").read_text() == "other\n"


def test_every_public_name_is_there() -> None:
    for name in psgd.__all__:
        assert getattr(psgd, name).__name__ == name
    with pytest.raises(AttributeError, match=r"^module 'psgd' has no attribute 'Nonsense'$"):
        psgd.Nonsense  # noqa: B018 (it is the access that raises)


def test_a_trainer_can_be_changed_into_another() -> None:
    assert replace(make(), seed=3).plan().job.training.seed == 3


# ------------------------------------------------------------------ shards on a GPU


def test_shards_are_on_the_cpu_unless_told_otherwise() -> None:
    plan = make().plan()
    assert (plan.job.shard_device, plan.placement.gpus_per_shard) == ("cpu", 0.0)
    assert plan.settings["shard_device"] == "cpu"


@pytest.mark.parametrize(("given", "reserved"), [(0.0, 0.25), (0.5, 0.5), (1.0, 1.0)])
def test_a_shard_on_a_gpu_reserves_a_share_of_it(given: float, reserved: float) -> None:
    plan = make(shard_device="cuda", placement=Placement(gpus_per_shard=given)).plan()
    assert (plan.job.shard_device, plan.placement.gpus_per_shard) == ("cuda", reserved)


def test_a_share_that_no_shard_would_use_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^gpus_per_shard must be 0 with shard_device cpu, got 0\.5; "):
        make(placement=Placement(gpus_per_shard=0.5))


def test_shards_are_on_a_device_that_psgd_knows() -> None:
    with pytest.raises(ConfigurationError, match=r"^shard_device must be one of cpu, cuda, got 'tpu'$"):
        make(shard_device="tpu")


@pytest.mark.parametrize("plane", ["memory", "auto"])
def test_without_a_gpu_shards_on_one_are_refused_before_anything_starts(
    plane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    remedy = "or use shard_device cpu$" if plane == "memory" else "this machine .* has 0: .* shard_device cpu$"
    with pytest.raises(ResourceError, match=remedy):
        make(shard_device="cuda", plane=plane).fit()


# ------------------------------------------------------------------ callbacks that decide

MODES = [psgd.Sync(), psgd.Async(staleness=1), psgd.Async()]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_the_best_weights_are_those_that_were_measured(mode: Any, tmp_path: Path) -> None:
    keeping = psgd.ModelCheckpoint("test_accuracy", mode="max")
    result = make(mode=mode, callbacks=[keeping], epochs=6, evaluate_every=3, out=tmp_path, shards=3).fit()
    assert result.best_checkpoint == tmp_path / "best.safetensors"
    best = result.evaluations.loc[result.evaluations["test_accuracy"].idxmax()]
    for name, expected in (("best", best), ("last", result.evaluations.iloc[-1])):
        path = tmp_path / f"{name}.safetensors"
        with safe_open(path, "pt") as file:
            header = file.metadata()
        assert (int(header["step"]), float(header["test_loss"])) == (expected["step"], expected["test_loss"])
        model = MLP()
        apply_weights(model, load_file(path))
        measured = evaluate(model, images(), nn.CrossEntropyLoss(), 512, torch.device("cpu"))
        assert measured.scalars == {"loss": expected["test_loss"], "accuracy": expected["test_accuracy"]}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_the_learning_rate_falls_one_evaluation_after_a_plateau(mode: Any) -> None:
    plateau = psgd.ReduceLROnPlateau("test_loss", patience=0, factor=0.5, threshold=0.9, min_lr=0.0125)
    monitor = psgd.LearningRateMonitor()
    result = make(mode=mode, callbacks=[plateau, monitor], epochs=5, evaluate_every=2).fit()
    assert list(result.evaluations["lr_factor"]) == [1.0, 0.5, 0.25, 0.125, *[0.125] * 6]
    # Evaluation k is at step 2k, and what it decides takes effect at step 2k + 2.
    rates = {step: (0.1 * max(0.125, 0.5 ** max(0, step // 2 - 2)),) for step in range(20)}
    if isinstance(mode, psgd.Sync):
        assert monitor.rates == rates
    else:  # a slot's own clock may differ from the samples drawn by all
        assert set(monitor.rates.values()) == set(rates.values())


def test_a_schedule_and_a_plateau_multiply() -> None:
    result = make(
        callbacks=[psgd.ReduceLROnPlateau(patience=0, factor=0.5, threshold=0.9)],
        lr_scheduler=psgd.schedule("exponential", gamma=0.5),
        epochs=2,
        evaluate_every=2,
    ).fit()
    first = result.history[result.history["slot"] == 0].sort_values("step")["lr"]
    factors = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]  # of evaluation 2 at step 4, from step 6 on
    assert [lr for (lr,) in first] == [0.1 * 0.5**step * factor for step, factor in enumerate(factors)]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_the_learning_rate_can_be_a_function_of_the_epoch(mode: Any) -> None:
    scheduler = psgd.LearningRateScheduler(lambda epoch, lr: lr / 2 if epoch else lr)
    result = make(mode=mode, callbacks=[scheduler], epochs=3).fit()
    used = sorted(lr for (lr,) in result.history["lr"])
    assert used == [0.025] * 8 + [0.05] * 8 + [0.1] * 8


def test_what_callbacks_can_not_decide_is_refused() -> None:
    decided = psgd.LearningRateScheduler(lambda epoch, lr: lr)
    assert refusal(callbacks=[decided], lr_scheduler=psgd.schedule("constant")).startswith(
        "lr_scheduler must be left out beside a LearningRateScheduler"
    )
    assert refusal(callbacks=[psgd.ReduceLROnPlateau()], val_data=None) == (
        "callbacks: ReduceLROnPlateau needs val_data, got none"
    )
    assert refusal(callbacks=[psgd.ModelCheckpoint()] * 2) == "callbacks must hold at most one ModelCheckpoint, got 2"
    assert refusal(callbacks=[psgd.ModelCheckpoint()], out=None) == (
        "callbacks: ModelCheckpoint needs a folder for the run, got out=None"
    )
    message = refusal(
        callbacks=[psgd.ReduceLROnPlateau()], train_loop=own_loop, train_data=None, epochs=None, batch_size=32
    )
    assert message == "callbacks: ReduceLROnPlateau does not reach into a train_loop: do the same in the loop"


def test_a_disk_that_takes_no_checkpoint_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(weights: object, path: Path, header: object = None) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("psgd.running.save_weights", full)
    result = make(callbacks=[psgd.ModelCheckpoint()], out=tmp_path).fit()
    assert result.figures["steps"] == 8
    assert result.best_checkpoint is None
    assert "the weights of step 4 are not kept as best: [Errno 28] No space left on device" in caplog.messages


# ------------------------------------------------------------------ clipping, and what is not finite


def test_a_clipped_run_says_so_in_every_receipt() -> None:
    result = make(clip=psgd.Clip(norm=0.01), shards=3).fit()
    assert ((result.history["clip_scale"] > 0) & (result.history["clip_scale"] < 1)).all()
    assert refusal(clip=1.0) == "clip must be psgd.Clip(norm=...) or the like, got 1.0"


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_with_local_steps_shards_know_nothing_of_clipping(mode: Any) -> None:
    clipped = make(mode=mode, clip=psgd.Clip(norm=0.01), local_steps=psgd.LocalSteps(2), shards=3)
    assert clipped.plan().job.rules.clip_norm is None
    result = clipped.fit()
    assert set(result.history["clip_scale"]) == {1.0}
    by_tensor = make(mode=mode, clip=psgd.Clip(tensor_norm=0.01), local_steps=psgd.LocalSteps(2), layout="sliced")
    assert by_tensor.plan().job.whole is False


def exploding(outputs: Any, targets: Any) -> Any:
    return nn.functional.cross_entropy(outputs, targets) * float("nan")


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_gradient_that_is_not_finite_is_skipped_and_counted_or_ends_the_run(mode: Any) -> None:
    figures = make(mode=mode, loss=exploding).fit().figures
    assert (figures["pushes"], figures["dropped_pushes"], figures["nonfinite_pushes"]) == (0, 16, 16)
    with pytest.raises(psgd.DivergedError, match=r"NaN or Inf .* lower the learning rate or clip gradients"):
        make(mode=mode, loss=exploding, on_nonfinite="fail").fit()
    assert refusal(on_nonfinite="stop") == "on_nonfinite must be one of skip, fail, got 'stop'"


# ------------------------------------------------------------------ metrics


def test_metrics_are_measured_by_name() -> None:
    result = make(metrics=["f1:average=macro", "confusion-matrix"], epochs=1).fit()
    assert list(result.metrics) == ["train_loss", "test_loss", "test_f1_macro"]
    (matrix,) = [arrays["test_confusion_matrix"] for arrays in result.evaluations["arrays"]]
    assert sum(map(sum, matrix)) == 160
    assert result.figures["arrays"]["test_confusion_matrix"] == matrix


# ------------------------------------------------------------------ local steps


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_epochs_are_divided_into_iterations_of_local_steps(mode: Any, tmp_path: Path) -> None:
    local = psgd.LocalSteps(3, lr=0.5, momentum=0.25)
    result = make(mode=mode, local_steps=local, epochs=5, out=tmp_path).fit()
    figures = result.figures
    assert (figures["steps"], figures["pushes"]) == (5 * 4 // 3, 2 * 6)
    assert (figures["samples"], figures["dropped_samples"]) == (2 * 6 * 3 * 20, 0)
    assert set(result.history["samples"]) == {3 * 20}
    assert set(result.history["lr"]) == {(0.5,)}
    assert set(result.history["inner_lr"]) == {(0.1,)}
    assert list(result.evaluations["step"]) == [1, 2, 3, 4, 5, 6]  # an iteration is about an epoch
    header = next(read(tmp_path))
    assert isinstance(header, Header)
    assert header.settings["local_steps"] == {"steps": 3, "lr": 0.5, "momentum": 0.25}
    assert (header.settings["optimizer"], header.settings["optimizer_args"]["lr"]) == ("SGD", 0.1)
    assert header.settings["overlap"] is False


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_plateau_lowers_the_inner_rate_and_leaves_the_outer_one(mode: Any) -> None:
    plateau = psgd.ReduceLROnPlateau("test_loss", patience=0, factor=0.5, threshold=0.9, min_lr=0.0125)
    result = make(mode=mode, local_steps=psgd.LocalSteps(2), callbacks=[plateau], epochs=None, steps=8).fit()
    assert list(result.evaluations["lr_factor"]) == [1.0, 0.5, 0.25, 0.125]  # every two steps are an epoch
    assert set(result.history["lr"]) == {(0.7,)}
    expected = {step: (0.1 * 0.5 ** max(0, step // 2 - 2),) for step in range(8)}
    rates = result.history.set_index("step")["inner_lr"]
    if isinstance(mode, psgd.Sync):
        assert all(rate == expected[step] for step, rate in rates.items())
    else:
        assert set(rates) == set(expected.values())


def test_an_epoch_schedule_ticks_with_iterations() -> None:
    halved = psgd.LearningRateScheduler(lambda epoch, lr: lr / 2 if epoch else lr)
    result = make(local_steps=psgd.LocalSteps(2), callbacks=[halved], epochs=3).fit()
    rates = dict(zip(result.history["step"], result.history["inner_lr"], strict=True))
    assert [rates[step] for step in range(6)] == [(0.1,)] * 2 + [(0.05,)] * 2 + [(0.025,)] * 2


def test_shards_cut_tensors_for_the_outer_optimizer_whatever_the_inner_one_needs() -> None:
    lamb = psgd.optimizer("lamb", lr=0.01)
    assert make(optimizer=lamb).plan().job.whole
    plan = make(optimizer=lamb, local_steps=psgd.LocalSteps(2), layout="sliced").plan()
    assert not plan.job.whole
    assert plan.settings["optimizer"] == "LAMB"


def test_a_world_must_be_one_and_know_no_other_slots_than_the_job() -> None:
    with pytest.raises(ConfigurationError, match=r"^world must be psgd.World\(\.\.\.\), got 5$"):
        make(world=5)
    with pytest.raises(ConfigurationError, match=r"must be < slots \(2\), got 2$"):
        make(world=psgd.World(slots=((2, constant(3.0)),)))
