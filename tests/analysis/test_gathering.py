import json
from pathlib import Path
from typing import Any

import pytest

from psgd.analysis.comparison import Budget, Target
from psgd.analysis.comparison_json import as_json
from psgd.analysis.findings import find
from psgd.analysis.gathering import find_runs, gather, mode_of
from psgd.errors import ConfigurationError
from tests.analysis.runs import evaluation, write_run

OPTIONS: dict[str, Any] = {
    "model": "cnn",
    "data": "mnist",
    "optimizer": "sgd",
    "optimizer_args": {"momentum": 0.9},
    "lr": 0.1,
}
SETTINGS: dict[str, Any] = {
    "mode": "sync",
    "backups": 0,
    "optimizer": "SGD",
    "optimizer_args": {"lr": 0.1, "momentum": 0.9},
}


def made(folder: Path, *, options: dict[str, Any] | None = None, **settings: Any) -> Path:
    """A run of the command line, with some of its settings changed."""
    named = {"options": OPTIONS | (options or {})}
    return write_run(folder, [evaluation(2, accuracy=0.5)], settings=SETTINGS | named | settings)


def by_hand(folder: Path, **settings: Any) -> Path:
    """A run of the library, whose log names neither model nor data."""
    return write_run(folder, [evaluation(2, accuracy=0.5)], settings=SETTINGS | settings)


def test_runs_are_found_where_they_are_and_however_deep(tmp_path: Path) -> None:
    alone, deep = made(tmp_path / "alone"), made(tmp_path / "many" / "sync" / "0.1" / "0")
    assert find_runs([alone, tmp_path / "many"]) == [alone, deep]
    assert find_runs([alone, alone]) == [alone]
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ConfigurationError, match=r"RUN must be a folder with a run.jsonl, or .* got .*empty: there is none"
    ):
        find_runs([alone, tmp_path / "empty"])


def test_runs_are_sorted_into_arms_rates_and_seeds(tmp_path: Path) -> None:
    folders = [
        made(tmp_path / "a", mode="async", staleness=None, seed=0),
        made(tmp_path / "b", mode="async", staleness=4, seed=0),
        made(tmp_path / "c", seed=1),
        made(tmp_path / "d", seed=0),
        made(tmp_path / "e", seed=0, options={"lr": 0.2}),
        made(tmp_path / "f", backups=1, seed=0),
    ]
    figures = gather(folders)
    assert figures.seeds == (0, 1)
    assert [(arm.optimizer, arm.mode) for arm in figures.arms] == [
        ("sgd:momentum=0.9", mode) for mode in ("sync", "sync+1", "async:4", "async")
    ]
    sync, _, bounded, _ = figures.arms
    assert [(rate.lr, [run and run.folder for run in rate.runs]) for rate in sync.rates] == [
        (0.1, [folders[3], folders[2]]),
        (0.2, [folders[4], None]),
    ]
    assert bounded.about == {
        **{"arm": "sgd:momentum=0.9, async:4", "mode": "async", "staleness": 4, "backups": 0},
        **{"optimizer": "sgd", "optimizer_args": {"momentum": 0.9}},
    }


def test_optimizers_that_no_command_named_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    plain = by_hand(tmp_path / "a", optimizer_args={"lr": 0.1, "momentum": 0, "nesterov": False})
    heavy = by_hand(tmp_path / "b", optimizer_args={"lr": 0.1, "momentum": 0.9, "nesterov": False})
    adam = by_hand(tmp_path / "c", optimizer="Adam", optimizer_args={"lr": 0.1, "betas": [0.9, 0.99]})
    figures = gather([plain, heavy, adam])
    assert {arm.optimizer for arm in figures.arms} == {"SGD:momentum=0", "SGD:momentum=0.9", "Adam"}


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, "sync"),
        ({"mode": "sync", "backups": 2}, "sync+2"),
        ({"mode": "async", "staleness": 0}, "async:0"),
        ({"mode": "async", "staleness": None, "gather": 1, "correction": None}, "async"),
        ({"mode": "async", "gather": 3, "correction": "dc=0.04"}, "async/softsync=3/dc=0.04"),
        ({"mode": "sync", "local_steps": {"steps": 8, "lr": 0.7, "momentum": 0.9}}, "sync/local=8"),
        ({"mode": "sync", "local_steps": {"steps": 8, "lr": 1.0, "momentum": 0.0}}, "sync/local=8:1:0"),
    ],
)
def test_a_mode_is_written_as_on_the_command_line(settings: dict[str, Any], mode: str) -> None:
    assert mode_of(settings) == mode


def test_runs_that_did_not_end_are_left_out_and_named(tmp_path: Path) -> None:
    broken = write_run(tmp_path / "broken", footer=False)
    figures = gather([made(tmp_path / "whole"), broken])
    assert figures.remarks == (f"Left out, as they have not come to their end: {broken}.",)
    with pytest.raises(
        ConfigurationError,
        match=r"RUN must hold runs that have come to their end, got only such as were broken off: .*broken",
    ):
        gather([broken])


@pytest.mark.parametrize(
    ("here", "there", "changes"),
    [
        ("data mnist", "data digits", {"options": {"data": "digits"}}),
        ("model cnn", "model mlp", {"options": {"model": "mlp"}}),
        ("slots 2", "slots 4", {"slots": 4}),
        ("batch_size 4", "batch_size 8", {"batch_size": 8}),
        ("no bytes", "bytes 512", {"bytes": 512}),
    ],
)
def test_runs_that_can_not_be_compared_are_refused_by_what_differs(
    tmp_path: Path, here: str, there: str, changes: dict[str, Any]
) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "other", **({"mode": "async"} | changes))
    with pytest.raises(ConfigurationError) as caught:
        gather([one, other])
    assert str(caught.value) == (
        f"RUN must be runs that can be compared, got {here} in {one} and {there} in {other}; report them apart"
    )


def test_real_and_virtual_seconds_are_not_compared(tmp_path: Path) -> None:
    real, virtual = made(tmp_path / "real"), made(tmp_path / "virtual", mode="async", world={"compute": "exp:1"})
    with pytest.raises(ConfigurationError) as refused:
        gather([real, virtual])
    assert str(refused.value) == (
        f"RUN must be runs of one world, got virtual seconds in {virtual} and real ones in {real}; report them apart, "
        "and see psgd calibrate"
    )


def test_what_ended_the_runs_is_read_from_their_options(tmp_path: Path) -> None:
    def ended(name: str, *options: dict[str, Any], **settings: Any) -> tuple[Budget, Target | None]:
        folders = [
            made(tmp_path / name / str(seed), seed=seed, options=each, **settings) for seed, each in enumerate(options)
        ]
        figures = gather(folders)
        return figures.budget, figures.target

    target = Target("test_accuracy", 0.85)
    assert ended("steps", {}, {}) == (Budget("samples"), None)
    assert ended("target", *[{"until": "test_accuracy=0.85"}] * 2) == (Budget("target", 0.85), target)
    assert ended("seconds", *[{"max_seconds": 20}] * 2) == (Budget("seconds", 20), None)
    assert ended("either", {"until": "test_accuracy=0.85"}, {}) == (Budget("various"), None)
    assert ended("both", *[{"until": "test_accuracy=0.85", "max_seconds": 20}] * 2) == (Budget("various"), None)


def test_runs_of_another_length_are_no_budget_of_samples(tmp_path: Path) -> None:
    short, long = made(tmp_path / "short", steps=96), made(tmp_path / "long", mode="async", steps=960)
    assert gather([short, long]).budget == Budget("various")
    assert gather([short, long]).title.endswith("each as long as it was set")
    local = made(tmp_path / "local", steps=12, local_steps={"steps": 8, "lr": 0.7, "momentum": 0.9})
    assert gather([short, local]).budget == Budget("samples")


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "other")
    with pytest.raises(ConfigurationError) as caught:
        gather([one, other])
    assert str(caught.value) == (
        "RUN must be runs that differ in mode, optimizer, learning rate or seed, got two of sync with seed 0: "
        f"{one} and {other}"
    )


def test_an_optimizers_arguments_are_plain_json(tmp_path: Path) -> None:
    (arm,) = gather([by_hand(tmp_path / "a", optimizer_args={"lr": 0.1, "betas": [0.9, 0.99]})]).arms
    assert json.loads(json.dumps(arm.about))["optimizer_args"] == {"betas": [0.9, 0.99]}


def test_a_seed_that_another_arm_has_is_missed_by_nobody(tmp_path: Path) -> None:
    figures = gather([made(tmp_path / "a", seed=0), made(tmp_path / "b", mode="async", seed=7)])
    found = find(figures)
    assert not any("failed" in note for note in found.notes)
    report = as_json(found, tmp_path)
    assert [(mode["runs"], mode["failed"]) for mode in report["modes"]] == [(1, 0), (1, 0)]
    assert report["statements"][0] == "sync and async have no seed in common."
