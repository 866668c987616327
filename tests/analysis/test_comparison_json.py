import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from psgd.analysis.comparison import ArmRuns, Budget, Rate, Target
from psgd.analysis.comparison_json import as_json
from psgd.analysis.findings import find
from psgd.analysis.gathering import gather
from psgd.runlog import Record
from tests.analysis.runs import arm_in, arm_of, comparison_of, evaluation, run_of, write_run
from tests.records import iteration

GOLDEN = Path(__file__).with_name("report.json")
SETTINGS: dict[str, Any] = {
    "workers": 2,
    "shards": 1,
    "optimizer": "SGD",
    "optimizer_args": {"lr": 0.1, "momentum": 0.9},
    "stragglers": [],
    "options": {"model": "cnn", "data": "mnist", "optimizer": "sgd", "optimizer_args": {"momentum": 0.9}, "lr": 0.1},
}


def report_of(*arms: ArmRuns, **more: Any) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        json.dumps(as_json(find(comparison_of(*arms, **more)), Path("runs")), allow_nan=False)
    )
    return report


def records(pace: float, ends: tuple[float, ...], lag: int) -> list[Record]:
    """Two slots, four steps, an evaluation after each."""
    made: list[Record] = [
        iteration(
            **{"slot": slot, "step": step, "time_s": pace * (step + 1), "loss": 2.0 - 0.25 * step, "version": step + 1},
            **{"lag": lag, "compute_s": 0.5 * pace, "wait_s": 0.375 * pace, "transfer_s": 0.125 * pace, "bytes": 100},
        )
        for step in range(4)
        for slot in range(2)
    ]
    return [*made, *(evaluation(step, accuracy=end) for step, end in enumerate(ends, start=1))]


def test_the_report_of_small_logs_is_the_golden_one(tmp_path: Path) -> None:
    sync: dict[str, Any] = {"mode": "sync", "backups": 0}
    late: dict[str, Any] = {"mode": "async", "staleness": 4}
    runs = [
        (sync | {"seed": 0}, records(2.0, (0.5, 0.625, 0.6875, 0.75), 0)),
        (sync | {"seed": 1}, records(2.5, (0.5, 0.5625, 0.6875, 0.8125), 0)),
        (sync | {"seed": 2}, records(2.25, (0.5, 0.625, 0.71875, 0.8125), 0)),
        (late | {"seed": 0}, records(1.0, (0.5, 0.5625, 0.6875, 0.875), 1)),
        (late | {"seed": 1}, records(1.375, (0.5, 0.625, 0.71875, 0.8125), 1)),
        (late | {"seed": 2}, records(1.125, (0.5, 0.625, 0.625, 0.75), 1)),
    ]
    train = {"accuracy": 0.9, "loss": 0.125}
    told: dict[str, Any] = {"updates": 4, "idle_share": 0.5, "bytes": 800}
    folders = [
        write_run(tmp_path / str(number), made, settings=SETTINGS | settings, train=train, **told)
        for number, (settings, made) in enumerate(runs)
    ]
    figures = replace(gather(folders), budget=Budget("target"), target=Target("test_accuracy", 0.75))
    report = as_json(find(figures), tmp_path)
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(report)) == _rounded(expected)


def _rounded(value: Any) -> Any:
    """Numbers to the digits that any machine computes alike."""
    match value:
        case dict():
            return {name: _rounded(item) for name, item in value.items()}
        case list():
            return [_rounded(item) for item in value]
        case float():
            return pytest.approx(value, rel=1e-9, abs=1e-12)
        case _:
            return value


def test_a_figure_has_its_spread_its_mean_its_interval_and_each_seed() -> None:
    (mode,) = report_of(arm_of("adam", "sync", {0.001: (0.98, 0.99, 0.97)}))["modes"]
    accuracy = mode["figures"]["test_accuracy"]
    assert (accuracy["median"], accuracy["low"], accuracy["high"]) == (0.98, 0.97, 0.99)
    assert accuracy["values"] == [0.98, 0.99, 0.97]
    assert accuracy["mean"] == pytest.approx(0.98)
    assert accuracy["ci"] == pytest.approx([0.98 - 0.0248413771, 1.0])  # more than all can not be
    assert mode["figures"]["test_loss"]["ci"] == pytest.approx([0.25, 0.25])


def test_times_are_averaged_by_their_ratios() -> None:
    (mode,) = report_of(arm_in("sync", run_of(0.5, seconds=10.0), run_of(0.5, seconds=40.0)))["modes"]
    assert mode["figures"]["seconds"]["mean"] == pytest.approx(20.0)


def test_a_mean_over_some_of_the_runs_is_none() -> None:
    (mode,) = report_of(
        arm_in("sync", run_of(0.75, seconds=10.0), run_of(0.5), None), target=Target("test_accuracy", 0.75)
    )["modes"]
    assert (mode["runs"], mode["failed"], mode["diverged"], mode["reached"]) == (3, 1, 0, 1)
    assert mode["figures"]["seconds_to_target"] == {
        **{"median": None, "low": 10.0, "high": 10.0},
        **{"mean": None, "ci": None, "values": [10.0, None, None]},
    }
    assert mode["figures"]["test_accuracy"]["values"] == [0.75, 0.5, None]
    assert mode["figures"]["test_accuracy"]["mean"] == 0.625
    assert mode["folders"] == ["0", "0", None]


def test_every_learning_rate_is_kept() -> None:
    report = report_of(arm_of("adam", "sync", {0.001: (0.98, 0.99), 0.01: (0.97, None)}))
    assert report["lr_chosen_by"] == "median test_accuracy, on the test set"
    (mode,) = report["modes"]
    assert [rate["lr"] for rate in mode["lrs"]] == [0.001, 0.01]
    assert [run["seed"] for run in mode["lrs"][0]["runs"]] == [0, 1]
    assert mode["lrs"][0]["test_accuracy"] == {"median": 0.985, "low": 0.98, "high": 0.99}
    assert mode["lrs"][1]["diverged"] == 1


def test_an_arm_has_what_is_known_of_its_mode() -> None:
    arm = arm_of("sgd", "async:4/softsync=2/lag-lr", {0.1: (0.5,)})
    told = ArmRuns(arm.optimizer, arm.mode, arm.rates, {**arm.about, "gather": 2, "correction": "lag-lr"})
    first, second = report_of(arm_of("sgd", "sync+1", {0.1: (0.5,)}), told)["modes"]
    assert (first["name"], first["mode"], first["backups"], first["staleness"]) == ("sync+1", "sync", 1, None)
    assert (first["gather"], first["correction"], first["local_steps"]) == (1, None, None)
    assert (second["name"], second["mode"], second["staleness"]) == ("async:4/softsync=2/lag-lr", "async", 4)
    assert (second["gather"], second["correction"]) == (2, "lag-lr")


def test_lags_of_all_seeds_are_one_histogram() -> None:
    runs = run_of(0.5, lags={0: 2, 10: 1}), run_of(0.5, lags={0: 1, 3: 4})
    (mode,) = report_of(arm_in("async", *runs))["modes"]
    assert mode["lag_histogram"] == {"0": 3, "3": 4, "10": 1}


def test_settings_are_those_that_all_runs_share() -> None:
    one, other = ({"options": {"model": "cnn", "mode": mode}, "mode": mode} for mode in ("sync", "async"))
    report = report_of(arm_in("sync", run_of(0.5, settings=one)), arm_in("async", run_of(0.5, settings=other)))
    assert report["settings"] == {"slots": 2, "batch_size": 4, "steps": 4, "seed": 0, "options": {"model": "cnn"}}


def test_only_runs_in_a_world_are_simulated() -> None:
    virtual = run_of(0.5, settings={"world": {"compute": "exp:1"}})
    assert report_of(arm_in("sync", virtual))["simulated"] is True
    assert report_of(arm_in("sync", run_of(0.5)))["simulated"] is False


def test_a_comparison_of_nothing_is_a_report_all_the_same() -> None:
    report = report_of(ArmRuns("adam", "sync", (Rate(0.1, (None,)),)), ArmRuns("adam", "async", (Rate(0.1, (None,)),)))
    assert [mode["figures"]["seconds"]["values"] for mode in report["modes"]] == [[None], [None]]
    assert report["recommendation"] == {"mode": None, "reasons": [], "words": "There are no two arms to choose from."}
    assert (report["settings"], report["versions"], report["equal"]) == ({}, [], [])
