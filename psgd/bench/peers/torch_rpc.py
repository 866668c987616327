"""A parameter server on torch.distributed.rpc (TensorPipe), as torch's tutorial on batch RPC processing builds it.

Each worker sends its gradients in one call, whose answer is the new parameters. The server answers all at once, when
the last one has come (``async_execution``), and blocks no thread until then.
"""

import os
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.distributed import rpc
from torch.futures import Future

from psgd.bench.case import StepCase, sgd, stamp_steps
from psgd.bench.processes import run_together
from psgd.bench.times import StepTimes

AVAILABLE = rpc.is_available()

Parameters = list[Tensor]

SERVER = "server"


class Server:
    """The parameters and their optimizer; one a process, where `push_and_pull` finds it."""

    of_this_process: "Server"

    def __init__(self, case: StepCase) -> None:
        self._model = case.make_model()
        self._optimizer = sgd(self._model.parameters())
        self._workers = case.workers
        self._lock = threading.Lock()
        self._arrived = 0
        self._updated: Future[Parameters] = Future()

    def take(self, gradients: Sequence[Tensor]) -> "Future[Parameters]":
        """Add a worker's gradients; the last one's lead to the update and to everybody's answer."""
        torch.set_num_threads(1)  # of this thread of the server
        parameters = list(self._model.parameters())
        with self._lock:
            updated = self._updated
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            self._arrived += 1
            if self._arrived == self._workers:
                for parameter in parameters:
                    assert parameter.grad is not None
                    parameter.grad /= self._workers
                self._optimizer.step()
                self._optimizer.zero_grad()
                self._arrived, self._updated = 0, Future()
                updated.set_result([parameter.detach() for parameter in parameters])
        return updated


@rpc.functions.async_execution  # type: ignore[untyped-decorator]  # torch's own omission
def push_and_pull(gradients: Sequence[Tensor]) -> "Future[Parameters]":
    """Called by the workers, run in the server's process."""
    return Server.of_this_process.take(gradients)


def run(case: StepCase) -> StepTimes:
    """One process for the server and one a worker, which meet in a file."""
    with tempfile.TemporaryDirectory(prefix="psgd-bench-") as folder:
        meeting = f"file://{folder}/meeting"
        workers = [partial(_train, case, rank, meeting) for rank in range(1, case.workers + 1)]
        return StepTimes.of(run_together([partial(_serve, case, meeting), *workers])[1:])


def _serve(case: StepCase, meeting: str) -> None:
    Server.of_this_process = Server(case)
    with _member(SERVER, 0, case, meeting):
        """Leaving waits for everybody."""


def _train(case: StepCase, rank: int, meeting: str) -> tuple[float, ...]:
    model = case.make_model()
    with _member(f"worker{rank}", rank, case, meeting):

        def step() -> None:
            model.zero_grad()
            model().backward()
            gradients = [parameter.grad for parameter in model.parameters()]
            updated = rpc.rpc_sync(SERVER, push_and_pull, args=(gradients,))
            for parameter, weights in zip(model.parameters(), updated, strict=True):
                parameter.data = weights

        return stamp_steps(case.warmup, case.steps, step)


@contextmanager
def _member(name: str, rank: int, case: StepCase, meeting: str) -> Iterator[None]:
    os.environ["TP_SOCKET_IFNAME"] = "lo"  # the host's name may stand for an address that is not up
    warnings.filterwarnings("ignore", "You are using a Backend")  # torch's rpc about torch's process groups
    options = rpc.TensorPipeRpcBackendOptions(init_method=meeting)
    rpc.init_rpc(name, rank=rank, world_size=case.workers + 1, rpc_backend_options=options)
    yield
    rpc.shutdown()
