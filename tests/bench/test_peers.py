"""Every peer really runs, on a model of a few thousand parameters; the figures themselves are the machine's."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch

from psgd.bench.case import StepCase, sgd
from psgd.bench.peers import PEERS, ray_server, torch_rpc, trainer
from psgd.config import ShardDevice

CASE = StepCase(params=3000, tensors=3, workers=2, shards=2, warmup=1, steps=4, trainer_options={"plane": "auto"})
EVERYBODY = {**PEERS, **{name: f"psgd.bench.peers.{name}" for name in ("trainer", "floor", "raw_grpc")}}
ON_RAY = {"ray", "trainer"}
RUNS = [pytest.param(name, marks=[pytest.mark.ray] if name in ON_RAY else []) for name in EVERYBODY]


@pytest.mark.parametrize("name", RUNS)
def test_a_peer_takes_the_steps_that_were_asked_for(name: str) -> None:
    times = import_module(EVERYBODY[name]).run(CASE)
    assert len(times.durations_ms) == 4
    assert min(times.durations_ms) > 0
    assert [len(ends) for ends in times.ends] == [5] * (1 if name == "ray" else 2)


@pytest.mark.ray
def test_psgd_takes_asynchronous_steps_too() -> None:
    case = StepCase(params=3000, tensors=3, workers=2, shards=1, warmup=1, steps=30, mode="async")
    assert import_module(EVERYBODY["trainer"]).run(case).ms_per_push > 0


def test_bare_grpc_moves_what_psgd_would() -> None:
    whole = CASE.payloads()
    assert sum(each.push for each in whole) == sum(each.pull for each in whole) == 3 * 1024 * 4  # in blocks of 64
    half = replace(CASE, trainer_options={"wire": "bfloat16"}).payloads()
    assert sum(each.push for each in half) < 0.6 * 3 * 1024 * 4
    assert len(whole) == len(half) == CASE.shards


@pytest.mark.parametrize(
    ("use_gpu", "shard_device", "gpus", "a_worker", "a_shard"),
    [
        (False, "cpu", 8, 0.0, 0.0),
        (True, "cpu", 8, 1.0, 0.0),
        (True, "cpu", 1, 0.5, 0.0),
        (True, "cuda", 1, 0.25, 0.25),
        (True, "cuda", 3, 0.5, 0.5),
        (True, "cuda", 4, 1.0, 1.0),
        (False, "cuda", 1, 0.0, 0.5),
        (True, "cuda", 0, 1.0, 1.0),
    ],
)
def test_psgds_processes_share_the_gpus_evenly(
    use_gpu: bool, shard_device: ShardDevice, gpus: int, a_worker: float, a_shard: float
) -> None:
    placement = trainer.placement(replace(CASE, use_gpu=use_gpu, shard_device=shard_device), gpus)
    assert (placement.gpus_per_worker, placement.gpus_per_shard) == (a_worker, a_shard)
    assert (placement.cpus_per_worker, placement.cpus_per_shard) == (0, 0)


def updated_by(*gradients: float) -> list[torch.Tensor]:
    """What the optimizer makes of the model with the mean of these gradients."""
    model = CASE.make_model()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, sum(gradients) / len(gradients))
    sgd(model.parameters()).step()
    return [parameter.detach() for parameter in model.parameters()]


def test_the_rpc_server_answers_everybody_after_the_last_gradient() -> None:
    server = torch_rpc.Server(CASE)
    answers = [server.take([torch.full((1000,), gradient) for _ in range(3)]) for gradient in (2.0, 4.0)]
    for answer in answers:
        assert all(map(torch.equal, answer.wait(), updated_by(2.0, 4.0)))
    assert not server.take([torch.zeros(1000) for _ in range(3)]).done()


def test_the_ray_server_updates_by_the_mean() -> None:
    server = ray_server.ParameterServer(CASE)
    gradients = [[np.full(1000, gradient, np.float32)] * 3 for gradient in (2.0, 4.0)]
    weights = server.apply_gradients(*gradients)
    assert all(map(torch.equal, weights.values(), updated_by(2.0, 4.0)))
    assert len(server.get_ends()) == 1
