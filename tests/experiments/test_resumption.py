from pathlib import Path
from typing import Any

import pytest

from psgd.errors import ConfigurationError, DataError
from psgd.experiments.resumption import State, clear, state_of
from psgd.runlog import FILE_NAME
from tests.analysis.runs import SETTINGS, losses, write_run


def test_a_folder_without_a_log_has_no_run(tmp_path: Path) -> None:
    assert state_of(tmp_path, SETTINGS) is State.ABSENT
    assert state_of(tmp_path / "nowhere", SETTINGS) is State.ABSENT


def test_a_log_with_its_last_line_is_a_complete_run(tmp_path: Path) -> None:
    assert state_of(write_run(tmp_path / "run", losses(1.0)), SETTINGS) is State.COMPLETE


def test_settings_are_compared_as_a_log_holds_them(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", settings={"betas": (0.9, 0.99), "options": {"lr": 0.1, "eps": float("inf")}})
    asked = SETTINGS | {"betas": (0.9, 0.99), "options": {"lr": 0.1, "eps": float("inf")}}
    assert state_of(folder, asked) is State.COMPLETE


@pytest.mark.parametrize("torn", ["", '{"kind": "head', None])
def test_a_log_that_does_not_end_was_broken_off(tmp_path: Path, torn: str | None) -> None:
    folder = write_run(tmp_path / "run", losses(1.0), footer=False)
    if torn is not None:
        (folder / FILE_NAME).write_text(torn)
    assert state_of(folder, SETTINGS) is State.BROKEN_OFF


def test_a_footer_that_was_not_written_to_its_end_does_not_count(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / FILE_NAME).write_text((folder / FILE_NAME).read_text()[:-1])
    assert state_of(folder, SETTINGS) is State.BROKEN_OFF


@pytest.mark.parametrize(
    ("there", "asked", "words"),
    [
        ({"steps": 8}, {}, "steps is 8 there, 4 here"),
        ({"options": {"data": "mnist", "lr": 1}}, {"options": {"data": "digits", "lr": 1}}, "data is mnist there, dig"),
        ({}, {"clip": 1.0}, "clip is none there, 1.0 here"),
        ({}, {"options": {"until": "test_loss=1"}}, "budget target is none there, test_loss=1 here"),
        (
            {"options": {"epochs": None, "max_seconds": None}},
            {"options": {"epochs": 1000, "max_seconds": 5.0}},
            "budget seconds is none there, 5.0 here",
        ),
        (
            {"steps": 8, "evaluate_every": 2, "options": {"evaluate_every": 2, "steps": 8}},
            {"evaluate_every": 1, "options": {"evaluate_every": 1, "steps": 4}},
            ": steps is 8 there, 4 here",
        ),
        ({}, {"plane": "memory", "world": {"slots": {}, "compute": "1"}}, "simulate is off there, on here"),
        ({"world": {"slots": {}}}, {}, "simulate is on there, off here"),
        ({"world": {"compute": "2"}}, {"world": {"compute": "exp:2"}}, ": compute is 2 there, exp:2 here"),
        ({"world": {"slots": {}}}, {"world": {"slots": {"1": "3"}}}, ": compute_of 1 is none there, 3 here"),
        ({"options": {"plateau": None}}, {"options": {"plateau": {"patience": 3}}}, ": plateau.patience is none there"),
        ({"loss": "x"}, {"loss": "y" * 41}, f"loss is x there, {'y' * 39}… here"),
        ({"loss": "y" * 41 + "x"}, {"loss": "y" * 42}, f"loss is {'y' * 41}x there, {'y' * 42} here"),
    ],
)
@pytest.mark.parametrize("complete", [True, False], ids=["complete", "broken off"])
def test_a_run_of_other_settings_is_not_lost(
    tmp_path: Path, there: dict[str, Any], asked: dict[str, Any], words: str, complete: bool
) -> None:
    folder = write_run(tmp_path / "run", losses(1.0), settings=there, footer=complete)
    with pytest.raises(ConfigurationError, match=r"^out must be without runs of other settings") as caught:
        state_of(folder, SETTINGS | asked)
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("line", [1, 2])
def test_a_log_that_is_damaged_at_either_end_is_named(tmp_path: Path, line: int) -> None:
    log = write_run(tmp_path / "run") / FILE_NAME
    lines = log.read_bytes().splitlines(keepends=True)
    lines[line - 1] = b"\xff" + lines[line - 1]
    log.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match=rf"^{log}, line {line}: not a record of a run log: ") as caught:
        state_of(log.parent, SETTINGS)
    assert str(caught.value).endswith(f"; remove {log.parent} to have the run made again")


def test_clearing_removes_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", footer=False)
    clear(folder)
    assert not folder.exists()
