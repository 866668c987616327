import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from psgd.config import Straggler
from psgd.core.local_steps import LocalSteps
from psgd.core.modes import Async, Rules, Sync
from psgd.durations import constant, parse_duration
from psgd.errors import ConfigurationError
from psgd.experiments.timings import Course, course_of, read_timings, simulate
from psgd.runlog import FILE_NAME, Footer, Header, Iteration, Record, encode
from psgd.running import run_without_gradients
from psgd.simulation.timing import TimingJob
from psgd.simulation.world import World
from psgd.worker.straggling import lingering
from tests.records import EVALUATION, iteration

SETTINGS: dict[str, Any] = {
    "mode": "async",
    "staleness": 2,
    "gather": 1,
    "workers": 2,
    "slots": 2,
    "shards": 3,
    "steps": 100,
    "batch_size": 4,
    "seed": 7,
    "stragglers": [],
    "own_loop": False,
}


def write(folder: Path, *records: Record, **settings: Any) -> Path:
    """A log of these records behind a header."""
    lines = [Header(SETTINGS | settings, {}, "2026-01-01T00:00:00+00:00"), *records]
    (folder / FILE_NAME).write_text("".join(encode(line) + "\n" for line in lines))
    return folder


def steady(slots: int = 2, steps: int = 4, **changes: Any) -> list[Iteration]:
    """Each slot ends an iteration a second."""
    return [
        iteration(slot=slot, step=step, time_s=step + 1.0, **changes) for step in range(steps) for slot in range(slots)
    ]


# ------------------------------------------------------------------ reading


def test_the_job_is_that_of_the_header(tmp_path: Path) -> None:
    said = {"slot": None, "delay": "exp:50ms", "factor": 1.0}
    run = read_timings(write(tmp_path, *steady(), stragglers=[said]))
    assert run.job == TimingJob(
        Rules(Async(2), slots=2, shards=3, steps=4),
        workers=2,
        batch_size=4,
        stragglers=(Straggler(None, parse_duration("exp:50ms")),),
        seed=7,
    )


def test_sync_mode_has_its_backups_and_local_steps_their_mini_batches(tmp_path: Path) -> None:
    local = {"steps": 3, "lr": 1.0, "momentum": 0.0}
    run = read_timings(write(tmp_path, *steady(), mode="sync", backups=1, local_steps=local))
    assert run.job.rules == Rules(Sync(1), 2, 3, 4, local_steps=LocalSteps(3, 1.0, 0.0))
    assert run.job.iteration_samples == 12


@pytest.mark.parametrize(("mode", "steps"), [({"mode": "sync", "backups": 0}, 4), ({"mode": "async"}, 4)])
def test_a_run_that_was_broken_off_has_the_steps_that_it_came_to(
    tmp_path: Path, mode: dict[str, Any], steps: int
) -> None:
    assert read_timings(write(tmp_path, *steady(steps=4), **mode)).job.rules.steps == steps


def test_a_run_that_was_stopped_has_the_steps_of_its_footer(tmp_path: Path) -> None:
    assert read_timings(write(tmp_path, *steady(), Footer({"steps": 3}))).job.rules.steps == 3


def test_each_slots_first_iteration_is_no_warm_one(tmp_path: Path) -> None:
    run = read_timings(write(tmp_path, *steady(steps=3), EVALUATION))
    assert [(i.slot, i.step) for i in run.warm] == [(0, 1), (1, 1), (0, 2), (1, 2)]
    assert run.evaluation_s == (EVALUATION.seconds,)


def test_what_was_injected_is_taken_away_exactly(tmp_path: Path) -> None:
    stragglers = (Straggler(None, parse_duration("exp:1")), Straggler(1, constant(0.5), factor=3.0))
    plain = {(slot, step): 0.25 * (1 + slot + step) for slot in range(2) for step in range(5)}
    slowed = [
        iteration(slot=slot, step=step, compute_s=took + lingering(stragglers, took, 7, step, slot))
        for (slot, step), took in plain.items()
    ]
    said = [{"slot": s.slot, "delay": str(s.delay), "factor": s.factor} for s in stragglers]
    taken = read_timings(write(tmp_path, *slowed, stragglers=said)).compute_s()
    assert taken[0] == pytest.approx([plain[0, step] for step in range(1, 5)], rel=1e-12)
    assert taken[1] == pytest.approx([plain[1, step] for step in range(1, 5)], rel=1e-12)


def test_an_iteration_of_local_steps_is_several_mini_batches(tmp_path: Path) -> None:
    local = {"steps": 4, "lr": 1.0, "momentum": 0.0}
    run = read_timings(write(tmp_path, *steady(steps=2, compute_s=2.0), local_steps=local))
    assert run.compute_s() == {0: [0.5], 1: [0.5]}


@pytest.mark.parametrize(
    ("records", "settings", "words"),
    [
        ([], {}, "RUN must have iterations, got none in"),
        ([EVALUATION], {}, "RUN must have iterations, got none in"),
        (steady(steps=1), {}, "two iterations of every slot, as the first is left out; slot 0 has 1"),
        (steady(slots=1), {}, "two iterations of every slot, as the first is left out; slot 1 has 0"),
        (steady(), {"own_loop": True}, "RUN must be of the built-in loop"),
    ],
)
def test_logs_that_say_too_little_are_refused(
    tmp_path: Path, records: list[Record], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_timings(write(tmp_path, *records, **settings))


def test_the_same_iteration_twice_is_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="slot 0 has 1"):
        read_timings(write(tmp_path, *[iteration(slot=slot) for slot in (0, 0, 1, 1)]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "fast"}, 'mode must be sync or async, got "fast" on line 1 of'),
        ({"slots": 0}, "slots must be a whole number >= 1 of 64 bits, got 0 on line 1 of"),
        ({"slots": True}, "slots must be a whole number >= 1 of 64 bits, got true on line 1 of"),
        ({"workers": 1.5}, "workers must be a whole number >= 1 of 64 bits, got 1.5 on line 1 of"),
        ({"seed": -1}, "seed must be a whole number >= 0 of 64 bits, got -1 on line 1 of"),
        ({"seed": 2**63}, "seed must be a whole number >= 0 of 64 bits, got 9223372036854775808 on line 1 of"),
        ({"staleness": "x"}, 'staleness must be a whole number >= 0 of 64 bits or null, got "x" on line 1 of'),
        ({"gather": 0}, "gather must be a whole number >= 1 of 64 bits, got 0 on line 1 of"),
        ({"bytes": "many"}, 'bytes must be a whole number >= 0 of 64 bits, got "many" on line 1 of'),
        ({"clip_norm": "much"}, 'clip_norm must be a number or null, got "much" on line 1 of'),
        ({"mode": "sync"}, "backups must be a whole number >= 0 of 64 bits, got none on line 1 of"),
        ({"stragglers": [{"slot": 1}]}, "stragglers must be a list, each an object with slot"),
        ({"local_steps": {"steps": 3}}, "local_steps must be an object with steps"),
        ({"options": ["steps"]}, 'options must be values by name or null, got ["steps"] on line 1 of'),
        ({"workers": 3}, "RUN must be of a job that can be run, got line 1 of"),
        (
            {"stragglers": [{"slot": 0, "delay": "exp:", "factor": 1}]},
            "RUN must be of a job that can be run, got line 1",
        ),
    ],
)
def test_settings_that_are_none_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        read_timings(write(tmp_path, *steady(), **settings))


@pytest.mark.parametrize("settings", [{}, []])
def test_a_header_without_settings_is_refused(tmp_path: Path, settings: Any) -> None:
    lines: list[Record] = [Header(settings, {}, ""), *steady()]
    (tmp_path / FILE_NAME).write_text("".join(encode(line) + "\n" for line in lines))
    with pytest.raises(ConfigurationError):
        read_timings(tmp_path)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (iteration(slot=2), "slot must be in 0 … 1, got 2 on line 10 of"),
        (iteration(lag=-1), "lag must be a whole number >= 0 of 64 bits, got -1 on line 10 of"),
        (iteration(compute_s=-1.0), "compute_s must be a number in 0 … 1e+100, got -1.0 on line 10 of"),
        (iteration(transfer_s=1e308), "transfer_s must be a number in 0 … 1e+100, got 1e+308 on line 10 of"),
        (replace(EVALUATION, seconds=-0.5), "seconds must be a number in 0 … 1e+100, got -0.5 on line 10 of"),
        (Footer({"steps": None}), "steps must be a whole number >= 0 of 64 bits, got null on line 10 of"),
        (Footer({"steps": -5}), "steps must be a whole number >= 0 of 64 bits, got -5 on line 10 of"),
    ],
)
def test_numbers_that_can_not_be_are_refused(tmp_path: Path, record: Record, words: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        read_timings(write(tmp_path, *steady(), record))


@pytest.mark.parametrize("name", ["time_s", "compute_s", "wait_s", "transfer_s"])
@pytest.mark.parametrize("value", [None, "a", float("nan"), True, [1.0]])
def test_times_that_are_no_numbers_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    log = write(tmp_path, *steady()) / FILE_NAME
    last = asdict(steady()[-1]) | {name: value}
    log.write_text(log.read_text() + json.dumps({"kind": "iteration", **last}) + "\n")
    with pytest.raises(ConfigurationError) as caught:
        read_timings(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_footer_that_says_less_than_two_steps_is_outvoted(tmp_path: Path) -> None:
    assert read_timings(write(tmp_path, *steady(), Footer({"steps": 1}))).job.rules.steps == 2


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no run log at"):
        read_timings(tmp_path)
    (tmp_path / FILE_NAME).write_text(encode(iteration()) + "\n")
    with pytest.raises(ConfigurationError, match="RUN must be a log that begins with its header"):
        read_timings(tmp_path)


# ------------------------------------------------------------------ how runs went


def test_the_course_begins_when_every_slot_has_ended_an_iteration() -> None:
    job = TimingJob(Rules(Async(), 2, 1, 3), workers=2, batch_size=4)
    part = {"compute_s": 1.0, "wait_s": 0.5, "transfer_s": 0.5}
    records = [
        iteration(slot=0, step=0, time_s=2.0, **part),
        iteration(slot=1, step=0, time_s=5.0, **part),  # a late start is not the mode's doing
        iteration(slot=0, step=1, time_s=7.0, lag=1, **part),
        iteration(slot=1, step=1, time_s=7.0, lag=3, **part),
        iteration(slot=0, step=2, time_s=9.0, lag=9, status="late", **part),
    ]
    assert course_of(job, records) == Course(
        pushes_per_s=0.5, samples_per_s=2.0, idle_share=0.5, wait_share=0.25, lag=2.0, seconds=4.0
    )


def test_a_worker_with_several_slots_is_not_idle_while_one_computes() -> None:
    job = TimingJob(Rules(Async(), 2, 1, 50), workers=1)
    assert course_of(job, simulate(job, World())).idle_share == pytest.approx(0.0, abs=0.01)


def test_simulated_iterations_come_by_the_time_at_which_they_ended() -> None:
    ended = [i.time_s for i in simulate(TimingJob(Rules(Async(), 3, 1, 20), 3), World(compute=parse_duration("exp:1")))]
    assert len(ended) == 60
    assert ended == sorted(ended)


def test_what_simulations_write_is_read_like_any_other_log(tmp_path: Path) -> None:
    job = TimingJob(
        Rules(Sync(), 2, 1, 5, local_steps=LocalSteps(2)), 2, stragglers=(Straggler(1, constant(0.5), 2.0),), seed=3
    )
    run_without_gradients(job, World(), tmp_path, progress=False)
    run = read_timings(tmp_path)
    assert run.job == job
    assert run.compute_s() == {0: [1.0] * 4, 1: [1.0] * 4}
