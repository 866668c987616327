from collections.abc import Callable
from typing import Any

import pytest

from psgd.bench import scale
from psgd.bench.case import StepCase
from psgd.bench.memory import ShardMemory
from psgd.bench.scale import grow, measure
from psgd.bench.times import StepTimes

BASE = StepCase(params=2_000_000, tensors=10, workers=2, shards=2, warmup=0, steps=5)


def test_each_point_stands_beside_an_idle_shard_of_as_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[int, int, int]] = []

    def stand_in(call: Callable[[], Any]) -> Any:
        case: StepCase = call.args[0]  # type: ignore[attr-defined]  # a partial
        measured.append((case.params, case.workers, case.shards))
        return StepTimes.of([(0.0, 0.5)]), ShardMemory({shard: [case.params / 1e6] for shard in range(case.shards)})

    monkeypatch.setattr(scale, "run_alone", stand_in)
    figures = grow({"params": [BASE, StepCase(4_000_000, 10, 2, 2, 0, 5)]}, lambda line: None)
    assert measured == [(10, 2, 2), (2_000_000, 2, 2), (4_000_000, 2, 2)]
    first, second = figures["series"]["params"]
    assert first == {
        "params": 2_000_000,
        "workers": 2,
        "shards": 2,
        "psgd_ms": 500.0,
        "p10_p90_ms": (500.0, 500.0),
        "shard_pss_mb": [2.0, 2.0],
        "shard_growth_mb": [0.0, 0.0],
        "idle_shard_pss_mb": 1e-5,
        "weights_mb": 4.0,
    }
    assert second["shard_pss_mb"] == [4.0, 4.0]


@pytest.mark.ray
def test_the_shards_of_a_real_run_are_found() -> None:
    _, memory = measure(StepCase(1000, 10, 1, 2, 0, 300))
    assert len(memory.peaks_mb) == 2
    assert min(memory.peaks_mb) > 20
