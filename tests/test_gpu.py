"""Whole runs whose workers or shards are on a GPU have the bits of a plain loop on the same hardware."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import psgd
from psgd import inprocess
from psgd.config import Job, OptimizerFactory, Placement, Plane, ShardDevice
from psgd.core.modes import Async, Sync
from psgd.training.optimizers import resolve_optimizer
from psgd.training.policies import Policies
from psgd.transport.flat import sha256, tensors_of
from tests.jobs import MLP, SEED, SGD, STEPS, NormAndDropout, first_model, images, keep_nothing, make_job, plan_of
from tests.plain_loop import train_plainly
from tests.reference import train_reference
from tests.worker.own_loops import shards_of

CPU = torch.device("cpu")
OPTIMIZERS: dict[str, OptimizerFactory] = {
    "sgd": SGD,
    "adam": resolve_optimizer("adam", 0.01, {}),
    "adagrad": resolve_optimizer("adagrad", 0.05, {}),
}
SLOTS = 3  # no power of two: then CUDA's division by a number is none


def device(name: str) -> torch.device:
    return torch.device("cuda", 0) if name == "cuda" else CPU


def job_on(compute: str, update: ShardDevice, optimizer: str, *, workers: int = 1, shards: int = 1) -> Job:
    job = make_job(
        MLP,
        workers=workers,
        shards=shards,
        slots=SLOTS,
        optimizer=OPTIMIZERS[optimizer],
        use_gpu=compute == "cuda",
    )
    return replace(job, shard_device=update)


def plainly(job: Job, compute: str, update: str) -> str:
    arguments = (first_model(job.model), images(), job.training.loss, job.optimizer, plan_of(job), STEPS)
    return sha256(train_plainly(*arguments, device(compute), device(update)))


def run(job: Job) -> dict[str, Tensor]:
    return inprocess.run(job, tensors_of(first_model(job.model)), Policies(), lambda record: None, keep_nothing).weights


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_plain_loop_is_the_one_that_the_cpu_is_held_to(optimizer: str) -> None:
    job = job_on("cpu", "cpu", optimizer)
    accepted = dict.fromkeys(range(STEPS), tuple(range(SLOTS)))
    model = first_model(job.model)
    expected = train_reference(model, images(), job.training.loss, job.optimizer, None, plan_of(job), accepted)
    assert plainly(job, "cpu", "cpu") == expected
    assert sha256(run(job)) == expected


DEVICES = [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")]


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("workers", "shards"), [(1, 1), (3, 2)])
@pytest.mark.parametrize(("compute", "update"), DEVICES)
def test_workers_and_shards_on_a_gpu_have_the_bits_of_a_plain_loop_there(
    compute: str, update: ShardDevice, workers: int, shards: int, optimizer: str
) -> None:
    job = job_on(compute, update, optimizer, workers=workers, shards=shards)
    assert sha256(run(job)) == plainly(job, compute, update)


@pytest.mark.gpu
@pytest.mark.parametrize("plane", ["shm", "rpc"])
@pytest.mark.parametrize(("compute", "update"), DEVICES)
def test_planes_between_processes_change_no_bit_on_a_gpu(compute: str, update: ShardDevice, plane: Plane) -> None:
    job = replace(job_on(compute, update, "adam", workers=3, shards=2), plane=plane)
    with shards_of(job, tensors_of(first_model(job.model))) as shards:
        shards.train()
        assert sha256(shards.weights) == plainly(job, compute, update)


@pytest.mark.gpu
@pytest.mark.parametrize("wire", ["bfloat16", "int8", "topk:0.1", "onebit"])
def test_what_a_wire_leaves_out_does_not_depend_on_the_plane(wire: str) -> None:
    job = replace(job_on("cuda", "cuda", "sgd", workers=3, shards=2), wire=wire)
    with shards_of(replace(job, plane="shm"), tensors_of(first_model(job.model))) as shards:
        shards.train()
        assert sha256(shards.weights) == sha256(run(job))


@pytest.mark.gpu
@pytest.mark.parametrize("mode", [Sync(backups=1), Async(), Async(2)])
@pytest.mark.parametrize(("compute", "update"), DEVICES)
def test_every_mode_runs_on_a_gpu(mode: psgd.Sync | psgd.Async, compute: str, update: ShardDevice) -> None:
    job = make_job(NormAndDropout, mode, workers=2, shards=2, accumulate=2, use_gpu=compute == "cuda")
    weights = run(replace(job, shard_device=update))
    assert all(weight.isfinite().all() for weight in weights.values())


@pytest.mark.gpu
def test_a_gpu_comes_close_to_the_cpu() -> None:
    on_cpu = run(job_on("cpu", "cpu", "sgd"))
    on_gpu = run(job_on("cuda", "cuda", "sgd"))
    for name, weight in on_cpu.items():
        torch.testing.assert_close(on_gpu[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.ray
def test_processes_that_ray_starts_share_a_gpu_and_change_no_bit() -> None:
    job = job_on("cuda", "cuda", "sgd", workers=2, shards=1)
    trainer = psgd.Trainer(
        model=MLP,
        optimizer=SGD,
        train_data=images(),
        loss=job.training.loss,
        workers=2,
        slots=SLOTS,
        batch_size=job.training.batch_size,
        steps=STEPS,
        seed=SEED,
        shard_device="cuda",
        placement=Placement(gpus_per_worker=0.25, gpus_per_shard=0.25),
        out=None,
        progress=False,
    )
    assert trainer.fit().figures["weights_sha256"] == plainly(job, "cuda", "cuda")
