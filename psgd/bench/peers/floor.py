"""What no data-parallel step can beat by much: the computation without communication, and one pass over memory."""

from dataclasses import replace
from functools import partial
from multiprocessing.synchronize import Barrier

import torch

from psgd.bench.case import StepCase, sgd, stamp_steps
from psgd.bench.processes import barrier, run_alone, run_together
from psgd.bench.times import StepTimes
from psgd.shard.mean import average_at_once, average_in_chunks


def run(case: StepCase) -> StepTimes:
    """Forward and backward in as many processes as there are workers; then, in one, mean and update of a step.

    Both sums into a step's duration: nobody updates while somebody computes, as in a synchronous step.
    """
    start = barrier(case.workers)
    computing = StepTimes.of(run_together([partial(_compute, case, start, number) for number in range(case.workers)]))
    updating = StepTimes.of([run_alone(partial(_update, case))])
    each = tuple(duration + updating.median_ms for duration in computing.durations_ms)
    return replace(computing, durations_ms=each)


def _compute(case: StepCase, start: Barrier, number: int) -> tuple[float, ...]:
    device = f"cuda:{number % torch.cuda.device_count()}" if case.use_gpu else "cpu"
    model = case.make_model(device)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model().backward()
        _wait_for(device)

    start.wait()
    return stamp_steps(case.warmup, case.steps, step)


def _update(case: StepCase) -> tuple[float, ...]:
    model = case.make_model(case.shard_device)
    parameters = list(model.parameters())
    gradients = [[torch.rand_like(parameter) for parameter in parameters] for _ in range(case.workers)]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    optimizer = sgd(parameters)
    average = average_in_chunks if case.shard_device == "cpu" else average_at_once

    def step() -> None:
        for parameter, *of_workers in zip(parameters, *gradients, strict=True):
            assert parameter.grad is not None
            if case.workers == 1:
                parameter.grad.copy_(of_workers[0])
            else:
                average(of_workers, parameter.grad)
        optimizer.step()
        _wait_for(case.shard_device)

    return stamp_steps(case.warmup, case.steps, step)


def _wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
