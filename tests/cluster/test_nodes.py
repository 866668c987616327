"""A run over several nodes, which Ray can make on one machine."""

import logging
import os
from collections.abc import Iterator

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from psgd import cluster, inprocess
from psgd.config import Placement
from psgd.core.modes import Sync
from psgd.errors import ResourceError
from psgd.runlog import Iteration, Record
from psgd.training.policies import Policies
from psgd.transport.flat import sha256, tensors_of
from tests.jobs import first_model, keep_nothing, make_job

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def two_nodes() -> Iterator[None]:
    """Each with room for two processes: none could take the whole run."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    nodes.add_node(num_cpus=2)
    ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
    nodes.shutdown()  # type: ignore[no-untyped-call]  # Ray's own omission
    os.environ.pop("RAY_AUTH_MODE", None)


def test_shards_and_spread_workers_lie_on_both_nodes_and_the_bits_are_the_same() -> None:
    nodes_of_groups: list[set[str]] = []

    def look(record: Record) -> None:
        if isinstance(record, Iteration) and not nodes_of_groups:
            tables = placement_group_table().values()
            nodes_of_groups.extend(set(t["bundles_to_node_id"].values()) for t in tables if t["state"] == "CREATED")

    job = make_job(mode=Sync(), workers=2, shards=2)
    first = tensors_of(first_model(job.model))
    outcome = cluster.run(job, Placement(strategy="SPREAD"), first, Policies(), look, keep_nothing)
    alone = inprocess.run(make_job(mode=Sync()), first, Policies(), look, keep_nothing)
    assert [len(nodes) for nodes in nodes_of_groups] == [2, 2]
    assert sha256(outcome.weights) == sha256(alone.weights)


def test_a_process_that_no_node_can_hold_is_refused_with_what_the_nodes_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psgd.cluster.places.PLACED_WITHIN_S", 1.0)
    job = make_job(mode=Sync(), workers=1, shards=1)
    first = tensors_of(first_model(job.model))
    with pytest.raises(ResourceError, match=r"no place for 1 workers of \{'CPU': 3.*its nodes have .*'CPU': 2.0"):
        cluster.run(job, Placement(cpus_per_worker=3), first, Policies(), lambda _: None, keep_nothing)
