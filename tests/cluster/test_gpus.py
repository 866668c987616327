"""Ray gives GPUs out, but only torch can say whether it can use them: here Ray is told of some that are not there."""

from collections.abc import Iterator

import pytest
import ray
import torch

import psgd
from psgd.config import Placement
from psgd.errors import ResourceError
from tests.jobs import MLP, SGD, images

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    if torch.cuda.is_available():
        pytest.skip("GPUs are there")
    ray.init(address="local", num_cpus=8, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def fit(**options: object) -> None:
    psgd.Trainer(
        model=MLP,
        optimizer=SGD,
        train_data=images(),
        workers=2,
        shards=2,
        steps=2,
        out=None,
        progress=False,
        **options,  # type: ignore[arg-type]
    ).fit()


@pytest.mark.usefixtures("two_gpus")
def test_a_shard_whose_torch_has_no_gpu_is_refused_in_one_line() -> None:
    with pytest.raises(ResourceError, match=r"^shard_device cuda needs a GPU that torch can use, torch .* cpu$"):
        fit(shard_device="cuda")


@pytest.mark.usefixtures("two_gpus")
def test_a_worker_whose_torch_has_no_gpu_is_refused_in_one_line() -> None:
    with pytest.raises(ResourceError, match=r"^use_gpu needs a GPU that torch can use, torch .* leave use_gpu off$"):
        fit(placement=Placement(gpus_per_worker=1))


@pytest.mark.usefixtures("two_gpus")
def test_more_than_ray_has_is_refused_before_anything_starts() -> None:
    with pytest.raises(
        ResourceError, match=r"^workers need 2 GPUs \(2 × 1\) and shards need 0\.5 GPUs .* has 2: leave use_gpu off, or"
    ):
        fit(placement=Placement(gpus_per_worker=1), shard_device="cuda")
