"""The evaluator: the model on a snapshot, beside training, without stopping a worker."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from psgd.config import Job
from psgd.core.ids import Boundary
from psgd.data.batches import MapDataset
from psgd.errors import InternalError
from psgd.training.metrics import evaluate, prepare_evaluation
from psgd.transport.base import Connection
from psgd.transport.flat import allocate, tensors_of
from psgd.transport.state import read_state
from psgd.worker.build import build_model, device_for
from psgd.worker.replica import Replica

Value = TypeVar("Value")
EVALUATION_BATCH = 512


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What was measured on a snapshot.

    Args:
        versions: of the snapshot, indexed by shard.
        metrics: by name: ``test_loss``, ``test_accuracy``.
        arrays: metrics that are more than one number, as nested tuples: ``test_confusion_matrix``.
        seconds: of reading and measuring.
    """

    boundary: Boundary
    versions: tuple[int, ...]
    metrics: dict[str, float]
    arrays: dict[str, Any]
    seconds: float


class Evaluator:
    """Measures snapshots of a job on its evaluation data.

    Once it is made, its first evaluation takes no longer than the others: what is done once is no part of a run's time.
    """

    def __init__(self, job: Job, connections: Sequence[Connection]) -> None:
        if job.evaluation_data is None:
            raise InternalError("a job without evaluation data needs no evaluator")
        self._job = job
        self._connections = connections
        self._device = device_for(use_gpu=False)
        self._model = build_model(job, self._device).eval()
        self._dataset = cast(MapDataset, job.evaluation_data())
        tensors = tensors_of(self._model)
        # At the weights of the constructor: the replica's are zeros until a snapshot is read.
        prepare_evaluation(self._model, self._dataset, job.training.loss, self._device, job.training.metrics)
        self._replica = Replica(tensors, job.layout, self._device, allocate(job.layout.bytes))

    def evaluate(self, boundary: Boundary) -> Evaluated:
        """Read the boundary's snapshot, waiting for it if need be, and measure it."""
        began = time.perf_counter()
        job = self._job
        memory, versions = read_state(self._connections, job.layout, job.parts(), boundary, job.saves_measured)
        self._replica.memory.copy_(memory)
        self._replica.renew()
        training = job.training
        measured = evaluate(self._model, self._dataset, training.loss, EVALUATION_BATCH, self._device, training.metrics)
        metrics, arrays = _of_test(measured.scalars), _of_test(measured.arrays)
        return Evaluated(boundary, versions, metrics, arrays, time.perf_counter() - began)


def _of_test(measured: dict[str, Value]) -> dict[str, Value]:
    return {f"test_{name}": value for name, value in measured.items()}
