import pytest
import torch

from psgd import inprocess
from psgd.core.modes import Sync
from psgd.transport.flat import tensors_of
from tests.jobs import CNN, first_model, make_job


@pytest.mark.gpu
def test_workers_on_a_gpu_come_to_the_weights_of_those_on_the_cpu() -> None:
    first = tensors_of(first_model(CNN))
    runs = [
        inprocess.run(make_job(CNN, Sync(), workers=2, shards=2, use_gpu=use_gpu), first, None, lambda _: None)
        for use_gpu in (False, True)
    ]
    for name, weight in runs[0].weights.items():
        torch.testing.assert_close(runs[1].weights[name], weight, rtol=1e-3, atol=1e-4)
