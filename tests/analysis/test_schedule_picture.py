from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psgd.analysis.schedule_picture import draw_schedule


def only_axes(picture: Figure) -> Axes:
    (axes,) = picture.axes
    return axes


def test_a_rate_is_drawn_from_its_step_to_the_next(drawn: list[Figure], tmp_path: Path) -> None:
    draw_schedule([(0.1,), (0.2,), (0.05,)], tmp_path / "lr.png", "mine")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    axes = only_axes(drawn[0])
    (line,) = axes.lines
    assert (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()) == (
        [0, 1, 2, 3],
        [0.1, 0.2, 0.05, 0.05],
    )
    assert line.get_drawstyle() == "steps-post"
    assert (axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()) == ("mine", "step", "learning rate")
    assert drawn[0].legends == []


def test_groups_have_a_line_each_and_share_it_where_they_are_alike(drawn: list[Figure], tmp_path: Path) -> None:
    draw_schedule([(0.1, 0.2, 0.1), (0.05, 0.1, 0.05)], tmp_path / "lr.svg", "three groups")
    assert [line.get_label() for line in only_axes(drawn[0]).lines] == ["groups 0, 2", "group 1"]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["groups 0, 2", "group 1"]


def test_epochs_are_marked_where_they_begin(drawn: list[Figure], tmp_path: Path) -> None:
    draw_schedule([(0.1,)] * 10, tmp_path / "lr.png", "epochs", steps_per_epoch=4)
    axes = only_axes(drawn[0])
    assert [np.asarray(line.get_xdata()).tolist() for line in axes.lines[1:]] == [[4, 4], [8, 8]]
    (above,) = axes.child_axes
    assert above.get_xlabel() == "epoch"
    assert above.get_xlim() == (0.0, 2.5)
