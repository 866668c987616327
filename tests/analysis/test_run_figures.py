import math
import re
from pathlib import Path
from typing import Any

import pytest

from psgd.analysis.curves import Curve
from psgd.analysis.run_figures import TRAIN_METRICS_NAME, Reached, read_run
from psgd.errors import DataError
from psgd.runlog import FILE_NAME, Record
from tests.analysis.runs import evaluation, losses, write_run
from tests.records import iteration


@pytest.mark.parametrize("spoilt", [{"loss": math.nan}, {"loss": math.inf}])
def test_a_run_whose_test_loss_ends_as_no_number_has_diverged(tmp_path: Path, spoilt: dict[str, float]) -> None:
    run = read_run(write_run(tmp_path / "run", [evaluation(1), evaluation(2, accuracy=0.1, **spoilt)]))
    assert run is not None
    assert run.diverged
    assert run.final_test == {"accuracy": 0.1}


def test_where_nothing_was_evaluated_the_training_loss_tells_whether_a_run_diverged(tmp_path: Path) -> None:
    def diverged(name: str, *steps: float | None, **changes: Any) -> bool:
        run = read_run(write_run(tmp_path / name, losses(*steps), **changes))
        assert run is not None
        return run.diverged

    assert not diverged("sound", 1.0, 0.5)
    assert diverged("lost", 1.0, 0.5, None, None)
    assert diverged("lost at once", None, None, train_loss=None)
    own: dict[str, Any] = {"settings": {"own_loop": True}, "train_loss": None}
    assert not diverged("without losses", None, None, **own)
    assert diverged("own", 1.0, 0.5, None, None, **own)


def test_a_sound_test_loss_tells_more_than_the_last_mini_batch(tmp_path: Path) -> None:
    records = [*losses(1.0, None), evaluation(1), evaluation(2, accuracy=0.98)]
    run = read_run(write_run(tmp_path / "run", records, train_loss=None))
    assert run is not None
    assert not run.diverged


def test_metrics_on_the_training_set_are_read_from_beside_the_log(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", train={"accuracy": 0.5, "loss": None}))
    assert run is not None
    assert run.final_train == {"accuracy": 0.5}


def test_what_is_not_complete_is_no_run(tmp_path: Path) -> None:
    assert read_run(tmp_path / "nowhere") is None
    assert read_run(write_run(tmp_path / "broken off", losses(1.0), footer=False)) is None
    killed = write_run(tmp_path / "killed")
    (killed / FILE_NAME).write_text((killed / FILE_NAME).read_text().removesuffix("\n"))
    assert read_run(killed) is None


def test_damaged_files_are_named(tmp_path: Path) -> None:
    damaged = write_run(tmp_path / "run", train={})
    (damaged / TRAIN_METRICS_NAME).write_text("{")
    with pytest.raises(DataError, match=f"{TRAIN_METRICS_NAME}: expected metrics as JSON, got .*; remove it"):
        read_run(damaged)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *((name, None, " must be a whole number >= 1, got none") for name in ("slots", "batch_size")),
        *((name, 0, " must be a whole number >= 1, got 0") for name in ("slots", "batch_size", "steps", "workers")),
        ("steps", "many", " must be a whole number >= 1, got 'many'"),
        ("seed", None, " must be a whole number >= 0, got none"),
        ("seed", "lucky", " must be a whole number >= 0, got 'lucky'"),
        ("local_steps", 8, " must be values by name, got 8"),
        ("local_steps", {"lr": 0.7}, ".steps must be a whole number >= 1, got none"),
        ("options", "--lr 0.1", " must be values by name, got '--lr 0.1'"),
        ("optimizer_args", ["lr"], " must be values by name, got ['lr']"),
    ],
)
def test_settings_that_figures_can_not_be_made_of_are_named_with_the_file(
    tmp_path: Path, name: str, value: object, words: str
) -> None:
    folder = write_run(tmp_path / "run", losses(1.0), settings={name: value})
    with pytest.raises(DataError, match=rf"^{folder / FILE_NAME}: the header's {name}{re.escape(words)}$"):
        read_run(folder)


@pytest.mark.parametrize("name", ["slots", "batch_size", "seed"])
def test_a_setting_that_is_missing_is_named_with_the_file(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "run", losses(1.0))
    log = folder / FILE_NAME
    log.write_text(log.read_text().replace(f'"{name}"', '"of another kind"'))
    with pytest.raises(DataError, match=rf"^{log}: the header's {name} must be a whole number >= [01], got none$"):
        read_run(folder)


SAID_BY_NOBODY = {"own_loop": True, "batch_size": None, "steps": None, "workers": None}


def test_settings_that_say_nothing_need_not_be_there(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", losses(1.0), settings=SAID_BY_NOBODY))
    assert run is not None
    assert run.train_loss.values == (1.0,)


def test_a_slot_that_the_run_has_not_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", losses(1.0, slot=2))
    with pytest.raises(DataError, match=rf"^{folder / FILE_NAME}: slots must be 0 … 1 as the header says, got 2$"):
        read_run(folder)


def timed(*times: float, slot: int = 0, **changes: Any) -> list[Record]:
    """A slot's iterations, one a step, that finished at these times."""
    return [iteration(slot=slot, step=step, time_s=time, **changes) for step, time in enumerate(times)]


def test_a_target_is_reached_when_the_steps_before_its_evaluation_had_finished(tmp_path: Path) -> None:
    late = [
        evaluation(1, accuracy=0.5),
        evaluation(2, accuracy=0.75),
        evaluation(3, accuracy=0.7),
    ]  # at 2.0 s in the log
    run = read_run(write_run(tmp_path / "run", [*timed(1.0, 3.0, 4.0), *timed(1.5, 3.5, 5.0, slot=1), *late]))
    assert run is not None
    assert run.test["accuracy"] == Curve((8.0, 16.0, 24.0), (1.5, 3.5, 5.0), (0.5, 0.75, 0.7))
    assert run.reach("accuracy", 0.75, "max") == Reached(16, 3.5, samples_before=8, seconds_before=1.5)
    assert run.reach("accuracy", 0.5, "max") == Reached(8, 1.5)
    assert run.reach("accuracy", 0.76, "max") is None
    assert run.reach("loss", 0.25, "min") == Reached(8, 1.5)
    assert run.reach("f1", 0.5, "max") is None


def test_in_rounds_a_slot_that_is_never_heard_does_not_delay_the_target(tmp_path: Path) -> None:
    heard, late = timed(1.0, 2.0), timed(9.0, slot=1, status="late")
    settings = {"mode": "sync", "backups": 1}
    run = read_run(write_run(tmp_path / "run", [*heard, *late, evaluation(2, accuracy=0.5)], settings=settings))
    assert run is not None
    assert run.reach("accuracy", 0.5, "max") == Reached(16, 2.0)
    assert run.heard == ((2, 2), (1, 0))


def test_what_the_last_line_says_wins_over_what_iterations_tell(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", timed(1.0, 2.0), idle_share=0.125))
    assert run is not None
    assert run.figure("idle_share") == 0.125
    assert run.figure("wait_share") == pytest.approx(1 / 3)
    assert run.figure("nonsense") is None


def test_a_run_of_times_alone_has_not_diverged(tmp_path: Path) -> None:
    settings = {"gradients": "none", "world": {"compute": "exp:1"}}
    run = read_run(write_run(tmp_path / "run", timed(1.0, loss=None), settings=settings, train_loss=None))
    assert run is not None
    assert run.simulated
    assert not run.diverged
