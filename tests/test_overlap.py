"""Gradients that leave while backward runs: whatever leaves when, the bits are those of one process."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from queue import SimpleQueue
from threading import Lock

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import psgd
from psgd.config import Job, ModelFactory, Plane
from psgd.core.layout import Span
from psgd.core.modes import Sync
from psgd.shard.lane import Lane
from psgd.transport.flat import sha256, tensors_of
from psgd.worker import outgoing
from tests.jobs import CLASSES, CNN, MLP, SLOTS, STEPS, accepted_by_step, first_model, images, make_job, plan_of
from tests.reference import train_reference
from tests.worker.own_loops import own_job, points, shards_of

EVERY_SLOT = dict.fromkeys(range(STEPS), tuple(range(SLOTS)))
PLANES: tuple[Plane, ...] = ("shm", "rpc")

planes = pytest.mark.parametrize("plane", PLANES)


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "BUCKET_BYTES", 256)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """By call, how many bytes a shard has averaged before the last push came."""
    noted: list[int] = []
    lock, prepare = Lock(), Lane.prepare

    def note(self: Lane, gradients: list[Tensor], ready: Span) -> None:
        with lock:
            noted.append(ready.bytes)
        prepare(self, gradients, ready)

    monkeypatch.setattr(Lane, "prepare", note)
    return noted


def run(job: Job, lanes: int = 1) -> str:
    with shards_of(job, tensors_of(first_model(job.model)), lanes) as shards:
        shards.train()
        assert accepted_by_step(shards.iterations) == EVERY_SLOT
        return sha256(shards.weights)


def reference(job: Job) -> str:
    return train_reference(
        first_model(job.model),
        images(),
        job.training.loss,
        job.optimizer,
        job.schedule,
        plan_of(job),
        EVERY_SLOT,
        job.training.accumulate,
    )


@cache
def reference_of(model: ModelFactory, accumulate: int = 1) -> str:
    return reference(make_job(model, accumulate=accumulate))


def overlapping(job: Job, plane: Plane, overlap: bool = True) -> Job:
    return replace(job, plane=plane, training=replace(job.training, overlap=overlap))


@planes
@pytest.mark.parametrize(("workers", "shards"), [(w, k) for w in (1, 2, 4) for k in (1, 2, 3)])
def test_overlap_has_the_bits_of_one_process(plane: Plane, workers: int, shards: int, prepared: list[int]) -> None:
    job = overlapping(make_job(MLP, workers=workers, shards=shards), plane)
    assert run(job) == reference_of(MLP)
    assert sum(prepared) > 0  # else this shows nothing


@planes
def test_without_overlap_nothing_is_prepared(plane: Plane, prepared: list[int]) -> None:
    assert run(overlapping(make_job(MLP, workers=2, shards=2), plane, overlap=False)) == reference_of(MLP)
    assert prepared == []


@planes
@pytest.mark.parametrize("bucket", [256, 5000, 20_000])
def test_any_size_of_buckets_has_them(plane: Plane, bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "BUCKET_BYTES", bucket)
    assert run(overlapping(make_job(CNN, workers=2, shards=2), plane)) == reference_of(CNN)


@pytest.mark.parametrize("lanes", [2, 3])
def test_any_number_of_lanes_has_them(lanes: int, prepared: list[int]) -> None:
    assert run(overlapping(make_job(MLP, workers=2), "shm"), lanes) == reference_of(MLP)
    assert sum(prepared) > 0


@planes
@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_leave_with_the_last_of_them(plane: Plane, accumulate: int, prepared: list[int]) -> None:
    job = overlapping(make_job(MLP, workers=2, shards=2, accumulate=accumulate), plane)
    assert run(job) == reference_of(MLP, accumulate)
    assert sum(prepared) > 0


# ------------------------------------------------------------------ gradients that change after they have left


class Checkpointed(nn.Module):
    """Uses one layer three times, twice within a checkpoint.

    With a reentrant one, backward adds to its gradient in three goes, and says so three times.
    """

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.full((64,), 0.5))
        self.shared = nn.Linear(64, 64)
        self.out = nn.Linear(64, CLASSES)
        self.reentrant = reentrant

    def forward(self, inputs: Tensor) -> Tensor:  # (B, 1, 8, 8) -> (B, CLASSES)
        hidden = inputs.flatten(1) + self.shift
        hidden = self._again(hidden)
        hidden = torch.tanh(self.shared(hidden))
        hidden = self._again(hidden)
        logits: Tensor = self.out(hidden)
        return logits

    def _again(self, hidden: Tensor) -> Tensor:
        again: Tensor = checkpoint(self._layer, hidden, use_reentrant=self.reentrant, preserve_rng_state=False)
        return again

    def _layer(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.shared(hidden))


REENTRANT: ModelFactory = partial(Checkpointed, True)
NON_REENTRANT: ModelFactory = partial(Checkpointed, False)


def test_a_reentrant_checkpoint_says_more_than_once_that_a_gradient_is_complete() -> None:
    for factory, times in ((REENTRANT, 3), (NON_REENTRANT, 1)):
        model, told = first_model(factory), SimpleQueue[Tensor]()
        model.get_parameter("shared.weight").register_post_accumulate_grad_hook(told.put)
        model(images().tensors[0][:2]).sum().backward()
        assert told.qsize() == times


@planes
@pytest.mark.parametrize("bucket", [256, 30_000])  # with the second, shared leaves when two of three goes are over
@pytest.mark.parametrize("model", [REENTRANT, NON_REENTRANT])
def test_activation_checkpointing_has_the_bits_of_one_process(
    plane: Plane, model: ModelFactory, bucket: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "BUCKET_BYTES", bucket)
    assert run(overlapping(make_job(model, workers=2), plane)) == reference_of(model)


Finish = Callable[[nn.Module, Tensor, Tensor], None]
"""What a loop does after its first backward pass."""


def nothing(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    pass


def clip(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.05)


def second_pass(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    nn.functional.cross_entropy(model(inputs * 2), targets).backward()


def third_pass_of_the_head(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    second_pass(model, inputs, targets)
    model.get_parameter("2.weight").square().sum().backward()


def replace_one(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    bias = model.get_parameter("0.bias")
    assert bias.grad is not None
    bias.grad = bias.grad * 3


def forget_one(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    model.get_parameter("0.bias").grad = None


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 2))


def own_weights(plane: Plane, overlap: bool, finish: Finish, slots: int = 2) -> str:
    def loop() -> None:
        model = two_layers()
        optimizer = psgd.DistributedOptimizer(model.named_parameters(), overlap=overlap)
        for inputs, targets in psgd.batches(points()):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            finish(model, inputs, targets)
            optimizer.step()

    with shards_of(own_job(loop, model=two_layers, slots=slots, steps=4, plane=plane)) as shards:
        shards.loops(*range(slots))
        return sha256(shards.weights)


@planes
@pytest.mark.parametrize("finish", [nothing, clip, second_pass, third_pass_of_the_head, replace_one, forget_one])
def test_whatever_an_own_loop_does_to_gradients_overlap_changes_no_bit(plane: Plane, finish: Finish) -> None:
    weights = own_weights(plane, True, finish)
    assert weights == own_weights("memory", False, finish)
    if finish is not nothing:
        assert weights != own_weights("memory", False, nothing)


def clip_data(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.data.clamp_(-0.01, 0.01)


def clip_noticed(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.clamp_(-0.01, 0.01)


@planes
def test_without_overlap_what_is_written_through_data_counts_and_with_it_torch_has_to_be_told(plane: Plane) -> None:
    weights = own_weights("memory", False, clip_noticed)
    assert own_weights(plane, False, clip_data) == weights
    assert own_weights(plane, True, clip_noticed) == weights != own_weights(plane, True, nothing)


def test_with_backups_overlap_has_the_bits_of_the_slots_that_were_accepted() -> None:
    """Nobody knows before which slots these are, so nothing is averaged early."""
    job = overlapping(make_job(MLP, Sync(backups=1), workers=2, shards=2), "shm")
    with shards_of(job, tensors_of(first_model(job.model))) as shards:
        shards.train()
        accepted = accepted_by_step(shards.iterations)
        weights = sha256(shards.weights)
    expected = train_reference(
        first_model(job.model), images(), job.training.loss, job.optimizer, None, plan_of(job), accepted
    )
    assert weights == expected
