"""The synchronous parameter server of Ray's documentation: actors, arrays in the object store, a loop in the driver."""

import logging
import signal
import sys
import time
from functools import partial
from typing import Any

import numpy as np
import ray
import torch

from psgd.bench.case import StepCase, sgd
from psgd.bench.processes import run_alone
from psgd.bench.times import StepTimes

AVAILABLE = True

Gradients = list["np.ndarray[Any, Any]"]
Weights = dict[str, torch.Tensor]


class ParameterServer:
    """Holds the weights, and notes when each update is done: the driver runs ahead of it."""

    def __init__(self, case: StepCase) -> None:
        torch.set_num_threads(1)
        self._model = case.make_model()
        self._optimizer = sgd(self._model.parameters())
        self._ends: list[float] = []

    def get_weights(self) -> Weights:
        """As they are now."""
        return self._model.state_dict()

    def apply_gradients(self, *gradients: Gradients) -> Weights:
        """Update by the mean over the workers."""
        means = [np.stack(of_workers).mean(axis=0) for of_workers in zip(*gradients, strict=True)]
        self._optimizer.zero_grad()
        for parameter, mean in zip(self._model.parameters(), means, strict=True):
            parameter.grad = torch.from_numpy(mean)
        self._optimizer.step()
        self._ends.append(time.perf_counter())
        return self.get_weights()

    def get_ends(self) -> list[float]:
        """When each update was done, in seconds of the machine's monotonic clock."""
        return self._ends


class Worker:
    """Computes gradients."""

    def __init__(self, case: StepCase) -> None:
        torch.set_num_threads(1)
        self._model = case.make_model()

    def compute_gradients(self, weights: Weights) -> Gradients:
        """Of the loss at these weights."""
        self._model.load_state_dict(weights)
        self._model.zero_grad()
        self._model().backward()
        return [parameter.grad.numpy() for parameter in self._model.parameters() if parameter.grad is not None]


def run(case: StepCase) -> StepTimes:
    """A driver in a fresh process, on a Ray of its own."""
    times: StepTimes = run_alone(partial(_drive, case))
    return times


def _drive(case: StepCase) -> StepTimes:
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # Ray's processes end with us
    try:
        ray.init(
            address="local",
            num_cpus=case.workers + 1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        server: Any = ray.remote(ParameterServer).remote(case)
        worker_class: Any = ray.remote(Worker)
        workers = [worker_class.remote(case) for _ in range(case.workers)]
        weights = server.get_weights.remote()
        for _ in range(case.warmup + 1 + case.steps):
            gradients = [worker.compute_gradients.remote(weights) for worker in workers]
            weights = server.apply_gradients.remote(*gradients)
        ray.wait([weights], fetch_local=False)
        return StepTimes.of([ray.get(server.get_ends.remote())[case.warmup :]])
    finally:
        ray.shutdown()
