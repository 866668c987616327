from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from psgd.analysis.comparison_bars import MOST_LAGS, draw_lags, draw_shares, draw_throughput
from tests.analysis.runs import arm_in, comparison_of, run_of


def bars(picture: Figure, panel: int = 0) -> list[Rectangle]:
    return [patch for patch in picture.axes[panel].patches if isinstance(patch, Rectangle)]


def test_throughput_is_the_median_with_a_line_over_the_seeds() -> None:
    runs = (run_of(0.5, seconds=seconds) for seconds in (4.0, 8.0, 16.0))
    picture = draw_throughput(comparison_of(arm_in("sync", *runs), arm_in("async", None, None, None)))
    (bar,) = bars(picture)
    assert bar.get_width() == 4.0
    (line,) = picture.axes[0].get_lines()
    assert list(line.get_xdata()) == [2.0, 8.0]  # type: ignore[arg-type]
    assert [text.get_text() for text in picture.axes[0].texts] == ["4 (2–8)"]
    assert [label.get_text() for label in picture.axes[0].get_yticklabels()] == ["sync", "async"]


def test_shares_of_time_lie_end_to_end() -> None:
    told = {"compute_share": 0.5, "wait_share": 0.45, "transfer_share": 0.05}
    picture = draw_shares(comparison_of(arm_in("sync", run_of(0.5, measured=told))))
    assert [bar.get_x() for bar in bars(picture)] == pytest.approx([0.0, 0.5, 0.95])
    assert [bar.get_width() for bar in bars(picture)] == pytest.approx([0.5, 0.45, 0.05])
    assert [text.get_text() for text in picture.axes[0].texts] == ["50 %", "45 %"]  # 5 % have no room
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["compute", "wait", "transfer"]


def lagging(mode: str, **lags: int) -> Any:
    return arm_in(mode, run_of(0.5, lags={int(lag.removeprefix("by")): count for lag, count in lags.items()}))


def test_lags_are_shares_of_the_accepted_pushes_of_arms_that_have_any() -> None:
    picture = draw_lags(comparison_of(lagging("sync", by0=8), lagging("async", by0=1, by2=3)))
    (axes,) = picture.axes
    assert axes.get_title() == "async: mean 1.5, max 2"
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars(picture)] == pytest.approx([0.0, 2.0])
    assert [bar.get_height() for bar in bars(picture)] == [0.25, 0.75]


def test_many_lags_share_bars() -> None:
    many = arm_in("async", run_of(0.5, lags=dict.fromkeys(range(100), 1)))
    found = bars(draw_lags(comparison_of(many)))
    assert len(found) <= MOST_LAGS
    assert sum(bar.get_height() for bar in found) == pytest.approx(1.0)


def test_panels_without_an_arm_are_not_shown() -> None:
    picture = draw_lags(comparison_of(*(lagging(f"async:{bound}", by1=1) for bound in range(4))))
    assert [axes.get_visible() for axes in picture.axes] == [True] * 4 + [False] * 2
