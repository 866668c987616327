import gzip
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
import torch

from psgd.cli import main
from psgd.cli.building import build_trainer, load_train, parse_straggler
from psgd.cli.options import parse
from psgd.cli.train_config import TrainConfig
from psgd.config import Clip, Placement, Straggler
from psgd.core.local_steps import LocalSteps
from psgd.core.modes import Async, Sync
from psgd.data.batches import MapDataset
from psgd.durations import parse_duration
from psgd.errors import ConfigurationError, ResourceError
from psgd.runlog import Header, Notice, Record, read
from psgd.training.policies import (
    EarlyStopping,
    ModelCheckpoint,
    Policies,
    ReduceLROnPlateau,
    StopAfter,
    StopAtTarget,
)
from tests.records import ITERATION

FIGURES = {
    *("gather", "correction", "updates"),
    *("mode", "staleness", "backups", "workers", "slots", "shards", "steps", "pushes", "samples", "seconds"),
    *(
        "samples_per_s",
        "pushes_per_s",
        "train_loss",
        "test_loss",
        "test_accuracy",
        "weights_sha256",
        "lag",
        "dropped_samples",
    ),
    *(
        "threads",
        "torch",
        "psgd",
        "max_clock_gap",
        "idle_share",
        "bytes",
        "dropped_pushes",
        "nonfinite_pushes",
        "arrays",
        "stopped_early",
        "out",
    ),
}
OWN_MODELS = """
from torch import nn

def small(shape, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))

def empty():
    return nn.ReLU()

def broken():
    raise RuntimeError("out of ideas")

def returns(param, grad, state, lr):
    return param - lr * grad

def raises(param, grad, state, lr):
    raise ValueError("no rule today")

def misnamed(p, g, s, lr):
    p.sub_(g, alpha=lr)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder: what a command writes unasked is seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_models(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's own beside the run."""
    (here / "psgd_test_models.py").write_text(OWN_MODELS)
    monkeypatch.syspath_prepend(str(here))


def train(*options: str, **environment: str) -> int:
    return main(["train", "--plane", "memory", *options], environment)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------ runs


def test_plain_psgd_train_learns_the_digits(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert train("--json") == 0
    captured = capsys.readouterr()
    figures = json.loads(captured.out.splitlines()[-1])
    assert figures.keys() == FIGURES
    assert figures["test_accuracy"] >= 0.96
    assert (figures["mode"], figures["workers"], figures["slots"], figures["shards"]) == ("sync", 2, 2, 2)
    assert (figures["steps"], figures["pushes"], figures["samples"]) == (220, 440, 440 * 32)
    assert figures["lag"] == {"mean": 0.0, "max": 0, "histogram": {"0": 440}}
    assert figures["out"].startswith("runs/")
    assert captured.err.splitlines()[-1] == f"psgd: the run is in {figures['out']}"
    assert entries(here / figures["out"]) == ["run.jsonl", "tensorboard", "weights.safetensors"]


def test_a_bounded_asynchronous_run_stays_within_its_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--mode", "async", "--staleness", "2", "--json", "--out", "run") == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["mode"], figures["staleness"], figures["backups"]) == ("async", 2, 0)
    assert figures["max_clock_gap"] <= 2
    assert figures["test_accuracy"] >= 0.96


@pytest.mark.parametrize("correction", ["lag-lr", "dc=0.5", "dca=2:0.9", "gap=0.99"])
def test_a_run_with_a_correction_says_so_in_its_log(correction: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--mode", "async", "--gather", "2", "--correction", correction, "--epochs", "2")
    assert train(*options, "--json", "--out", "run") == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    header, *records = read(Path("run"))
    assert isinstance(header, Header)
    assert (header.settings["mode"], header.settings["gather"], header.settings["correction"]) == (
        "async",
        2,
        correction,
    )
    assert (figures["gather"], figures["correction"], figures["pushes"]) == (2, correction, 88)
    assert (figures["updates"], figures["dropped_pushes"]) == (44, 0)
    assert figures["test_accuracy"] > 0.8
    notes = [record.text for record in records if isinstance(record, Notice)]
    assert [note.partition(": shards keep")[0] for note in notes] == (
        [] if correction == "lag-lr" else [f"correction {correction}"]
    )


def test_without_json_a_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--steps", "2", "--out", "run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "steps             2" in lines
    assert "lag               mean 0.00, max 0" in lines
    assert "out               run" in lines
    assert not any(line.startswith("arrays") for line in lines)


def test_a_run_that_diverged_still_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--optimizer", "sgd", "--lr", "1e38", "--steps", "4", "--json", "--out", "run")
    assert train(*options) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert "NaN" not in line
    assert json.loads(line)["train_loss"] is None


def test_the_log_says_what_was_asked_for() -> None:
    assert train("--steps", "1", "--out", "run", PSGD_SEED="5") == 0
    header = next(read(Path("run")))
    assert isinstance(header, Header)
    assert header.settings["options"]["data"] == "digits"
    assert header.settings["seed"] == header.settings["options"]["seed"] == 5


def test_an_interrupted_run_says_where_its_log_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(job: Any, initial: Any, policies: Any, observe: Callable[[Record], None], keep: Any) -> NoReturn:
        observe(ITERATION)
        raise KeyboardInterrupt

    monkeypatch.setattr("psgd.inprocess.run", interrupted)
    assert train("--out", "run") == 130
    assert capsys.readouterr().err.splitlines() == ["psgd: the run is in run", "psgd: interrupted"]
    assert len(list(read(Path("run")))) == 2


@pytest.mark.usefixtures("own_models")
def test_a_model_of_ones_own_is_found_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--model", "psgd_test_models:small", "--steps", "1", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 64 * 10 + 10


def test_a_dry_run_tells_the_plan_and_writes_nothing(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert main(["train", "--dry-run", "--json", "--shards", "3", "--out", "run"], {}) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan == {
        "mode": "sync",
        "gather": 1,
        "correction": None,
        "workers": 2,
        "slots": 2,
        "steps": 220,
        "samples": 220 * 64,
        "evaluate_every": 22,
        "local_steps": None,
        "tensors": 4,
        "parameters": 64 * 128 + 128 + 128 * 10 + 10,
        "optimizer": "Adam",
        "groups": ["4 tensors: lr=0.002, betas=(0.9, 0.999), eps=1e-08"],
        "schedule": None,
        "clip": None,
        "on_nonfinite": "skip",
        "loss": "CrossEntropy(weight=None, label_smoothing=0.0)",
        "metrics": None,
        "by_evaluations": None,
        "layout": "sliced",
        "bytes_a_shard": plan["bytes_a_shard"],
        "plane": "auto",
        "wire": "float32",
        "shard_device": "cpu",
        "out": "run",
    }
    assert sum(plan["bytes_a_shard"]) == 38656
    assert entries(here) == []


def test_a_dry_run_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--dry-run", "--shards", "1") == 0
    assert "bytes_a_shard   38,656" in capsys.readouterr().out.splitlines()


@pytest.mark.data
def test_mnist_is_read_from_its_files(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--data", "mnist", "--data-dir", str(shared_data / "mnist"), "--model", "cnn", "--dry-run", "--json")
    assert train(*options) == 0
    assert json.loads(capsys.readouterr().out)["evaluate_every"] == 60_000 // 64


# ------------------------------------------------------------------ from options to the trainer


def test_every_option_reaches_the_trainer() -> None:
    trainer = build_trainer(
        TrainConfig(
            mode="async",
            staleness=3,
            workers=3,
            slots=6,
            shards=4,
            threads=2,
            overlap=False,
            plane="rpc",
            use_gpu=True,
            gpus_per_worker=0.25,
            shard_device="cuda",
            gpus_per_shard=0.5,
            cpus_per_worker=0.5,
            placement="spread",
            optimizer="sgd",
            lr=0.25,
            optimizer_args={"momentum": 0.5},
            schedule="step",
            schedule_args={"step_size": 3},
            batch_size=8,
            accumulate=2,
            precision="bf16",
            steps=7,
            evaluate_every=3,
            patience=4,
            seed=9,
            straggler=("0:3x", "5:50ms"),
            local_steps=4,
            outer_lr=0.5,
            outer_momentum=0.25,
            out="run",
        )
    )
    plan = trainer.plan()
    job, training = plan.job, plan.job.training
    assert job.rules.mode == Async(3)
    assert job.rules.local_steps == LocalSteps(4, 0.5, 0.25)
    assert (job.workers, job.rules.slots, job.rules.shards) == (3, 6, 4)
    assert (job.rules.steps, job.rules.evaluate_every) == (7, 3)
    assert (training.batch_size, training.accumulate, training.precision, training.threads) == (8, 2, "bf16", 2)
    assert (training.seed, training.use_gpu, training.overlap) == (9, True, False)
    assert training.stragglers == (Straggler(0, factor=3.0), Straggler(5, parse_duration("50ms")))
    assert job.shard_device == "cuda"
    assert plan.placement == Placement(cpus_per_worker=0.5, gpus_per_worker=0.25, gpus_per_shard=0.5, strategy="SPREAD")
    assert plan.policies.stopping == EarlyStopping(patience=4)
    assert (plan.job.plane, plan.out) == ("rpc", Path("run"))
    optimizer = job.optimizer(job.model().named_parameters())
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.25, 0.5)
    assert job.schedule is not None
    assert type(job.schedule(optimizer)).__name__ == "StepLR"


def test_the_mode_has_its_bound() -> None:
    assert TrainConfig().choose_mode() == Sync(0)
    assert TrainConfig(backups=1).choose_mode() == Sync(1)
    assert TrainConfig(mode="async").choose_mode() == Async(None)
    assert TrainConfig(mode="async", staleness=0).choose_mode() == Async(0)


def test_what_is_not_said_of_local_steps_is_as_in_the_paper() -> None:
    assert TrainConfig().choose_local_steps() is None
    assert TrainConfig(local_steps=8).choose_local_steps() == LocalSteps(8, 0.7, 0.9)
    assert TrainConfig(local_steps=8, outer_momentum=0.0).choose_local_steps() == LocalSteps(8, 0.7, 0.0)


def test_a_run_with_local_steps_learns_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--local-steps", "4", "--epochs", "20", "--json")
    assert train(*options, "--dry-run") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["local_steps"] == {"steps": 4, "lr": 0.7, "momentum": 0.9}
    assert (plan["steps"], plan["samples"]) == (110, 110 * 4 * 64)
    assert train(*options, "--out", "run") == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["steps"], figures["pushes"], figures["samples"]) == (110, 220, 220 * 4 * 32)
    assert figures["test_accuracy"] >= 0.96


@pytest.mark.parametrize(
    ("text", "straggler"),
    [
        ("0:3x", Straggler(0, factor=3.0)),
        ("2:1.5x", Straggler(2, factor=1.5)),
        ("1:50ms", Straggler(1, parse_duration("50ms"))),
        ("1:0.5ms", Straggler(1, parse_duration("0.5ms"))),
        ("1:2s", Straggler(1, parse_duration("2s"))),
        ("2:exp:50ms", Straggler(2, parse_duration("exp:50ms"))),
        ("*:2%exp:5", Straggler(None, parse_duration("2%exp:5"))),
        ("*:3x", Straggler(None, factor=3.0)),
    ],
)
def test_a_straggler_is_a_slot_and_how_much_slower(text: str, straggler: Straggler) -> None:
    assert parse_straggler(text) == straggler


@pytest.mark.parametrize("text", ["0", "0:", ":3x", "0:3", "0:0.5", "x:3x", "-1:3x", "**:3x"])
def test_a_malformed_straggler_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^straggler must be SLOT:3x, SLOT:50ms or at random SLOT:exp:50ms"):
        parse_straggler(text)


@pytest.mark.parametrize("text", ["0:x", "0:3x ", "0:-50ms", "1:exp", "*:exp:0ms", "0:3y"])
def test_a_stragglers_malformed_delay_is_refused_in_the_words_of_durations(text: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^straggler '{re.escape(text)}': a duration must be "):
        parse_straggler(text)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--model resnet", ["model must be one of cnn, linear, mlp, my.pkg:factory", "'resnet'"]),
        ("--model psgd_test_models:none", ["psgd_test_models", "'none'"]),
        ("--model no.such:model", ["no.such:model", "can not import"]),
        ("--model psgd_test_models:empty", ["model: ReLU must have at least one parameter", "got none"]),
        ("--data cifar", ["data must be one of digits, diabetes, mnist, fashion-mnist", "'cifar'"]),
        ("--optimizer adm", ["optimizer must be one of adadelta, ", "did you mean adam", "'adm'"]),
        ("--optimizer lamb --layout sliced", ["layout must be auto or whole with optimizer lamb, got sliced"]),
        ("--plateau patience=many", ["patience must be a finite number >= 0, got 'many'"]),
        ("--optimizer lbfgs", ["optimizer must not be LBFGS: it evaluates the loss again"]),
        ("--optimizer-args beta=1", ["optimizer adam has no argument 'beta'", "did you mean betas?"]),
        ("--groups *weigth=lr=1", ["groups: pattern '*weigth' must match a parameter, the model has 1.weight"]),
        ("--groups *bias=lr", ["groups *bias must be a list of key=value, separated by commas, got 'lr'"]),
        ("--l1 -1", ["l1 must be a finite number >= 0, got -1.0"]),
        ("--clip-norm 1 --clip-value 1", ["clip must be one of norm, value and tensor_norm, got norm and value"]),
        ("--clip-norm 0", ["clip norm must be a finite number > 0, got 0.0"]),
        ("--on-nonfinite stop", ["--on-nonfinite must be skip or fail, got 'stop'"]),
        ("--schedule cosin", ["schedule must be one of ", "did you mean cosine", "'cosin'"]),
        ("--schedule cosine", ["schedule cosine", "T_max"]),
        ("--schedule plateau", ["plateau"]),
        ("--warmup-steps -1", ["warmup_steps must be a whole number >= 0, got -1"]),
        ("--plateau patiens=1", ["plateau has no argument 'patiens'", "did you mean patience?"]),
        ("--plateau factor=2", ["factor must be > 0 and < 1, got 2"]),
        ("--loss cross-entropie", ["loss must be one of ", "did you mean cross-entropy", "'cross-entropie'"]),
        ("--loss-args smoothing=0.1", ["loss cross-entropy has no argument 'smoothing'", "label_smoothing"]),
        ("--metrics f2", ["metric must be one of ", "'f2'", "f1"]),
        ("--metrics rmse", ["metric rmse"]),
        ("--data diabetes --metrics auroc", ["metric auroc"]),
        ("--data diabetes --model cnn", ["model cnn needs inputs of shape (C, H, W)"]),
        (
            "--patience 1 --monitor test_acuracy",
            ["monitor must be one of test_accuracy, test_loss, got 'test_acuracy'"],
        ),
        ("--monitor test_loss", ["monitor must be left out without patience, plateau and keep_best"]),
        ("--data diabetes --loss hinge", ["loss hinge needs targets 0 and 1, or -1 and 1", "for numbers use mse"]),
        ("--data diabetes --loss bce-with-logits", ["needs targets from 0 to 1"]),
        ("--loss nll", ["loss nll needs log-probabilities", "or use cross-entropy"]),
        ("--loss hinge", ["loss hinge needs one target for each output", "cross-entropy or multi-class-hinge"]),
        ("--optimizer psgd_test_models:returns", ["update returns must change param in place and return nothing"]),
        ("--optimizer psgd_test_models:raises", ["optimizer fails in its first step: ValueError: no rule today"]),
        ("--optimizer psgd_test_models:misnamed", ["(param, grad, state, lr, ...), so named"]),
        ("--optimizer-args lr=1", ["optimizer adam: lr must be given as lr"]),
        ("--schedule-args Tmax=9 --schedule cosine", ["did you mean T_max?"]),
        ("--limit 1438", ["limit must be <= 1437, the training samples of digits, got 1438"]),
        ("--limit 0", ["limit must be >= 1, got 0"]),
        ("--data mnist", ["data mnist needs the folder of its IDX files", "--data-dir"]),
        ("--data mnist --data-dir nowhere", ["nowhere/train-images-idx3-ubyte.gz", "found no file"]),
        ("--workers 0", ["workers must be >= 1, got 0"]),
        ("--workers -1", ["workers must be >= 1, got -1"]),
        ("--workers two", ["--workers must be an integer, got 'two'"]),
        ("--workers 3 --slots 2", ["workers must be <= slots (2), got 3"]),
        ("--shards 0", ["shards must be >= 1, got 0"]),
        ("--threads 0", ["threads must be >= 1, got 0"]),
        ("--cpus-per-worker -1", ["cpus_per_worker must be >= 0, got -1.0"]),
        ("--mode bsp", ["--mode must be sync or async, got 'bsp'"]),
        ("--backups 2", ["backups must be < slots, got 2 of 2 slots"]),
        ("--backups -1", ["backups must be >= 0, got -1"]),
        ("--local-steps 0", ["local steps must be a whole number >= 1, got 0"]),
        ("--local-steps 8 --outer-lr 0", ["the outer lr of local steps must be a finite number > 0, got 0.0"]),
        ("--local-steps 8 --outer-momentum 1", ["the outer momentum of local steps must be >= 0 and < 1, got 1.0"]),
        ("--local-steps 500 --epochs 1", ["local steps must be <= the 22 batches that a slot draws", "got 500"]),
        ("--outer-lr 0.5", ["outer_lr must be left out without local_steps, got 0.5"]),
        ("--outer-momentum 0.5", ["outer_momentum must be left out without local_steps, got 0.5"]),
        ("--staleness 2", ["staleness must be left out with mode sync, got 2"]),
        ("--mode async --backups 1", ["backups must be left out with mode async, got 1"]),
        ("--gather 2", ["gather must be left out with mode sync, got 2; try mode async"]),
        ("--correction gap", ["correction must be left out with mode sync, got gap; try mode async"]),
        ("--mode async --gather 0", ["gather must be >= 1, got 0"]),
        ("--mode async --gather 3", ["gather must be <= slots, got 3 of 2 slots"]),
        (
            "--mode async --correction dcb",
            ["correction must be lag-lr, dc[=LAMBDA], dca[=LAMBDA0[:M]] or gap[=BETA], got 'dcb'"],
        ),
        ("--mode async --correction dca=2:1", ["delay compensation decay must be in [0, 1), got 1.0"]),
        ("--mode async --staleness -1", ["staleness must be >= 0 or None, got -1"]),
        ("--lr -0.1", ["lr must be a finite number >= 0, got -0.1"]),
        ("--lr nan", ["lr must be a finite number >= 0, got nan"]),
        ("--lr fast", ["--lr must be a number, got 'fast'"]),
        ("--optimizer sdg", ["optimizer must be one of", "'sdg'"]),
        ("--optimizer lbfgs", ["optimizer", "LBFGS"]),
        ("--optimizer-args momentum=0.9", ["optimizer adam has no argument 'momentum'"]),
        ("--optimizer-args eps", ["--optimizer-args must be a list of key=value", "['eps']"]),
        ("--optimizer-args eps=-1", ["optimizer adam", "eps=-1"]),
        ("--schedule zigzag", ["schedule must be one of", "'zigzag'"]),
        ("--schedule step", ["schedule step", "step_size"]),
        ("--schedule-args step_size=3", ["schedule arguments need a schedule's name", "step_size"]),
        ("--batch-size 0", ["batch_size must be >= 1, got 0"]),
        ("--batch-size 719", ["slots * batch_size must be <= the 1437 samples", "2 * 719 = 1438"]),
        ("--accumulate 33", ["accumulate must be <= batch_size (32), got 33"]),
        ("--precision fp16", ["--precision must be fp32 or bf16, got 'fp16'"]),
        ("--epochs 0", ["epochs must be >= 1, got 0"]),
        ("--steps 0", ["steps must be >= 1, got 0"]),
        ("--epochs 2 --steps 2", ["epochs must be left out with steps, got 2 and 2"]),
        ("--evaluate-every 0", ["evaluate_every must be >= 1, got 0"]),
        ("--patience 0", ["patience must be >= 1, got 0"]),
        ("--seed -1", ["seed must be", "got -1"]),
        ("--straggler 0:3", ["straggler must be SLOT:3x, SLOT:50ms or at random SLOT:exp:50ms", "got '0:3'"]),
        ("--until 0.95", ["until must be METRIC=VALUE, such as test_accuracy=0.95, got '0.95'"]),
        ("--until test_loss=nan", ["until must be METRIC=VALUE, such as test_accuracy=0.95, got 'test_loss=nan'"]),
        ("--until test_loss=low", ["until must be METRIC=VALUE", "got 'test_loss=low'"]),
        ("--until accuracy=0.9", ["monitor must be one of test_accuracy, test_loss, got 'accuracy'"]),
        ("--max-seconds 0", ["seconds must be a finite number > 0, got 0.0"]),
        ("--straggler 2:3x", ["straggler slot must be < slots (2), got 2"]),
        ("--straggler 0:0.5x", ["straggler factor must be a finite number >= 1, got 0.5"]),
        ("--placement near", ["--placement must be pack or spread, got 'near'"]),
        ("--shard-device gpu", ["--shard-device must be cpu or cuda, got 'gpu'"]),
        ("--gpus-per-worker 0.5", ["gpus_per_worker must be left out without use_gpu, got 0.5"]),
        ("--use-gpu --gpus-per-worker 0", ["gpus_per_worker must be > 0, got 0.0"]),
        ("--shard-device cuda --gpus-per-shard 0", ["gpus_per_shard must be > 0, got 0.0"]),
        ("--gpus-per-shard 0.5", ["gpus_per_shard must be 0 with shard_device cpu, got 0.5; try shard_device cuda"]),
        ("--shard-device cuda --gpus-per-shard 2", ["gpus_per_shard must be <= 1, as a shard uses one, got 2.0"]),
        ("--plane pigeon", ["--plane must be auto, shm, rpc or memory, got 'pigeon'"]),
        ("--warm-start first.pt", ["weights must be a state_dict or a .safetensors file, got first.pt"]),
        ("--warm-start no.safetensors", ["no.safetensors"]),
        ("--wrokers 2", ["unrecognized arguments: --wrokers 2", "did you mean --workers?"]),
        ("--workers", ["argument --workers: expected one argument"]),
        ("--config no.yaml", ["config: can not read no.yaml"]),
        ("digits", ["unrecognized arguments: digits"]),
    ],
)
@pytest.mark.usefixtures("own_models")
def test_bad_input_is_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, options: str, words: list[str]
) -> None:
    before = entries(here)
    assert train("--out", "run", *options.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("psgd: error: ")
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err
    assert [name for name in entries(here) if name != "__pycache__"] == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers: 0", ["workers must be >= 1, got 0"]),
        ("wrokers: 2", ["config bad.yaml: there is no option 'wrokers'; did you mean workers?"]),
        ("workers: [2", ["config bad.yaml must be YAML"]),
        ("workers: many", ["workers in bad.yaml must be an integer, got 'many'"]),
        ("[1, 2]", ["config bad.yaml must hold options"]),
    ],
)
def test_bad_yaml_is_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, text: str, words: list[str]
) -> None:
    (here / "bad.yaml").write_text(text)
    assert train("--out", "run", "--config", "bad.yaml") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for word in words:
        assert word in error
    assert entries(here) == ["bad.yaml"]


def write_idx(path: Path, content: bytes, sizes: tuple[int, ...], keep: int | None = None) -> None:
    header = bytes((0, 0, 8, len(sizes))) + struct.pack(f">{len(sizes)}I", *sizes)
    path.write_bytes(gzip.compress((header + content)[:keep]))


def test_a_truncated_data_file_is_named(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    data = here / "data"
    data.mkdir()
    for part in ("train", "t10k"):
        write_idx(data / f"{part}-images-idx3-ubyte.gz", bytes(2 * 784), (2, 28, 28))
        write_idx(data / f"{part}-labels-idx1-ubyte.gz", bytes(2), (2,))
    write_idx(data / "t10k-images-idx3-ubyte.gz", bytes(2 * 784), (2, 28, 28), keep=1000)
    assert train("--data", "mnist", "--data-dir", "data", "--out", "run") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{data}/t10k-images-idx3-ubyte.gz: expected 1568 bytes of data (2 x 28 x 28), found 984" in error
    assert entries(here) == ["data"]


def test_a_folder_with_another_run_is_refused_and_left_as_it_is(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert train("--steps", "1", "--out", "run") == 0
    written = {path: path.read_bytes() for path in (here / "run").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert train("--steps", "1", "--out", "run") == 2
    error = capsys.readouterr().err
    assert error == "psgd: error: out must be without a run, got run: run.jsonl is there; choose another folder\n"
    assert {path: path.read_bytes() for path in (here / "run").rglob("*") if path.is_file()} == written


def test_a_cluster_that_has_too_little_is_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise ResourceError("the cluster has 2 CPUs, the run needs 66; lower workers")

    monkeypatch.setattr("psgd.cluster.run", refuse)
    assert main(["train", "--out", "run"], {}) == 2
    assert capsys.readouterr().err == "psgd: error: the cluster has 2 CPUs, the run needs 66; lower workers\n"
    assert entries(here) == []


@pytest.mark.usefixtures("own_models")
def test_a_model_that_breaks_is_one_line_that_names_the_users_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--model", "psgd_test_models:broken", "--out", "run"], {}) == 2
    assert re.fullmatch(
        r"psgd: error: model can not be made: RuntimeError: out of ideas \(psgd_test_models.py:\d+\)\n",
        capsys.readouterr().err,
    )
    assert "run" not in entries(here)


# ------------------------------------------------------------------ everything around an optimizer


def test_every_option_around_the_optimizer_reaches_the_plan() -> None:
    words = (
        "--optimizer adamw --optimizer-args weight_decay=0.5 --groups 1.*=lr=0.25 --no-decay-biases --l1 0.125 "
        "--decay 1 --clip-value 2 --on-nonfinite fail --schedule step --schedule-args step_size=3 --warmup-steps 4 "
        "--plateau patience=2,factor=0.5 --patience 4 --monitor test_accuracy --keep-best --limit 100 "
        "--until test_loss=0.125 --max-seconds 60 "
        "--loss-args label_smoothing=0.5 --metrics accuracy,f1:average=macro,top3 --out run"
    )
    plan = build_trainer(parse(TrainConfig, "psgd train", words.split(), {})).plan()
    job = plan.job
    made = job.optimizer(job.model().named_parameters())
    groups = [{k: group[k] for k in ("lr", "weight_decay", "l1", "decay")} for group in made.param_groups]
    usual = {"lr": 0.002, "weight_decay": 0.5, "l1": 0.125, "decay": 1.0}
    spared = {**usual, "weight_decay": 0.0, "decay": 0.0}
    assert groups == [usual, {**spared, "lr": 0.25}, {**usual, "lr": 0.25}, spared]
    names = [group["param_names"] for group in made.param_groups]
    assert names == [["3.weight"], ["1.bias"], ["1.weight"], ["3.bias"]]
    assert (job.clip, job.on_nonfinite, job.saves_measured) == (Clip(value=2.0), "fail", True)
    assert job.schedule is not None
    assert job.schedule(made).get_last_lr()[0] == 0.002 / 4
    assert plan.policies == Policies(
        EarlyStopping("test_accuracy", 4),
        ReduceLROnPlateau("test_accuracy", factor=0.5, patience=2),
        ModelCheckpoint("test_accuracy"),
        lr=0.25,
        target=StopAtTarget("test_loss", 0.125),
        limit=StopAfter(60.0),
    )
    assert job.data is not None
    assert len(cast(MapDataset, job.data())) == 100
    assert plan.settings["metrics"] == ["accuracy", "f1_macro", "top3"]


def test_the_samples_of_a_limit_are_drawn_with_the_seed() -> None:
    few = [load_train("digits", None, 50, seed).batch(torch.arange(50))[1].tolist() for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]
    assert len(set(few[0])) == 10


def test_a_regression_is_learnt_end_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--data", "diabetes", "--lr", "0.01", "--epochs", "8", "--json", "--out", "run") == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["test_accuracy"] is None
    assert figures["test_r2"] >= 0.4
    assert figures["test_rmse"] ** 2 == pytest.approx(figures["test_loss"], rel=1e-5)


def test_a_confusion_matrix_is_printed_by_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--steps", "2", "--metrics", "confusion-matrix", "--out", "run") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    at = lines.index("test_confusion_matrix")
    rows = [[int(number) for number in line.split()] for line in lines[at + 1 : at + 11]]
    assert [len(row) for row in rows] == [10] * 10
    assert sum(map(sum, rows)) == 360


def test_the_schedule_is_drawn_without_training(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    words = ("--dry-run", "--plot", "--schedule", "cosine", "--schedule-args", "T_max=100", "--warmup-steps", "10")
    assert main(["train", *words], {}) == 0
    assert entries(here) == ["schedule.png"]
    assert (here / "schedule.png").read_bytes().startswith(b"\x89PNG")
    assert "psgd: the schedule is drawn in schedule.png" in capsys.readouterr().err


def test_a_gradient_with_nan_ends_a_run_that_is_to_fail_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--optimizer", "sgd", "--lr", "1e38", "--steps", "9", "--on-nonfinite", "fail", "--out", "run")
    assert train(*options) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "closed without an update: NaN or Inf from slot" in last
    assert last.endswith(
        "lower the learning rate or clip gradients, or let such iterations pass with on_nonfinite skip"
    )
