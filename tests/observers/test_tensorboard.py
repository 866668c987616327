import struct
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event

from psgd.observers import TensorBoardWriter
from psgd.runlog import Notice, Reported
from tests.records import EVALUATION, iteration


def read_points(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of every point in the folder's only event file."""
    (file,) = (folder / "tensorboard").iterdir()
    content, points, at = file.read_bytes(), [], 0
    while at < len(content):  # length (8 bytes), its checksum (4), the event, its checksum (4)
        (size,) = struct.unpack_from("<Q", content, at)
        event: Any = Event.FromString(content[at + 12 : at + 12 + size])
        points += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        at += 12 + size + 4
    return points


def test_a_step_of_all_slots_is_one_point(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path, slots=2)
    for step in range(2):
        writer(iteration(slot=0, step=step, loss=1.0, lag=0))
        writer(iteration(slot=1, step=step, loss=2.0, lag=1))
    writer.close()
    points = read_points(tmp_path)
    assert [point for point in points if point[0] == "train/loss"] == [("train/loss", 1, 1.5), ("train/loss", 2, 1.5)]
    assert ("train/lag", 1, 0.5) in points
    assert ("train/compute_s", 2, 0.25) in points
    assert ("train/wait_s", 2, 0.125) in points
    assert [tag for tag, step, _ in points if step == 1 and tag.startswith("train/lr")] == ["train/lr/0"]


def test_local_steps_have_curves_of_both_learning_rates(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path, slots=1)
    writer(iteration(lr=(0.75,), inner_lr=(0.5, 0.25)))
    writer.close()
    rates = {tag: value for tag, _, value in read_points(tmp_path) if "lr" in tag}
    assert rates == {"train/lr/0": 0.75, "train/inner_lr/0": 0.5, "train/inner_lr/1": 0.25}


def test_loops_that_tell_no_loss_have_no_curve_of_it(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path, slots=1)
    writer(iteration(loss=None))
    writer.close()
    assert "train/loss" not in [tag for tag, _, _ in read_points(tmp_path)]


def test_evaluations_reports_and_notices_are_written(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path, slots=1)
    writer(EVALUATION)
    writer(Reported(1.0, 1, {"f1": 0.5}))
    writer(Notice(1.0, "worker 1 replaced"))
    writer.close()
    points = read_points(tmp_path)
    assert points[:3] == [
        ("evaluation/test_loss", 3, 0.25),
        ("evaluation/test_accuracy", 3, 0.75),
        ("slot_1/f1", 0, 0.5),
    ]
    assert points[3][0].startswith("notices")


def test_nothing_is_written_before_there_is_something_to_write(tmp_path: Path) -> None:
    TensorBoardWriter(tmp_path, slots=1).close()
    assert list(tmp_path.iterdir()) == []
