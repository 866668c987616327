import os

import torch

from psgd.bench.machine import facts


def test_figures_name_the_machine_and_the_versions() -> None:
    found = facts()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["torch"] == torch.__version__
    assert found["cpu"]
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert found["memory_gb"] > 0
