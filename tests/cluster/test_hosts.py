"""What runs inside the actors, without them."""

from dataclasses import replace
from typing import Any

import pytest

from psgd.cluster.hosts import EvaluatorHost
from psgd.config import Plane
from psgd.core.ids import Boundary
from psgd.training.metrics import evaluate
from psgd.transport.flat import tensors_of
from psgd.worker.evaluator import EVALUATION_BATCH
from tests.jobs import MLP, first_model, images, make_job
from tests.worker.own_loops import KEY, shards_of

NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize(("plane", "closed"), [("auto", {"rpc": NOBODY}), ("rpc", {})])
def test_the_evaluator_reads_snapshots_through_the_best_door_that_is_open(plane: Plane, closed: dict[str, Any]) -> None:
    job = replace(make_job(MLP, shards=2, evaluation_data=images), plane=plane)
    model = first_model(MLP)
    expected = evaluate(model.eval(), images(), job.training.loss, EVALUATION_BATCH, next(model.parameters()).device)
    with shards_of(job, tensors_of(model)) as shards:
        host = EvaluatorHost(job, KEY)
        host.open([replace(address, **closed) for address in shards.addresses])
        evaluated = host.evaluate(Boundary(0))
        for connection in host._evaluator._connections:
            connection.close()
    assert (evaluated.boundary, evaluated.versions) == (0, (0, 0))
    assert evaluated.metrics == {f"test_{name}": value for name, value in expected.scalars.items()}
