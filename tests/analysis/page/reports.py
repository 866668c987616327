"""Reports and logs of comparisons that nobody has made, for tests of the page, and to look at it.

``python -m tests.analysis.page.reports FOLDER`` writes the pages there, one a kind.
"""

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from psgd.analysis.page import write_page
from psgd.analysis.page.plots import Runs
from psgd.analysis.run_figures import RunFigures, read_run
from psgd.runlog import FILE_NAME, Evaluation, Footer, Header, Iteration, Record, encode

TARGET = 0.85
BATCH = 32
MODES = ("sync", "sync+1", "async:2", "async", "async:4/softsync=4/lag-lr")
PUSH_BYTES = 2 * 407_080


def iterations(
    mode: str, seed: int, steps: int, slots: int = 4, slow: float = 3.0, losses: bool = True
) -> list[Iteration]:
    """What slots would do whose compute times are log-normal; slot 0 is slower."""
    draw = np.random.default_rng([seed, sum(map(ord, mode))])
    compute = draw.lognormal(np.log(0.05), 0.15, (steps * slots, slots))
    compute[:, 0] *= slow
    transfer = draw.lognormal(np.log(0.006), 0.2, (steps * slots, slots))
    found = list(
        _sync(mode, steps, slots, compute, transfer)
        if mode.startswith("sync")
        else _async(mode, steps, slots, compute, transfer)
    )
    found.sort(key=lambda each: each.time_s)
    noise = draw.normal(0, 0.06, len(found))
    return [
        replace(each, loss=0.28 + 2.0 * np.exp(-at / (0.16 * steps * slots)) * (1 + noise[at]) if losses else None)
        for at, each in enumerate(found)
    ]


def _sync(mode: str, steps: int, slots: int, compute: Any, transfer: Any) -> Iterator[Iteration]:
    backups = int(mode.partition("+")[2].partition("/")[0] or 0)
    free, begun = [0.0] * slots, 0.0
    for step in range(steps):
        takes = {slot: compute[step, slot] + transfer[step, slot] for slot in range(slots) if free[slot] <= begun}
        closed = begun + sorted(takes.values())[slots - backups - 1 - (slots - len(takes))]
        for slot, took in takes.items():
            end = max(begun + took, closed)  # who is late takes part again in the step that is open then
            elapsed, late = end - free[slot], begun + took > closed
            yield _iteration(slot, step, end, compute[step, slot], transfer[step, slot], elapsed, late, 0)
            free[slot] = end
        begun = closed


def _async(mode: str, steps: int, slots: int, compute: Any, transfer: Any) -> Iterator[Iteration]:
    bound = int(mode.partition(":")[2].partition("/")[0] or 10**9)
    clocks, free, version = [0] * slots, [0.0] * slots, 0
    running: dict[int, tuple[float, float, int]] = {}
    now = 0.0
    for _ in range(steps * slots):
        granted = sum(clocks) + len(running)
        for slot in range(slots):
            if slot not in running and clocks[slot] - min(clocks) <= bound and granted < steps * slots:
                took = compute[clocks[slot], slot] + transfer[clocks[slot], slot]
                running[slot], granted = (now + took, now, version), granted + 1
        slot = min(running, key=lambda each: running[each][0])
        now, _, pulled = running.pop(slot)
        at = clocks[slot]
        yield _iteration(
            slot, at, now, compute[at, slot], transfer[at, slot], now - free[slot], False, version - pulled
        )
        clocks[slot], free[slot], version = at + 1, now, version + 1


def _iteration(
    slot: int, step: int, end: float, compute: float, transfer: float, elapsed: float, late: bool, lag: int
) -> Iteration:
    return Iteration(
        time_s=end,
        worker=slot,
        slot=slot,
        step=step,
        loss=None,
        samples=BATCH,
        status="late" if late else "accepted",
        lag=lag,
        version=step,
        lr=() if late else (0.1,),
        compute_s=compute,
        wait_s=max(elapsed - compute - transfer, 0.0),
        transfer_s=transfer,
        bytes=PUSH_BYTES,
    )


def evaluations(mode: str, seed: int, steps: int, done: Sequence[Iteration], best: float) -> list[Evaluation]:
    """Accuracy that comes near to ``best``, and a loss to match."""
    draw = np.random.default_rng([7, seed, sum(map(ord, mode))])
    slots, found = len({each.slot for each in done}), []
    for boundary in range(1, 25):
        step = boundary * steps // 24
        accuracy = best - (best - 0.1) * np.exp(-4.2 * boundary / 24) + draw.normal(0, 0.004)
        time_s = done[min(step * slots, len(done)) - 1].time_s + 0.02
        metrics = {"test_accuracy": float(accuracy), "test_loss": float(2.6 * (1 - accuracy))}
        found.append(Evaluation(time_s, boundary, step, (step, step), metrics, 0.02, "go on: no rule", step))
    return found


def write_log(folder: Path, records: Sequence[Record], seed: int, mode: str, slots: int) -> Path:
    """A log of these records."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"slots": slots, "batch_size": BATCH, "seed": seed, "mode": mode[:4].replace("asyn", "async")}
    end = max(each.time_s for each in records if isinstance(each, Iteration | Evaluation))
    lines = [Header(settings, {"psgd": "0.1.0"}, "2026-01-01T00:00:00+00:00"), *records, Footer({"seconds": end})]
    (folder / FILE_NAME).write_text("".join(encode(line) + "\n" for line in lines))
    return folder


def figure(values: Sequence[float | None]) -> dict[str, Any]:
    """A figure of the report, with an interval that is only roughly Student's."""
    found = [value for value in values if value is not None]
    if not found:
        return {"median": None, "low": None, "high": None, "mean": None, "ci": None, "values": list(values)}
    middle = median([math.inf if value is None else value for value in values])
    half = 2.5 * float(np.std(found, ddof=1)) / len(found) ** 0.5 if len(found) > 1 else None
    return {
        "median": middle if math.isfinite(middle) else None,
        "low": min(found),
        "high": max(found),
        "mean": mean(found),
        "ci": None if half is None else [mean(found) - half, mean(found) + half],
        "values": list(values),
    }


def mode_entry(
    name: str, logs: Sequence[tuple[Sequence[Iteration], Sequence[Evaluation]]], slots: int
) -> dict[str, Any]:
    """The report's entry of a mode whose runs these are."""
    rows = [_run_figures(done, tested, slots) for done, tested in logs]
    lags = Counter(each.lag for done, _ in logs for each in done if each.status == "accepted")
    reached = sum(row["seconds_to_target"] is not None for row in rows)
    return {
        "name": name,
        "mode": name[:4].replace("asyn", "async"),
        "staleness": None,
        "backups": 0,
        "gather": 1,
        "correction": "lag-lr" if "lag-lr" in name else None,
        "local_steps": None,
        "optimizer": "SGD",
        "optimizer_args": {"momentum": 0.9},
        "lr": 0.1,
        "runs": len(rows),
        "failed": 0,
        "diverged": 0,
        "reached": reached,
        "figures": {key: figure([row[key] for row in rows]) for key in rows[0]},
        "lag_histogram": {str(lag): count for lag, count in sorted(lags.items())},
        "lrs": [],
        "folders": [f"sgd_{name.replace('/', '_')}/0.1/{seed}" for seed in range(len(rows))],
    }


def _run_figures(done: Sequence[Iteration], tested: Sequence[Evaluation], slots: int) -> dict[str, float | None]:
    seconds = max(each.time_s for each in done)
    used = [each for each in done if each.status == "accepted"]
    hit = next((each for each in tested if each.metrics["test_accuracy"] >= TARGET), None)
    last = tested[-1].metrics if tested else {}
    total = slots * seconds
    return {
        "seconds_to_target": None if hit is None else hit.time_s,
        "samples_to_target": None if hit is None else float(hit.step * slots * BATCH),
        "seconds": seconds,
        "samples": float(len(used) * BATCH),
        "updates": float(len(used)),
        "samples_per_s": len(used) * BATCH / seconds,
        "idle_share": 1 - sum(each.compute_s for each in done) / total,
        "compute_share": sum(each.compute_s for each in done) / total,
        "wait_share": sum(each.wait_s for each in done) / total,
        "transfer_share": sum(each.transfer_s for each in done) / total,
        "test_accuracy": last.get("test_accuracy"),
        "train_accuracy": last["test_accuracy"] + 0.012 if last else None,
        "test_loss": last.get("test_loss"),
        "train_loss": done[-1].loss,
        "dropped_samples": float((len(done) - len(used)) * BATCH),
        "bytes": float(sum(each.bytes for each in done)),
        "lag_mean": mean(each.lag for each in used),
        "lag_max": float(max(each.lag for each in used)),
        "effective_lr": 0.1,
    }


def read_log(folder: Path) -> RunFigures:
    """A run that is complete."""
    run = read_run(folder)
    assert run is not None
    return run


def make(
    folder: Path,
    modes: Sequence[str] = MODES,
    seeds: int = 3,
    steps: int = 240,
    slots: int = 4,
    tests: bool = True,
    **changes: Any,
) -> tuple[dict[str, Any], Runs]:
    """A report and its runs, from logs in the folder.

    Args:
        tests: whether there are evaluations and losses.
        changes: of the report.
    """
    entries: list[dict[str, Any]] = []
    made: dict[str, list[RunFigures]] = {}
    for at, name in enumerate(modes):
        logs = []
        made[name] = []
        for seed in range(seeds):
            done = iterations(name, seed, steps, slots, losses=tests)
            tested = evaluations(name, seed, steps, done, 0.905 - 0.006 * at) if tests else []
            logs.append((done, tested))
            made[name].append(read_log(write_log(folder / f"{at}-{seed}", [*done, *tested], seed, name, slots)))
        entries.append(mode_entry(name, logs, slots))
    return report_of(entries, list(range(seeds)), tests, slots, steps) | changes, made


def report_of(
    entries: Sequence[Mapping[str, Any]], seeds: list[int], tests: bool, slots: int, steps: int
) -> dict[str, Any]:
    return {
        "title": f"mlp on fashion-mnist, {slots:,} slots of {BATCH}, {steps:,} steps",
        "metric": "test_accuracy",
        "goal": "max",
        "budget": {"kind": "samples", "amount": slots * steps * BATCH},
        "target": {"metric": "test_accuracy", "value": TARGET} if tests else None,
        "seeds": seeds,
        "simulated": not tests,
        "equal": [
            "Initial weights: the same for each seed.",
            "Order of the data: the same for each slot and seed.",
            f"Global batch: {slots:,} slots of {BATCH} samples.",
            "Optimizer: SGD with momentum 0.9, learning rate 0.1.",
        ],
        "modes": list(entries),
        "comparisons": [
            {
                "figure": "seconds_to_target",
                "a": "async",
                "b": "sync",
                "difference": -9.1,
                "ratio": 0.47,
                "ci": [-10.2, -8.0],
                "p": 0.001,
                "told": True,
                "words": "Time to 85 %: async needs 9.1 s less than sync (95 % interval 8.0 to 10.2 s).",
            },
            {
                "figure": "seconds_to_target",
                "a": "async:2",
                "b": "sync",
                "difference": -0.5,
                "ratio": 0.97,
                "ci": [-1.2, 0.2],
                "p": 0.12,
                "told": False,
                "words": "Time to 85 %: between async:2 and sync no difference can be told (−1.2 to 0.2 s).",
            },
            {
                "figure": "test_accuracy",
                "a": "async",
                "b": "sync",
                "difference": -0.01,
                "ratio": 0.99,
                "ci": [-0.03, 0.01],
                "p": 0.2,
                "told": False,
                "words": "Test accuracy: between async and sync no difference can be told (−3.0 to 1.0 points).",
            },
        ]
        if len(entries) > 1 and len(seeds) > 1 and tests
        else [],
        "recommendation": {
            "mode": entries[-2]["name"],
            "reasons": [
                "It reaches 85 % test accuracy after 9.8 s; sync takes 19 s, async:2 18 s.",
                "In the end its test accuracy can not be told apart from that of sync.",
                "Its workers idle for 11 % of the time, with sync for 62 %.",
            ],
            "words": f"{entries[-2]['name']} reaches 85 % test accuracy first, in half of the time of sync.",
        }
        if len(entries) > 1 and tests
        else {"mode": None, "reasons": [], "words": ""},
        "notes": [
            "Asynchronous arms make an update for each gradient (softsync: for several), synchronous ones one a step."
        ],
        "settings": {
            "data": "fashion-mnist",
            "model": "mlp",
            "slots": slots,
            "workers": slots,
            "shards": 2,
            "batch_size": BATCH,
            "plane": "shm",
            "wire": "float32",
            "optimizer": {"name": "SGD", "momentum": 0.9, "nesterov": False},
            "stragglers": ["0:3x"],
            "clip": None,
            "threads": 1,
        },
        "versions": [{"python": "3.11.7", "psgd": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "ray": "2.60.0"}],
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    kinds: dict[str, dict[str, Any]] = {
        "full": {},
        "one-seed": {"seeds": 1, "modes": MODES[:2]},
        "one-mode": {"modes": MODES[:1]},
        "timing": {"tests": False, "slots": 1000, "steps": 12, "seeds": 1, "modes": ("sync", "async")},
        "many": {
            "modes": [*MODES, "async:8/dc", "async:8/dca=2:0.95", "async:8/gap", "sync/local=8", "async:1"],
            "seeds": 2,
            "steps": 60,
        },
    }
    for kind, arguments in kinds.items():
        (target / kind).mkdir(parents=True, exist_ok=True)
        report, modes = make(target / kind / "runs", **arguments)
        page = write_page(report, modes, target / kind)
        print(page, page.stat().st_size)
