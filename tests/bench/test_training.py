from collections.abc import Callable
from functools import partial

import pytest

from psgd.bench.processes import run_alone
from psgd.bench.times import StepTimes
from psgd.bench.training import TrainingCase, compare_throughput, summarize, train, train_independently
from psgd.core.modes import Async, Sync
from psgd.training.models import resolve_model
from psgd.training.optimizers import resolve_optimizer

CASE = TrainingCase(
    data="digits",
    data_dir=None,
    model=resolve_model("linear", (1, 8, 8), 10),
    optimizer=resolve_optimizer("sgd", 0.1, {}),
    workers=2,
    shards=1,
    batch_size=8,
    warmup=2,
    steps=100,
)


def test_ratios_are_psgds_throughput_over_that_of_single_processes() -> None:
    figures = summarize(CASE, {"sync": [90.0, 10.0, 95.0], "async": [110.0] * 3, "alone": [100.0] * 3})
    assert figures["sync_samples_per_s"] == 90.0
    assert (figures["ratio_sync"], figures["ratio_async"]) == (0.9, 1.1)


def test_single_processes_take_the_steps_that_were_asked_for() -> None:
    times = train_independently(CASE)
    assert [len(ends) for ends in times.ends] == [101, 101]


def test_each_mode_and_the_single_processes_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def stand_in(call: Callable[[], object]) -> StepTimes:
        called.append(call.args[1])  # type: ignore[attr-defined]  # a partial
        return StepTimes.of([(0.0, 0.5, 1.0)])

    monkeypatch.setattr("psgd.bench.training.run_alone", stand_in)
    monkeypatch.setattr("psgd.bench.training.train_independently", lambda case: StepTimes.of([(0.0, 0.25, 0.5)]))
    lines: list[str] = []
    figures = compare_throughput(CASE, 2, lines.append)
    assert called == [Sync(), Async()] * 2
    assert (figures["sync_samples_per_s"], figures["alone_samples_per_s"], figures["ratio_async"]) == (16.0, 32.0, 0.5)
    assert lines[:3] == [
        "round 1 of 2: sync          16 samples/s",
        "round 1 of 2: async         16 samples/s",
        "round 1 of 2: alone         32 samples/s",
    ]


@pytest.mark.ray
def test_psgds_steps_are_those_after_the_warm_up() -> None:
    times = run_alone(partial(train, CASE, Sync()))
    assert [len(ends) for ends in times.ends] == [101, 101]
    assert min(times.durations_ms) > 0
