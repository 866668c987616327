"""DistributedDataParallel on gloo, as torch's documentation recommends: gradients are views of the buckets."""

import os
import tempfile
from functools import partial

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from psgd.bench.case import StepCase, sgd, stamp_steps
from psgd.bench.processes import run_together
from psgd.bench.times import StepTimes

AVAILABLE = dist.is_available() and dist.is_gloo_available()


def run(case: StepCase) -> StepTimes:
    """One process a rank, which meet in a file; each has the whole optimizer."""
    with tempfile.TemporaryDirectory(prefix="psgd-bench-") as folder:
        ranks = [partial(_train, case, rank, f"file://{folder}/meeting") for rank in range(case.workers)]
        return StepTimes.of(run_together(ranks))


def _train(case: StepCase, rank: int, meeting: str) -> tuple[float, ...]:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # the host's name may stand for an address that is not up
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=case.workers)
    try:
        model = DistributedDataParallel(case.make_model(), gradient_as_bucket_view=True)
        optimizer = sgd(model.parameters())

        def step() -> None:
            optimizer.zero_grad()
            model().backward()
            optimizer.step()

        return stamp_steps(case.warmup, case.steps, step)
    finally:
        dist.destroy_process_group()
