"""``psgd bench train``: real training by psgd, beside as many independent single processes as it has workers."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import psgd
from psgd.bench.case import stamp_steps
from psgd.bench.machine import facts
from psgd.bench.processes import barrier, run_alone, run_together
from psgd.bench.times import MS_PER_S, StepTimes, ratio
from psgd.config import ModelFactory, OptimizerFactory
from psgd.core.modes import Async, Mode, Sync
from psgd.data.datasets import ArrayDataset, load
from psgd.training.forms import use_fused

MODES: dict[str, Mode] = {"sync": Sync(), "async": Async()}


@dataclass(frozen=True, slots=True)
class TrainingCase:
    """One measurement, the same for psgd and the single processes.

    Args:
        data: a built-in data set's name.
        data_dir: the folder of its files.
        model: picklable, as the optimizer's factory.
        workers: of psgd; and single processes.
        batch_size: samples of an iteration of a slot, or of a single process.
        warmup: iterations before the measured ones.
        steps: iterations that are measured, of each slot and of each single process.
        trainer_options: what psgd alone is told: keywords of `psgd.Trainer`.
    """

    data: str
    data_dir: str | None
    model: ModelFactory
    optimizer: OptimizerFactory
    workers: int
    shards: int
    batch_size: int
    warmup: int
    steps: int
    trainer_options: dict[str, Any] = field(default_factory=dict)

    def load_samples(self) -> ArrayDataset:
        """The training set."""
        return load(self.data, self.data_dir).train


def compare_throughput(case: TrainingCase, rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Train in both modes and alone, in turn, once a round, in fresh processes.

    Args:
        tell: takes a line about how far we are.

    Returns:
        Samples per second of all processes together (medians over the rounds), and their ratios.

    Raises:
        PsgdError: if a training fails.
    """
    measures: dict[str, Callable[[], StepTimes]] = {
        **{name: partial(run_alone, partial(train, case, mode)) for name, mode in MODES.items()},
        "alone": partial(train_independently, case),
    }
    rates: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(1, rounds + 1):
        for name, measure in measures.items():
            rates[name].append(case.batch_size * MS_PER_S / measure().ms_per_push)
            tell(f"round {number} of {rounds}: {name:5} {rates[name][-1]:10,.0f} samples/s")
    return summarize(case, rates)


def summarize(case: TrainingCase, rates: dict[str, list[float]]) -> dict[str, Any]:
    """The figures of all rounds.

    Args:
        rates: samples per second, one a round, by name.
    """
    medians = {name: statistics.median(each) for name, each in rates.items()}
    return {
        "data": case.data,
        "workers": case.workers,
        "shards": case.shards,
        "batch_size": case.batch_size,
        **case.trainer_options,
        **{f"{name}_samples_per_s": rate for name, rate in medians.items()},
        **{f"ratio_{name}": ratio(medians[name], medians["alone"]) for name in MODES},
        "steps": case.steps,
        "rates": rates,
        "machine": facts(),
    }


def train(case: TrainingCase, mode: Mode) -> StepTimes:
    """Train by psgd, with its built-in loop, in this process, which starts a Ray."""
    trainer = psgd.Trainer(
        model=case.model,
        optimizer=case.optimizer,
        loss=cross_entropy,
        train_data=case.load_samples,
        mode=mode,
        workers=case.workers,
        shards=case.shards,
        batch_size=case.batch_size,
        steps=case.warmup + 1 + case.steps,
        out=None,
        progress=False,
        **case.trainer_options,
    )
    history = trainer.fit().history
    of_slots = (sorted(history[history["slot"] == slot]["time_s"]) for slot in range(case.workers))
    return StepTimes.of(ends[case.warmup :] for ends in of_slots)


def train_independently(case: TrainingCase) -> StepTimes:
    """Train a model in each of as many processes as psgd has workers; they know nothing of each other."""
    start = barrier(case.workers)
    return StepTimes.of(run_together([partial(_train_alone, case, start, seed) for seed in range(case.workers)]))


def _train_alone(case: TrainingCase, start: Barrier, seed: int) -> tuple[float, ...]:
    """A plain loop; batches are gathered from memory as cheaply as psgd does, which a DataLoader does not."""
    torch.manual_seed(seed)
    model = case.model()
    optimizer = case.optimizer(model.named_parameters())
    use_fused(optimizer)
    batches = _batches(case.load_samples(), case.batch_size)

    def step() -> None:
        inputs, targets = next(batches)
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        loss.item()

    start.wait()
    return stamp_steps(case.warmup, case.steps, step)


def _batches(samples: ArrayDataset, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches in a new random order each epoch, without end; the remainder is dropped."""
    while True:
        order = torch.randperm(len(samples))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield samples.batch(order[start : start + batch_size])
