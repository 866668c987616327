"""Clipping across shards: beside torch on one process, in both modes; the same bits for any number of shards."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from psgd.config import Clip, Job, ModelFactory
from psgd.core.messages import Status
from psgd.core.modes import Async, Mode, Sync
from psgd.training.optimizers import resolve_optimizer
from psgd.transport.flat import views
from psgd.transport.state import read_state
from tests.jobs import MLP, NormAndDropout, Parties, accepted_by_step, first_model, images, make_job, plan_of
from tests.reference import train_reference


class Embedded(nn.Module):
    """Large enough for blocks of more than 64 elements, and cut inside them by two and by three shards."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 700)
        self.second = nn.Linear(700, 10)

    def forward(self, inputs: Tensor) -> Tensor:  # (B, 1, 8, 8) -> (B, 10)
        logits: Tensor = self.second(torch.relu(self.first(inputs.flatten(1))))
        return logits


MODELS: dict[str, ModelFactory] = {"mlp": MLP, "norm": NormAndDropout, "embedded": Embedded}


def clip_each_tensor(parameters: Sequence[Tensor], limit: float) -> None:
    for parameter in parameters:
        clip_grad_norm_([parameter], limit)


Torch = Callable[[Sequence[Tensor]], object]
CLIPS: dict[str, tuple[Clip, Torch]] = {
    "norm": (Clip(norm=0.5), partial(clip_grad_norm_, max_norm=0.5)),
    "a norm that is never reached": (Clip(norm=1e6), partial(clip_grad_norm_, max_norm=1e6)),
    "value": (Clip(value=0.01), partial(clip_grad_value_, clip_value=0.01)),
    "tensor_norm": (Clip(tensor_norm=0.1), partial(clip_each_tensor, limit=0.1)),
}


def make(model: str, clip: Clip, mode: Mode, shards: int = 1, workers: int = 1, slots: int = 4) -> Job:
    whole = clip.tensor_norm is not None
    return make_job(
        MODELS[model],
        mode,
        shards=shards,
        workers=workers,
        slots=slots,
        clip=clip,
        whole=whole,
        optimizer=resolve_optimizer("sgd", 0.1, {"momentum": 0.9, "foreach": False, "fused": False}),
    )


def trained(job: Job) -> tuple[dict[str, Tensor], Parties]:
    parties = Parties(job)
    parties.run_in_random_order(seed=0)
    memory, _ = read_state(parties.connections, job.layout, job.parts(), boundary=0)  # type: ignore[arg-type]
    return views(memory, job.layout), parties


@cache
def reference(model: str, clip: str, slots: int) -> dict[str, Tensor]:
    job = make(model, Clip(norm=1.0), Sync(), slots=slots)
    trained = first_model(MODELS[model])
    limit = CLIPS[clip][1]
    accepted = dict.fromkeys(range(job.rules.steps or 0), tuple(range(slots)))
    train_reference(trained, images(), job.training.loss, job.optimizer, None, plan_of(job), accepted, clip=limit)
    return trained.state_dict()


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("model", MODELS)
def test_the_mean_is_clipped_as_torch_clips_on_one_process(model: str, clip: str, shards: int) -> None:
    weights, _ = trained(make(model, CLIPS[clip][0], Sync(), shards))
    for name, expected in reference(model, clip, slots=4).items():
        torch.testing.assert_close(weights[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", ["norm", "value", "tensor_norm"])
@pytest.mark.parametrize("model", MODELS)
def test_the_limits_of_these_tests_bind(model: str, clip: str) -> None:
    clipped, free = reference(model, clip, slots=4), reference(model, "a norm that is never reached", slots=4)
    name = next(iter(clipped))
    assert (clipped[name] - free[name]).abs().max() > 1e-3


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("clip", CLIPS)
def test_on_arrival_the_pushed_gradient_is_clipped(clip: str, shards: int) -> None:
    weights, _ = trained(make("norm", CLIPS[clip][0], Async(), shards, slots=1))
    for name, expected in reference("norm", clip, slots=1).items():
        torch.testing.assert_close(weights[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("model", MODELS)
def test_the_bits_depend_neither_on_shards_nor_on_workers(model: str, clip: str) -> None:
    hashes = set()
    for shards, workers in ((1, 1), (2, 1), (3, 2), (2, 4)):
        parties = Parties(make(model, CLIPS[clip][0], Sync(), shards, workers))
        parties.run_in_random_order(seed=shards)
        hashes.add(parties.weights_sha256())
    assert len(hashes) == 1


@pytest.mark.parametrize("mode", [Sync(), Async(2)], ids=str)
def test_the_receipt_says_what_the_gradient_was_multiplied_by(mode: Mode) -> None:
    scales = []
    for shards in (1, 3):
        _, parties = trained(make("mlp", Clip(norm=0.5), mode, shards))
        assert all(0 < record.clip_scale < 1 for record in parties.records)
        scales.append([(record.slot, record.step, record.clip_scale) for record in parties.records])
    assert len(set(scales[0])) == len(scales[0])
    if isinstance(mode, Sync):  # on arrival, the order in which slots came is not the same
        assert sorted(scales[0]) == sorted(scales[1])
    _, unclipped = trained(make("mlp", Clip(norm=1e6), mode))
    assert {record.clip_scale for record in unclipped.records} == {1.0}


def test_with_backups_the_mean_of_the_accepted_ones_is_clipped() -> None:
    job = make("mlp", Clip(norm=0.5), Sync(backups=1), shards=2, workers=4)
    weights, parties = trained(job)
    expected = first_model(MLP)
    accepted = accepted_by_step(parties.records)
    assert {len(slots) for slots in accepted.values()} == {3}
    limit = partial(clip_grad_norm_, max_norm=0.5)
    train_reference(expected, images(), job.training.loss, job.optimizer, None, plan_of(job), accepted, clip=limit)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-5, atol=1e-6)


def overflowing(outputs: Tensor, targets: Tensor) -> Tensor:
    """Every slot's gradient is finite, their sum is not."""
    return nn.functional.cross_entropy(outputs, targets) * 0 + outputs.sum() * 2e37


def test_a_mean_that_overflows_updates_no_shard() -> None:
    job = make("mlp", Clip(norm=1.0), Sync(), shards=2)
    job = replace(job, training=replace(job.training, loss=overflowing))
    weights, parties = trained(job)
    assert {record.status for record in parties.records} == {Status.NONFINITE}
    for name, tensor in first_model(MLP).state_dict().items():
        assert torch.equal(weights[name], tensor)
    figures = [parties.figures(shard) for shard in (0, 1)]
    assert [(f.version, f.nonfinite) for f in figures] == [(0, 20), (0, 20)]
