"""``psgd bench scale``: how the step time and the shards' memory grow with workers, shards and parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from psgd.bench.case import StepCase
from psgd.bench.machine import facts
from psgd.bench.memory import MB, ShardMemory, watching
from psgd.bench.peers import trainer
from psgd.bench.processes import run_alone
from psgd.bench.times import StepTimes, spread

SAMPLED_EVERY_S = 0.5


def grow(series: Mapping[str, Sequence[StepCase]], tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure one series after another.

    Args:
        series: what is measured, by what grows in it.
        tell: takes a line about how far we are.

    Returns:
        By series, a point for each case. Each shard's memory is its peak in 10^6 bytes, to be compared with that of an
        idle one, which has next to nothing, in a run of as many processes; ``shard_growth_mb`` is what came on top
        in the last third of the run, which says something about long ones.

    Raises:
        PsgdError: if a measurement fails.
    """
    idle_mb: dict[tuple[int, int], float] = {}  # by workers and shards, which share the pages of torch's code
    points: dict[str, list[dict[str, Any]]] = {name: [] for name in series}
    for name, cases in series.items():
        for case in cases:
            processes = (case.workers, case.shards)
            if processes not in idle_mb:
                idle_mb[processes] = max(measure(replace(case, params=case.tensors, steps=1))[1].peaks_mb)
            times, memory = measure(case)
            points[name].append(_point(case, times, memory, idle_mb[processes]))
            tell(
                f"{name}: {case.workers} workers, {case.shards} shards, {case.params:,} parameters: "
                f"{times.median_ms:.3f} ms, {max(memory.peaks_mb):.1f} MB a shard"
            )
    return {"series": points, "machine": facts()}


def measure(case: StepCase) -> tuple[StepTimes, ShardMemory]:
    """Train in a fresh process."""
    measured: tuple[StepTimes, ShardMemory] = run_alone(partial(_train_watched, case))
    return measured


def _train_watched(case: StepCase) -> tuple[StepTimes, ShardMemory]:
    """Train in this process, which starts a Ray."""
    with watching(SAMPLED_EVERY_S) as memory:
        times = trainer.train(case)
    return times, memory


def _point(case: StepCase, times: StepTimes, memory: ShardMemory, idle_mb: float) -> dict[str, Any]:
    return {
        "params": case.params,
        "workers": case.workers,
        "shards": case.shards,
        "psgd_ms": times.median_ms,
        "p10_p90_ms": spread(times.durations_ms),
        "shard_pss_mb": memory.peaks_mb,
        "shard_growth_mb": memory.growth_mb,
        "idle_shard_pss_mb": idle_mb,
        "weights_mb": case.bytes / case.shards / MB,
    }
