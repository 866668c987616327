from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from psgd.config import Placement
from psgd.errors import ConfigurationError
from psgd.raytrain import RunSettings, read_run, read_scaling


@dataclass
class Scaling:
    """As Ray Train's, whose import needs packages that psgd does not."""

    num_workers: Any = 1
    use_gpu: bool = False
    resources_per_worker: dict[str, float] | None = None
    placement_strategy: str = "PACK"
    accelerator_type: str | None = None
    label_selector: Any = None
    elastic_resize_monitor_interval_s: float = 60.0


@dataclass
class Failures:
    max_failures: int = 0
    max_preemption_failures: int = -1


@dataclass
class Checkpoints:
    num_to_keep: int | None = None


@dataclass
class Run:
    name: str | None = None
    storage_path: str | None = None
    failure_config: Failures | None = None
    checkpoint_config: Checkpoints | None = None
    callbacks: list[Any] | None = None
    worker_runtime_env: dict[str, Any] | None = None
    verbose: str = "DEPRECATED"


@dataclass
class FilledRun(Run):
    """As Ray fills in what was left out."""

    name: str | None = "fruits"
    storage_path: str | None = "/results"
    failure_config: Failures | None = field(default_factory=Failures)
    checkpoint_config: Checkpoints | None = field(default_factory=Checkpoints)
    callbacks: list[Any] | None = field(default_factory=list)
    worker_runtime_env: dict[str, Any] | None = field(default_factory=dict)


@pytest.mark.parametrize(
    ("scaling", "workers", "placement"),
    [
        (Scaling(), 1, Placement(cpus_per_worker=1)),
        (Scaling(num_workers=3, placement_strategy="SPREAD"), 3, Placement(cpus_per_worker=1, strategy="SPREAD")),
        (Scaling(resources_per_worker={"CPU": 2}), 1, Placement(cpus_per_worker=2)),
        (Scaling(use_gpu=True), 1, Placement(cpus_per_worker=0, gpus_per_worker=1)),
        (
            Scaling(use_gpu=True, resources_per_worker={"CPU": 4}),
            1,
            Placement(cpus_per_worker=4, gpus_per_worker=1),
        ),
        (SimpleNamespace(num_workers=2), 2, Placement(cpus_per_worker=1)),
    ],
)
def test_a_scaling_config_says_how_many_workers_need_what(scaling: Any, workers: int, placement: Placement) -> None:
    assert read_scaling(scaling) == (workers, placement)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        (Scaling(num_workers=(1, 4)), "scaling_config: num_workers must be an integer, got (1, 4)"),
        (object(), "scaling_config: num_workers must be an integer, got None"),
        (
            Scaling(resources_per_worker={"CPU": 1, "memory": 1e9}),
            "scaling_config: resources_per_worker may hold CPU and GPU, got memory",
        ),
        (Scaling(accelerator_type="A100"), "scaling_config: psgd has no accelerator_type, got 'A100'; leave it out"),
        (
            Scaling(elastic_resize_monitor_interval_s=1.0),
            "scaling_config: psgd has no elastic_resize_monitor_interval_s, got 1.0; leave it out",
        ),
        (Scaling(placement_strategy="NEAR"), "strategy must be PACK or SPREAD, got NEAR"),
    ],
)
def test_what_psgd_can_not_scale_is_refused(scaling: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_scaling(scaling)
    assert str(caught.value) == message


def test_a_run_config_says_where_the_run_goes_and_what_it_survives() -> None:
    assert read_run(FilledRun()) == RunSettings(Path("/results/fruits"), max_failures=0)
    assert read_run(FilledRun(failure_config=Failures(max_failures=-1))).max_failures == -1
    assert read_run(FilledRun(storage_path="~/results")).out == Path.home() / "results" / "fruits"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "run_config: name and storage_path must be given, got None and '/results'"),
        (
            {"storage_path": "s3://bucket/results"},
            "run_config: storage_path must be a local folder, got s3://bucket/results; copy it afterwards",
        ),
        ({"callbacks": ["told"]}, "run_config: psgd has no callbacks, got ['told']; leave it out"),
        (
            {"checkpoint_config": Checkpoints(num_to_keep=2)},
            "run_config: psgd has no checkpoint_config, got Checkpoints(num_to_keep=2); leave it out",
        ),
        (
            {"failure_config": Failures(max_preemption_failures=1)},
            "run_config: failure_config: psgd has no max_preemption_failures, got 1; leave it out",
        ),
    ],
)
def test_what_psgd_can_not_do_in_a_run_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_run(replace(FilledRun(), **change))
    assert str(caught.value) == message


def test_ray_trains_own_classes_are_understood() -> None:
    pytest.importorskip("pyarrow", reason="needs what ray[train] installs")
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    scaling = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}, placement_strategy="SPREAD")
    assert read_scaling(scaling) == (2, Placement(cpus_per_worker=0.5, strategy="SPREAD"))
    run = RunConfig(name="fruits", storage_path="/results", failure_config=FailureConfig(max_failures=2))
    assert read_run(run) == RunSettings(Path("/results/fruits"), max_failures=2)
