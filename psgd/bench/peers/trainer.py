"""Psgd itself, through its public interface: a training loop of one's own on a Ray that the run starts for itself."""

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

import psgd
from psgd.bench.case import StepCase, sgd, stamp_steps
from psgd.bench.processes import run_alone
from psgd.bench.times import StepTimes


def placement(case: StepCase, gpus: int) -> psgd.Placement:
    """No CPU is reserved: more processes than cores is what some measurements are about. GPUs are shared evenly.

    Args:
        gpus: of the machine; without any, a run that wants some is refused.
    """
    on_gpus = case.workers * case.use_gpu + case.shards * (case.shard_device == "cuda")
    a_gpu = -(-on_gpus // max(gpus, 1))  # processes that share one: Ray cuts no share from two
    share = 1000 // a_gpu / 1000 if on_gpus and gpus else float(on_gpus > 0)
    return psgd.Placement(
        cpus_per_worker=0,
        cpus_per_shard=0,
        gpus_per_worker=share if case.use_gpu else 0.0,
        gpus_per_shard=share if case.shard_device == "cuda" else 0.0,
    )


def run(case: StepCase) -> StepTimes:
    """Train in a fresh process."""
    times: StepTimes = run_alone(partial(train, case))
    return times


def train(case: StepCase) -> StepTimes:
    """Train in this process, which starts a Ray."""
    with tempfile.TemporaryDirectory(prefix="psgd-bench-") as folder:
        trainer = psgd.Trainer(
            model=case.make_model,
            optimizer=sgd,
            train_loop=train_loop,
            train_loop_config={"case": case, "folder": folder},
            mode=psgd.Sync() if case.mode == "sync" else psgd.Async(),
            workers=case.workers,
            shards=case.shards,
            shard_device=case.shard_device,
            placement=placement(case, torch.cuda.device_count()),
            out=None,
            progress=False,
            **case.trainer_options,
        )
        reported = trainer.fit().reported
    return StepTimes.of(reported[reported["slot"] == slot]["end_s"] for slot in range(case.workers))


def train_loop(config: dict[str, Any]) -> None:
    """What a user would write; the figures are reported after the last step."""
    case: StepCase = config["case"]
    model = case.make_model("cuda" if case.use_gpu else "cpu")
    optimizer = psgd.DistributedOptimizer(model.named_parameters())

    def step() -> None:
        optimizer.zero_grad()
        model().backward()
        optimizer.step()

    _meet(Path(config["folder"]), case.workers)
    for end in stamp_steps(case.warmup, case.steps, step):
        psgd.report(end_s=end)


def _meet(folder: Path, everybody: int) -> None:
    """Wait for the other workers: without a barrier, one might be done before another has begun."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < everybody:
        time.sleep(0.001)
