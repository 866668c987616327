"""What a run gives back: its figures, its history, its weights."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from psgd.config import Job, ModelFactory
from psgd.coordinator.outcome import Outcome
from psgd.core.messages import Figures, Status
from psgd.core.modes import Async, Rules, Sync
from psgd.observers.recorder import Recorder
from psgd.runlog import Iteration, Record, versions
from psgd.simulation.timing import Timing, TimingJob
from psgd.training.warm_start import apply_weights
from psgd.transport.flat import sha256

WEIGHTS_NAME, BEST_NAME = "weights.safetensors", "best.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The end of a run.

    Attributes:
        metrics: the final ones: ``train_loss``, what the last evaluation measured (``test_loss``, …), and what slot
            0 of an own loop reported last.
        history: one row an iteration, in the order in which the driver heard of them; columns as in
            `psgd.runlog.Iteration`.
        evaluations: one row an evaluation; its metrics are columns.
        reported: one row a call of `psgd.report`; its metrics are columns.
        staleness_histogram: lag to the number of updates that had it.
        figures: what ``psgd train --json`` prints.
        weights: the final ones by name, on the CPU; a tied one by its first name.
        checkpoint: the file with the final weights; None if nothing was written.
        best_checkpoint: the file with the weights of the best evaluation; None without a `psgd.ModelCheckpoint`.
        path: the run's folder; None if nothing was written.
    """

    metrics: dict[str, float]
    history: pd.DataFrame = field(repr=False)
    evaluations: pd.DataFrame = field(repr=False)
    reported: pd.DataFrame = field(repr=False)
    staleness_histogram: dict[int, int]
    figures: dict[str, Any]
    weights: dict[str, Tensor] = field(repr=False)
    checkpoint: Path | None
    best_checkpoint: Path | None
    path: Path | None
    model: ModelFactory = field(repr=False)

    def load_model(self) -> nn.Module:
        """A new model with the final weights, on the CPU, in eval mode."""
        with torch.random.fork_rng():
            model = self.model()
        apply_weights(model, self.weights)
        return model.eval()


def make_result(
    job: Job, outcome: Outcome, recorder: Recorder, figures: dict[str, Any], checkpoint: Path | None, path: Path | None
) -> Result:
    """The result of a run from what was recorded of it."""
    measured = recorder.evaluations[-1].metrics if recorder.evaluations else {}
    train_loss = figures["train_loss"]
    best = path / BEST_NAME if path is not None and job.saves_measured else None
    told = next((record.metrics for record in reversed(recorder.reported) if record.slot == 0), {})
    return Result(
        metrics={**told, **({} if train_loss is None else {"train_loss": train_loss}), **measured},
        history=_table(Iteration, recorder.iterations),
        evaluations=_metrics_table(recorder.evaluations),
        reported=_metrics_table(recorder.reported),
        staleness_histogram=lags(recorder.iterations),
        figures=figures,
        weights=outcome.weights,
        checkpoint=checkpoint,
        best_checkpoint=best if best is not None and best.exists() else None,
        path=path,
        model=job.model,
    )


def compute_figures(job: Job, outcome: Outcome, recorder: Recorder, out: Path | None) -> dict[str, Any]:
    """The figures of a run: what ``--json`` prints, what the log's last line holds."""
    counted = outcome.figures
    samples = _samples(job, recorder.iterations, counted.accepted)
    measured = recorder.evaluations[-1].metrics if recorder.evaluations else {}
    found = versions()
    return {
        **_pace(job.rules, job.workers, counted, samples, outcome.seconds),
        "train_loss": _last_loss(recorder.iterations, job.rules.slots, isinstance(job.rules.mode, Sync)),
        **{"test_loss": None, "test_accuracy": None},
        **measured,
        "arrays": recorder.evaluations[-1].arrays if recorder.evaluations else {},
        "weights_sha256": sha256(outcome.weights),
        **_course(job.workers, counted, job.iteration_samples, recorder.iterations),
        "nonfinite_pushes": counted.nonfinite,
        "stopped_early": outcome.stopped_early,
        "threads": job.training.threads,
        "torch": found["torch"],
        "psgd": found["psgd"],
        "out": None if out is None else str(out),
    }


def timing_figures(job: TimingJob, timing: Timing, recorder: Recorder, out: Path | None) -> dict[str, Any]:
    """The figures of a run without gradients."""
    counted = timing.figures
    return {
        **_pace(job.rules, job.workers, counted, counted.accepted * job.iteration_samples, timing.seconds),
        **_course(job.workers, counted, job.iteration_samples, recorder.iterations),
        "psgd": versions()["psgd"],
        "out": None if out is None else str(out),
    }


def _pace(rules: Rules, workers: int, counted: Figures, samples: int, seconds: float) -> dict[str, Any]:
    """What was run, and how fast it was."""
    mode = rules.mode
    return {
        "mode": mode.name,
        "staleness": mode.staleness if isinstance(mode, Async) else None,
        "gather": mode.gather if isinstance(mode, Async) else 1,
        "correction": None if rules.correction is None else str(rules.correction),
        "backups": mode.backups if isinstance(mode, Sync) else 0,
        "workers": workers,
        "slots": rules.slots,
        "shards": rules.shards,
        "steps": counted.steps,
        "updates": counted.version,
        "pushes": counted.accepted,
        "samples": samples,
        "seconds": seconds,
        "samples_per_s": samples / seconds if seconds > 0 else 0.0,
        "pushes_per_s": counted.accepted / seconds if seconds > 0 else 0.0,
    }


def _course(workers: int, counted: Figures, iteration_samples: int, iterations: Sequence[Iteration]) -> dict[str, Any]:
    """What became of pushes and time."""
    return {
        "lag": _summary(lags(iterations)),
        "max_clock_gap": counted.max_clock_gap,
        "dropped_pushes": counted.dropped,
        "dropped_samples": counted.dropped * iteration_samples,
        "idle_share": _idle_share(workers, iterations),
        "bytes": sum(i.bytes for i in iterations),
    }


def lags(iterations: Iterable[Iteration]) -> dict[int, int]:
    """Lag to the number of accepted pushes that had it, ascending."""
    return dict(sorted(Counter(i.lag for i in iterations if i.status == Status.ACCEPTED).items()))


def save_weights(weights: Mapping[str, Tensor], path: Path, header: dict[str, str] | None = None) -> Path:
    """Write a file of weights: either all of it is there, or nothing.

    Args:
        header: what the file says about itself.

    Raises:
        OSError: if the disk does not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, partial, header)
    os.replace(partial, path)
    return path


def _samples(job: Job, iterations: Sequence[Iteration], accepted: int) -> int:
    """The samples of pushes that took part in an update; only an own loop's batches may differ in size."""
    if job.own_loop is None:
        return accepted * job.iteration_samples
    arrived = sorted((i for i in iterations if i.status == Status.ACCEPTED), key=lambda i: (i.version, i.time_s))
    return sum(i.samples for i in arrived[:accepted])  # behind them is what was gathered, and never applied


def _idle_share(workers: int, iterations: Sequence[Iteration]) -> float | None:
    """The share of the workers' time, until the last iteration, in which they did not compute."""
    available = workers * max((i.time_s for i in iterations), default=0.0)
    if available <= 0:
        return None
    return min(max(1 - sum(i.compute_s for i in iterations) / available, 0.0), 1.0)


def _last_loss(iterations: Sequence[Iteration], slots: int, rounds: bool) -> float | None:
    """Mean loss over the last step; on arrival, where slots are in different ones, over the last ``slots`` pushes."""
    last: Sequence[Iteration]
    if rounds:
        end = max((i.step for i in iterations), default=0)
        last = sorted((i for i in iterations if i.step == end), key=lambda i: i.slot)
    else:
        last = sorted(iterations, key=lambda i: i.time_s)[-slots:]
    losses = [i.loss for i in last if i.loss is not None]
    return sum(losses) / len(losses) if losses else None


def _summary(histogram: dict[int, int]) -> dict[str, Any]:
    pushes = sum(histogram.values())
    return {
        "mean": sum(lag * count for lag, count in histogram.items()) / pushes if pushes else 0.0,
        "max": max(histogram, default=0),
        "histogram": {str(lag): count for lag, count in histogram.items()},
    }


def _table(kind: type[Record], records: Sequence[Record]) -> pd.DataFrame:
    """One row a record, one column a field."""
    return pd.DataFrame({f.name: [getattr(record, f.name) for record in records] for f in fields(kind)})


def _metrics_table(records: Sequence[Any]) -> pd.DataFrame:
    """One row a record; metrics are columns beside its other fields."""
    return pd.DataFrame(
        [
            {**{f.name: getattr(record, f.name) for f in fields(record) if f.name != "metrics"}, **record.metrics}
            for record in records
        ]
    )
