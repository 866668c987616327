"""Real runs on a real local Ray: few, as each takes seconds."""

import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import psutil
import pytest
import ray
import torch

from psgd import cluster, inprocess
from psgd.config import Clip, Job, Placement, Straggler, Training
from psgd.coordinator.coordinator import SaveSnapshot
from psgd.coordinator.outcome import Keep
from psgd.core.modes import Async, Mode, Rules, Sync
from psgd.data.datasets import load
from psgd.durations import constant
from psgd.errors import LostError, ResourceError
from psgd.runlog import Evaluation, Iteration, Notice, Record
from psgd.training.models import resolve_model
from psgd.training.optimizers import resolve_optimizer
from psgd.training.policies import ModelCheckpoint, Policies, ReduceLROnPlateau
from psgd.transport.base import Connection
from psgd.transport.flat import layout_of, sha256, tensors_of
from psgd.transport.planes import connect
from psgd.transport.shm import ShmConnection
from tests.jobs import NormAndDropout, first_model, keep_nothing, make_job
from tests.test_bitwise import OPTIMIZERS, reference

pytestmark = pytest.mark.ray

DIGITS = load("digits", None)
MODEL = resolve_model("mlp", DIGITS.shape, DIGITS.outputs)


def train_digits() -> torch.utils.data.Dataset[object]:
    return load("digits", None).train


def test_digits() -> torch.utils.data.Dataset[object]:
    return load("digits", None).test


test_digits.__test__ = False  # type: ignore[attr-defined]  # a data set, not a test


def job(mode: Mode, *, workers: int = 2, shards: int = 2, steps: int = 30, **training: object) -> Job:
    return Job(
        rules=Rules(mode, slots=4, shards=shards, steps=steps, evaluate_every=10),
        workers=workers,
        layout=layout_of(weights()),
        whole=False,
        model=MODEL,
        optimizer=resolve_optimizer("sgd", 0.05, {"momentum": 0.9}),
        schedule=None,
        training=Training(torch.nn.functional.cross_entropy, batch_size=16, **training),  # type: ignore[arg-type]
        data=train_digits,
        evaluation_data=test_digits,
    )


def weights() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tensors_of(MODEL())


def ignore(record: Record) -> None:
    """For runs whose records do not matter."""


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
    os.environ.pop("RAY_AUTH_MODE", None)


def clipped(shards: int) -> Job:
    plain = job(Sync(), shards=shards)
    return replace(plain, rules=replace(plain.rules, clip_norm=0.5), clip=Clip(norm=0.5), saves_measured=True)


def keeper(kept: list[str]) -> Keep:
    def keep(decision: SaveSnapshot, weights: Mapping[str, torch.Tensor]) -> None:
        kept.append(f"{decision.step} {decision.names} {sha256(dict(weights))}")

    return keep


def test_sync_run_has_the_bits_of_the_in_process_one_and_logs_every_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Connection] = []

    def note(*arguments: Any) -> list[Connection]:
        asked.extend(connect(*arguments))
        return asked

    monkeypatch.setattr("psgd.cluster.driver.connect", note)
    records: list[Record] = []
    kept: list[list[str]] = [[], []]
    # Shards measure the mean together, evaluations lower the learning rate, snapshots come to the driver.
    policies = Policies(None, ReduceLROnPlateau(patience=0, threshold=0.9), ModelCheckpoint(), lr=0.05)
    outcome = cluster.run(clipped(shards=2), Placement(), weights(), policies, records.append, keeper(kept[0]))
    alone = inprocess.run(clipped(shards=1), weights(), policies, ignore, keeper(kept[1]))
    assert sha256(outcome.weights) == sha256(alone.weights)
    assert kept[0] == kept[1]
    assert len(kept[0]) == 3
    assert [r.lr_factor for r in records if isinstance(r, Evaluation)] == pytest.approx([1.0, 0.1, 0.01])
    assert all(r.clip_scale < 1 for r in records if isinstance(r, Iteration) and r.step < 5)
    assert [type(connection) for connection in asked] == [ShmConnection, ShmConnection]
    assert outcome.versions == (30, 30)
    assert outcome.figures.clocks == (30, 30, 30, 30)
    iterations = sorted((r.step, r.slot) for r in records if isinstance(r, Iteration))
    assert iterations == [(step, slot) for step in range(30) for slot in range(4)]
    assert [(r.boundary, r.step, r.versions) for r in records if isinstance(r, Evaluation)] == [
        (1, 10, (10, 10)),
        (2, 20, (20, 20)),
        (3, 30, (30, 30)),
    ]


def test_buffers_dropout_and_adam_have_the_bits_of_the_plain_reference_over_rpc() -> None:
    job = make_job(NormAndDropout, workers=4, shards=3, optimizer=OPTIMIZERS["adam"])
    first = tensors_of(first_model(job.model))
    assert sha256(cluster.run(job, Placement(), first, Policies(), ignore, keep_nothing).weights) == reference(job)


def processes_of(host: str) -> list[psutil.Process]:
    """Ray names its processes after what they run."""
    own = psutil.Process().children(recursive=True)
    return [p for p in own if p.status() != psutil.STATUS_ZOMBIE and f"ray::{host}" in "".join(p.cmdline())]


def kill_a_worker() -> int:
    """Its process id."""
    process = processes_of("WorkerHost")[0]
    process.send_signal(signal.SIGKILL)
    return process.pid


def test_killed_worker_is_replaced_and_the_bits_stay() -> None:
    records: list[Record] = []
    killed: list[int] = []

    def kill_once(record: Record) -> None:
        records.append(record)
        if not killed and isinstance(record, Iteration) and record.step >= 5:
            killed.append(kill_a_worker())

    slow = (Straggler(0, constant(0.05)),)
    outcome = cluster.run(job(Sync(), stragglers=slow), Placement(), weights(), Policies(), kill_once, keep_nothing)
    alone = inprocess.run(job(Sync(), workers=1, shards=1), weights(), Policies(), ignore, keep_nothing)
    assert killed
    notices = [r.text for r in records if isinstance(r, Notice)]
    assert notices[0] == "Ray is there: starting 2 shards and 2 workers"
    assert notices[1].endswith(": replaced by incarnation 1")
    assert sha256(outcome.weights) == sha256(alone.weights)
    assert outcome.versions == (30, 30)


def test_killed_worker_ends_the_run_when_failures_are_not_allowed() -> None:
    killed: list[int] = []

    def kill(record: Record) -> None:
        if not killed and isinstance(record, Iteration):
            killed.append(kill_a_worker())

    slow = (Straggler(0, constant(0.05)),)
    with pytest.raises(LostError, match=r"worker \d was lost .* max_failures is 0"):
        cluster.run(job(Sync(), stragglers=slow), Placement(max_failures=0), weights(), Policies(), kill, keep_nothing)


def test_a_lost_shard_is_named_also_by_who_asks_it_before_ray_has_noticed() -> None:
    shards: list[psutil.Process] = []

    def kill(record: Record) -> None:
        """The driver's next word is for the lead: that the evaluation is settled."""
        if not shards and isinstance(record, Evaluation):
            shards.extend(processes_of("ShardHost"))
            for process in shards:
                process.send_signal(signal.SIGKILL)
            _, alive = psutil.wait_procs(shards, timeout=10)
            assert not alive

    with pytest.raises(LostError, match=r"^shard [01] was lost, and with it its weights: "):
        cluster.run(job(Sync(), steps=1000), Placement(), weights(), Policies(), kill, keep_nothing)
    assert len(shards) == 2
    wait_until_nothing_is_reserved()


def test_async_run_keeps_the_bound_and_counts_every_iteration() -> None:
    slow = (Straggler(1, constant(0.03)),)
    outcome = cluster.run(
        job(Async(staleness=2), stragglers=slow), Placement(), weights(), Policies(), ignore, keep_nothing
    )
    assert outcome.figures.max_clock_gap <= 2
    assert outcome.versions == (120, 120)
    assert outcome.figures.accepted == 120


def test_async_run_without_a_bound_leaves_the_straggler_behind() -> None:
    slow = (Straggler(1, constant(0.1)),)
    outcome = cluster.run(job(Async(), stragglers=slow), Placement(), weights(), Policies(), ignore, keep_nothing)
    assert outcome.figures.max_clock_gap > 2
    assert sum(outcome.figures.clocks) == 120


def test_backup_drops_the_slow_slot_all_shards_agree_and_nothing_stays_reserved() -> None:
    slow = (Straggler(3, constant(0.1)),)
    records: list[Record] = []
    backup = job(Sync(backups=1), workers=4, stragglers=slow)
    outcome = cluster.run(backup, Placement(), weights(), Policies(), records.append, keep_nothing)
    late = [r.slot for r in records if isinstance(r, Iteration) and r.status == "late"]
    assert late.count(3) > len(late) / 2  # now and then the machine makes another slot the slowest
    assert outcome.figures.dropped == 30
    assert outcome.versions == (30, 30)
    wait_until_nothing_is_reserved()


def test_error_in_user_code_keeps_its_type_and_message() -> None:
    def broken(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("the user's own loss")

    bad = job(Sync())
    bad = replace(bad, training=replace(bad.training, loss=broken))
    with pytest.raises(ZeroDivisionError, match="the user's own loss"):
        cluster.run(bad, Placement(), weights(), Policies(), ignore, keep_nothing)


def test_too_little_is_refused_before_anything_starts() -> None:
    with pytest.raises(ResourceError, match=r"needs 34 CPUs .* the Ray cluster in all has 8"):
        cluster.run(job(Sync()), Placement(cpus_per_worker=16), weights(), Policies(), ignore, keep_nothing)


def wait_until_nothing_is_reserved() -> None:
    deadline = time.monotonic() + 20
    while free_cpus() != 8.0:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_cpus() -> float:
    return float(ray.available_resources()["CPU"])  # type: ignore[no-untyped-call]  # Ray's own omission
