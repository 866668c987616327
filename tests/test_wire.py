"""Whole runs whose gradients are written in fewer bytes: the same on every plane, and nearly as good."""

import json
import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from psgd import inprocess
from psgd.cli import main
from psgd.config import Job, Plane
from psgd.core.layout import partition
from psgd.data import datasets
from psgd.errors import ConfigurationError
from psgd.runlog import Header, Record, read
from psgd.trainer import Trainer
from psgd.training.models import mlp
from psgd.training.optimizers import resolve_optimizer
from psgd.training.policies import Policies
from psgd.transport.flat import sha256, tensors_of
from psgd.transport.wire_format import WireFormat
from psgd.worker import outgoing
from psgd.worker.outgoing import Outgoing
from tests.jobs import CLASSES, MLP, SHAPE, SLOTS, STEPS, accepted_by_step, first_model, images, keep_nothing, make_job
from tests.test_bitwise import infinite_at
from tests.worker.own_loops import shards_of

LOSSY = ["bfloat16", "float16", "int8", "topk:0.1", "onebit"]
EVERY_SLOT = dict.fromkeys(range(STEPS), tuple(range(SLOTS)))

wires = pytest.mark.parametrize("wire", LOSSY)


def run_in_process(job: Job) -> tuple[dict[str, Tensor], list[Record]]:
    records: list[Record] = []
    outcome = inprocess.run(job, tensors_of(first_model(job.model)), Policies(), records.append, keep_nothing)
    return dict(outcome.weights), records


@cache
def plain(wire: str) -> str:
    """One worker in one process."""
    return sha256(run_in_process(replace(make_job(MLP), wire=wire))[0])


# ------------------------------------------------------------------ bits


@wires
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("plane", ["shm", "rpc"])
def test_whatever_the_plane_and_the_number_of_workers_the_weights_are_the_same(
    wire: str, workers: int, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "BUCKET_BYTES", 256)  # gradients are encoded while backward runs
    job = replace(make_job(MLP, workers=workers), plane=plane, wire=wire)
    with shards_of(job, tensors_of(first_model(job.model))) as shards:
        shards.train()
        assert sha256(shards.weights) == plain(wire)
        assert accepted_by_step(shards.iterations) == EVERY_SLOT


def test_every_codec_has_weights_of_its_own() -> None:
    assert len({plain(wire) for wire in ["float32", *LOSSY]}) == len(LOSSY) + 1


@pytest.mark.parametrize("wire", ["bfloat16", "float16"])  # each value by itself, wherever it is cut
@pytest.mark.parametrize("shards", [2, 3])
def test_codecs_of_single_values_know_nothing_of_shards(wire: str, shards: int) -> None:
    weights, _ = run_in_process(replace(make_job(MLP, workers=2, shards=shards), wire=wire))
    assert sha256(weights) == plain(wire)


# ------------------------------------------------------------------ what is learned


@cache
def digits() -> datasets.Split:
    return datasets.load("digits")


def digits_for_training() -> datasets.ArrayDataset:
    return digits().train


@cache
def accuracy(wire: str, feedback: bool = True) -> float:
    """Of 60 steps on the built-in digits."""
    sgd = resolve_optimizer("sgd", 0.1, {})
    job = make_job(MLP, workers=2, shards=2, slots=2, steps=60, batch_size=32, optimizer=sgd, data=digits_for_training)
    with pytest.MonkeyPatch.context() as patch:
        if not feedback:
            patch.setattr(Outgoing, "accepted", lambda outgoing, shard: None)
        weights, _ = run_in_process(replace(job, wire=wire))
    model = mlp(SHAPE, CLASSES)
    model.load_state_dict(weights)
    test = digits().test
    inputs = torch.stack([test[index][0] for index in range(len(test))])
    targets = torch.tensor([int(test[index][1]) for index in range(len(test))])
    with torch.no_grad():
        return float((model(inputs).argmax(1) == targets).float().mean())


@pytest.mark.parametrize("wire", [*LOSSY, "topk:0.01"])
def test_digits_are_learned_nearly_as_well_as_with_float32(wire: str) -> None:
    assert accuracy("float32") > 0.91
    assert accuracy(wire) > accuracy("float32") - 0.02


def test_without_its_residual_top_k_misses_that_bar_by_far() -> None:
    assert accuracy("topk:0.01", feedback=False) < accuracy("float32") - 0.2


# ------------------------------------------------------------------ gradients that are not finite


@pytest.mark.parametrize("wire", ["float32", *LOSSY])
def test_a_step_with_an_infinite_gradient_is_none_whatever_the_wire(wire: str) -> None:
    spoilt = make_job(MLP, workers=2, shards=2, steps=1, loss=infinite_at((0, 1)))
    weights, records = run_in_process(replace(spoilt, wire=wire))
    assert accepted_by_step(records, 1) == {0: ()}
    assert sha256(weights) == sha256(tensors_of(first_model(MLP)))
    weights, records = run_in_process(replace(spoilt, rules=replace(spoilt.rules, steps=STEPS), wire=wire))
    assert accepted_by_step(records) == {**EVERY_SLOT, 0: ()}
    assert all(tensor.isfinite().all() for tensor in weights.values())


# ------------------------------------------------------------------ how it is asked for

trainer = partial(
    Trainer,
    model=MLP,
    optimizer=resolve_optimizer("sgd", 0.1, {}),
    train_data=images(),
    workers=2,
    shards=2,
    batch_size=10,
    steps=3,
    plane="memory",
    out=None,
    progress=False,
)

REFUSALS = {
    "int9": "got 'int9'; did you mean int8?",
    "bfloat": "got 'bfloat'; did you mean bfloat16?",
    "topk": "wire topk needs the fraction of values to send, such as topk:0.01, got 'topk'",
    "topk:many": "wire topk needs the fraction of values to send, such as topk:0.01, got 'topk:many'",
    "topk:2": "the fraction of wire topk must be > 0 and <= 1, got 2",
    "zip": "wire must be float32, bfloat16, float16, int8, onebit or topk:FRACTION, got 'zip'",
}


@wires
def test_the_trainer_takes_every_codec(wire: str) -> None:
    result = trainer(wire=wire).fit()
    assert result.figures["steps"] == 3


@pytest.mark.parametrize(("wire", "line"), REFUSALS.items(), ids=REFUSALS)
def test_the_trainer_refuses_what_is_none_in_one_line(wire: str, line: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(line)) as refused:
        trainer(wire=wire)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("wire", "line"), REFUSALS.items(), ids=REFUSALS)
def test_so_does_the_command_line(wire: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", "--plane", "memory", "--wire", wire, "--steps", "2", "--out", str(out)], {}) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert line in last
    assert not out.exists()


@pytest.mark.parametrize("wire", ["int8", "topk:0.05"])
def test_the_command_line_trains_with_it_and_the_log_says_so(
    wire: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["train", "--plane", "memory", "--wire", wire, "--steps", "4", "--json", "--out", str(out)]
    assert main(command, {}) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 4
    header = next(record for record in read(out / "run.jsonl") if isinstance(record, Header))
    assert header.settings["wire"] == wire


@pytest.mark.parametrize(
    ("wire", "most"), [("bfloat16", 0.51), ("float16", 0.51), ("int8", 0.27), ("topk:0.01", 0.03), ("onebit", 0.05)]
)
def test_a_push_takes_the_share_of_float32_that_it_promises(wire: str, most: float) -> None:
    layout = make_job(partial(mlp, (1, 28, 28), CLASSES)).layout
    (part,) = partition(layout, 1)
    assert WireFormat(layout, part, wire).sizes.push < most * WireFormat(layout, part, "float32").sizes.push
