"""``psgd bench step``: psgd and its peers in turn, round after round, and how they compare."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

from psgd.bench.case import UNCOMPRESSED, StepCase
from psgd.bench.machine import facts
from psgd.bench.peers import PEERS, floor, raw_grpc, trainer
from psgd.bench.times import StepTimes, ratio, spread


def compare(case: StepCase, peers: Sequence[str], rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure everybody once a round, so that what disturbs the machine disturbs all alike.

    Args:
        peers: names of `psgd.bench.peers.PEERS`; they take synchronous steps, whatever psgd's mode.
        tell: takes a line about how far we are.

    Returns:
        Medians over the rounds' medians in ms, and their ratios; None for what was not measured.

    Raises:
        PsgdError: if a measurement fails.
    """
    measures = _measures(case, peers, tell)
    measured: dict[str, list[StepTimes]] = {name: [] for name in measures}
    for number in range(1, rounds + 1):
        for name, measure in measures.items():
            times = measure()
            measured[name].append(times)
            tell(f"round {number} of {rounds}: {name:10} {times.median_ms:10.3f} ms")
    return summarize(case, measured)


def _measures(case: StepCase, peers: Sequence[str], tell: Callable[[str], None]) -> dict[str, Callable[[], StepTimes]]:
    """Who is measured, in which order: psgd first, as it refuses what can not be run."""
    synchronous = replace(case, mode="sync")
    measures = {"psgd": partial(trainer.run, synchronous)}
    if case.mode == "async":
        measures["psgd_async"] = partial(trainer.run, case)
    if case.trainer_options.get("wire", UNCOMPRESSED) != UNCOMPRESSED:
        plain = {**case.trainer_options, "wire": UNCOMPRESSED}
        measures["psgd_float32"] = partial(trainer.run, replace(synchronous, trainer_options=plain))
    measures["floor"] = partial(floor.run, synchronous)
    if case.trainer_options.get("plane") == "rpc":
        measures["raw"] = partial(raw_grpc.run, synchronous)
    for name in peers:
        peer = import_module(PEERS[name])
        if peer.AVAILABLE:
            measures[name] = partial(peer.run, synchronous)
        else:
            tell(f"this build of torch lacks what peer {name} needs: not measured")
    return {**measures}


def summarize(case: StepCase, measured: dict[str, list[StepTimes]]) -> dict[str, Any]:
    """The figures of all rounds.

    Args:
        measured: one `StepTimes` a round, by name.
    """
    medians = {name: statistics.median(times.median_ms for times in rounds) for name, rounds in measured.items()}
    ours, floor_ms, raw_ms = medians["psgd"], medians.get("floor"), medians.get("raw")
    plain_ms = medians.get("psgd_float32")
    least = None if raw_ms is None or floor_ms is None else raw_ms + floor_ms
    pushes = [times.ms_per_push for times in measured.get("psgd_async", [])]
    per_push = statistics.median(pushes) if pushes else None
    return {
        "params": case.params,
        "tensors": case.tensors,
        "workers": case.workers,
        "shards": case.shards,
        "mode": case.mode,
        "use_gpu": case.use_gpu,
        "shard_device": case.shard_device,
        **case.trainer_options,
        "psgd_ms": ours,
        "psgd_ms_per_push": per_push,
        "psgd_float32_ms": plain_ms,
        "floor_ms": floor_ms,
        "raw_ms": raw_ms,
        **{f"{name}_ms": medians.get(name) for name in PEERS},
        "ratio_push": ratio(per_push, ours),
        "ratio_float32": ratio(ours, plain_ms),
        "ratio_floor": ratio(ours, floor_ms),
        "ratio_raw": ratio(ours, least),
        **{f"ratio_{name}": ratio(ours, medians.get(name)) for name in PEERS},
        "rounds": len(measured["psgd"]),
        "steps": case.steps,
        "medians_ms": {name: [times.median_ms for times in rounds] for name, rounds in measured.items()},
        "p10_p90_ms": {
            name: spread([duration for times in rounds for duration in times.durations_ms])
            for name, rounds in measured.items()
        },
        "machine": facts(),
    }
