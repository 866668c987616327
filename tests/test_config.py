import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from psgd.config import Job, OwnLoop, Placement, Straggler, Training
from psgd.core.modes import Rules, Sync
from psgd.durations import constant
from psgd.errors import ConfigurationError
from psgd.transport.flat import layout_of, tensors_of

TRAINING = Training(loss=torch.nn.functional.mse_loss, batch_size=4)


def make_job(**changes: Any) -> Job:
    model = torch.nn.Linear(64, 4)
    job = Job(
        rules=Rules(Sync(), slots=2, shards=2, steps=3),
        workers=1,
        layout=layout_of(tensors_of(model)),
        whole=False,
        model=lambda: model,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
        schedule=None,
        training=TRAINING,
        data=lambda: torch.utils.data.TensorDataset(torch.zeros(8, 64), torch.zeros(8, 4)),
    )
    return replace(job, **changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slot": -1}, "straggler slot must be >= 0, or None for every slot, got -1"),
        ({"slot": 0, "delay": constant(-0.5)}, "straggler delay must be >= 0 s, got -0.5"),
        (
            {"slot": 0, "delay": 0.5},
            r"straggler delay must be a duration, such as psgd.parse_duration\('50ms'\), got 0.5",
        ),
        ({"slot": 0, "factor": 0.5}, "straggler factor must be a finite number >= 1, got 0.5"),
        ({"slot": 0, "factor": math.nan}, "straggler factor must be a finite number >= 1, got nan"),
    ],
)
def test_a_straggler_can_only_be_slower(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        Straggler(**values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"accumulate": 0}, "accumulate must be >= 1, got 0"),
        ({"accumulate": 5}, r"accumulate must be <= batch_size \(4\), got 5"),
        ({"threads": 0}, "threads must be >= 1, got 0"),
        ({"precision": "fp16"}, "precision must be fp32 or bf16, got fp16"),
        ({"seed": -1}, r"seed must be in 0 … 2\*\*63 - 1, got -1"),
        ({"seed": 2**63}, r"seed must be in 0 … 2\*\*63 - 1, got 9223372036854775808"),
    ],
)
def test_training_names_field_rule_and_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        replace(TRAINING, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cpus_per_worker": -1}, "cpus_per_worker must be >= 0, got -1"),
        ({"gpus_per_worker": -1}, "gpus_per_worker must be >= 0, got -1"),
        ({"cpus_per_shard": -0.5}, "cpus_per_shard must be >= 0, got -0.5"),
        ({"gpus_per_shard": -0.5}, "gpus_per_shard must be >= 0, got -0.5"),
        ({"gpus_per_shard": 1.5}, "gpus_per_shard must be <= 1, as a shard uses one, got 1.5"),
        ({"strategy": "NEAR"}, "strategy must be PACK or SPREAD, got NEAR"),
        ({"max_failures": -2}, "max_failures must be >= -1, got -2"),
    ],
)
def test_placement_names_field_rule_and_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        Placement(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 0}, "workers must be >= 1, got 0"),
        ({"workers": 3}, r"workers must be <= slots \(2\), got 3"),
        ({"own_loop": OwnLoop(print)}, "an own loop runs one slot a worker: slots must be 1, got 2"),
        (
            {"training": replace(TRAINING, stragglers=(Straggler(2),))},
            r"straggler slot must be < slots \(2\), got 2",
        ),
        (
            {"training": replace(TRAINING, stragglers=(Straggler(0), Straggler(None), Straggler(0)))},
            "stragglers must name each slot once, and every slot once, got 0, every slot, 0",
        ),
        (
            {"training": replace(TRAINING, stragglers=(Straggler(None), Straggler(None)))},
            "stragglers must name each slot once, and every slot once, got every slot, every slot",
        ),
    ],
)
def test_a_job_is_refused_as_a_whole(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}$"):
        make_job(**change)


def test_a_jobs_parts_hold_the_layout_between_them() -> None:
    job = make_job()
    # 64 * 4 weights of 4 bytes, then 4 biases that take up a block of 256.
    assert job.layout.bytes == 1024 + 256
    assert [part.bytes for part in job.parts()] == [512, 768]
    assert [part.bytes for part in make_job(whole=True).parts()] == [1024, 256]
