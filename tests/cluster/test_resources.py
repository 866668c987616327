import pytest

from psgd.cluster.resources import Need, check
from psgd.config import Placement
from psgd.errors import ResourceError


def test_enough_is_silent() -> None:
    check(Need(2, 2, Placement()), {"CPU": 4.0}, "the cluster")


def test_too_few_cpus_says_need_have_and_remedy() -> None:
    with pytest.raises(ResourceError) as caught:
        check(Need(3, 2, Placement(cpus_per_worker=2)), {"CPU": 7.0}, "the cluster")
    assert str(caught.value) == (
        "the run needs 8 CPUs (3 workers × 2 + 2 shards × 1), the cluster has 7: "
        "use fewer workers or shards, or lower cpus_per_worker"
    )


def test_too_few_gpus_says_need_have_and_remedy() -> None:
    with pytest.raises(ResourceError) as caught:
        check(Need(2, 1, Placement(gpus_per_worker=1)), {"CPU": 16.0}, "this machine")
    assert str(caught.value) == ("workers need 2 GPUs (2 × 1), this machine has 0: leave use_gpu off")


def test_shards_on_gpus_say_need_have_and_remedy() -> None:
    with pytest.raises(ResourceError) as caught:
        check(Need(2, 2, Placement(gpus_per_shard=0.25)), {"CPU": 16.0, "GPU": 0.25}, "the cluster")
    assert str(caught.value) == (
        "shards need 0.5 GPUs (2 × 0.25), the cluster has 0.25: "
        "use shard_device cpu, or use fewer shards, or a smaller gpus_per_shard"
    )


def test_workers_and_shards_share_gpus() -> None:
    need = Need(2, 2, Placement(gpus_per_worker=0.5, gpus_per_shard=0.25))
    check(need, {"CPU": 16.0, "GPU": 1.5}, "this machine")
    with pytest.raises(ResourceError) as caught:
        check(need, {"CPU": 16.0, "GPU": 1.0}, "this machine")
    assert str(caught.value) == (
        "workers need 1 GPUs (2 × 0.5) and shards need 0.5 GPUs (2 × 0.25), this machine has 1: "
        "leave use_gpu off, or use shard_device cpu, or use fewer workers, or a smaller gpus_per_worker, "
        "or use fewer shards, or a smaller gpus_per_shard"
    )


def test_fractions_of_a_cpu_add_up() -> None:
    check(Need(4, 1, Placement(cpus_per_worker=0.25)), {"CPU": 2.0}, "the cluster")


def test_each_process_reserves_a_bundle_the_shards_first() -> None:
    need = Need(2, 1, Placement(cpus_per_worker=0.5, gpus_per_worker=0.25))
    assert need.bundles == [{"CPU": 1.0}, *([{"CPU": 0.5, "GPU": 0.25}] * 2)]


def test_a_process_that_costs_nothing_marks_its_place() -> None:
    assert Need(1, 0, Placement(cpus_per_worker=0)).bundles == [{"CPU": 0.001}]
