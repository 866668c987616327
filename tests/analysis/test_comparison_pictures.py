import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.lines import Line2D

from psgd.analysis.comparison import ArmRuns, Rate, Target
from psgd.analysis.comparison_pictures import draw, draw_curves, draw_losses, draw_sensitivity
from psgd.analysis.curves import Curve
from psgd.errors import ConfigurationError
from tests.analysis.runs import arm_in, arm_of, comparison_of, run_of

ADAM = arm_of("adam", "sync", {0.001: (0.98, 0.99, 0.985), 0.01: (0.96, 0.97, 0.95)})
LATE = arm_of("adam", "async:4", {0.001: (0.97, 0.98, 0.975), 0.01: (None, 0.9, 0.95)})
SGD = arm_of("sgd", "sync", {0.1: (0.97, 0.96, 0.965)})


def points(line: Line2D) -> list[list[float]]:
    """x and y of each."""
    found: list[list[float]] = np.column_stack(line.get_data()).tolist()
    return found


def test_the_pictures_that_make_sense_are_drawn(tmp_path: Path) -> None:
    told = {"compute_share": 0.5, "wait_share": 0.25, "transfer_share": 0.25}
    late = arm_in("async", run_of(0.5, measured=told, lags={0: 1, 2: 3}))
    drawn = draw(comparison_of(late), tmp_path)
    assert drawn == ["curves.png", "loss.png", "throughput.png", "time_shares.png", "lags.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)


def test_only_with_several_learning_rates_there_is_sensitivity_to_show(tmp_path: Path) -> None:
    assert draw(comparison_of(SGD), tmp_path) == ["curves.png", "loss.png", "throughput.png"]
    assert draw(comparison_of(ADAM, LATE, SGD), tmp_path) == [
        *("curves.png", "loss.png", "sensitivity.png", "throughput.png")
    ]


def test_without_a_run_there_is_nothing_to_draw(tmp_path: Path) -> None:
    assert draw(comparison_of(ArmRuns("adam", "sync", (Rate(0.1, (None,)),))), tmp_path) == []


def test_a_run_of_times_alone_has_no_curves(tmp_path: Path) -> None:
    timed = run_of(0.5, settings={"gradients": "none"}, test={}, final_test={}, train_loss=Curve())
    assert draw(comparison_of(arm_in("sync", timed)), tmp_path) == ["throughput.png"]


def test_a_curve_is_the_median_over_the_seeds_in_a_band() -> None:
    left, _ = draw_curves(comparison_of(ADAM)).axes
    (line,) = left.get_lines()
    assert points(line) == [[16, 0.5], [32, 0.985]]
    (band,) = left.collections
    assert {tuple(point) for point in np.asarray(band.get_paths()[0].vertices).tolist()} >= {(32, 0.98), (32, 0.99)}
    left, _ = draw_losses(comparison_of(ADAM)).axes
    assert points(left.get_lines()[0]) == [[16, 1.0], [32, 0.5]]


def test_seeds_with_points_of_their_own_meet_between_them_and_keep_what_they_ended_with() -> None:
    """Runs that end by the clock, or at a target, share no points."""
    slopes = [Curve((1.0, end), (2.0, 2 * end), (1.0, end)) for end in (2.0, 3.0, 4.0)]
    runs = (run_of(0.5, test={"accuracy": curve}, train_loss=curve) for curve in slopes)
    figures = comparison_of(arm_in("sync", *runs))
    for drawn in (draw_curves(figures), draw_losses(figures)):
        left, right = (points(axes.get_lines()[0]) for axes in drawn.axes)
        assert (left[0], left[-1]) == ([1.0, 1.0], [4.0, 3.0])
        assert all(y == pytest.approx(min(x, 3.0)) for x, y in left)
        assert all(y == pytest.approx(min(x / 2, 3.0)) for x, y in right)


def test_the_target_is_a_line_across_both() -> None:
    left, right = draw_curves(comparison_of(SGD, target=Target("test_accuracy", 0.75))).axes
    assert [points(axes.get_lines()[-1])[0][1] for axes in (left, right)] == [0.75, 0.75]


def test_arms_are_labelled_with_their_rate_only_where_rates_differ() -> None:
    assert [line.get_label() for line in draw_curves(comparison_of(ADAM, SGD)).axes[0].get_lines()] == [
        *("adam (lr 0.001)", "sgd (lr 0.1)")
    ]
    assert draw_curves(comparison_of(SGD)).axes[0].get_lines()[0].get_label() == "sgd"


def test_runs_that_diverged_are_in_no_curve() -> None:
    arm = arm_of("adam", "sync", {0.1: (0.75, 0.5, None)})
    left, _ = draw_curves(comparison_of(arm)).axes
    assert points(left.get_lines()[0])[-1] == [32, 0.625]
    left, _ = draw_losses(comparison_of(arm)).axes
    (band,) = left.collections
    assert np.asarray(band.get_paths()[0].vertices)[:, 1].min() == 0.5


def test_optimizers_have_colours_and_modes_have_styles() -> None:
    adam, late, sgd = draw_curves(comparison_of(ADAM, LATE, SGD)).axes[0].get_lines()
    assert same_color(adam.get_color(), late.get_color())
    assert not same_color(adam.get_color(), sgd.get_color())
    assert (adam.get_linestyle(), late.get_linestyle(), sgd.get_linestyle()) == ("-", "--", "-")


def test_modes_of_one_optimizer_have_colours() -> None:
    adam, late = draw_curves(comparison_of(ADAM, LATE)).axes[0].get_lines()
    assert not same_color(adam.get_color(), late.get_color())
    assert late.get_linestyle() == "-"


def test_the_best_rate_is_ringed_and_those_that_diverged_are_crossed() -> None:
    (axes,) = draw_sensitivity(comparison_of(LATE)).axes
    line, ring, cross = axes.get_lines()
    assert points(line) == [[0.001, 0.975], [0.01, 0.925]]
    assert points(ring) == [[0.001, 0.975]]
    assert points(cross)[0][0] == 0.01
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.001", "0.01"]


@pytest.mark.parametrize(("metric", "height"), [("accuracy", 0.03), ("rmse", 0.97)])
def test_crosses_are_at_the_end_of_the_worst(metric: str, height: float) -> None:
    arm = arm_of("adam", "sync", {0.1: (0.5,), 0.2: (None,)}, metric)
    (axes,) = draw_sensitivity(comparison_of(arm)).axes
    assert points(axes.get_lines()[2]) == [[0.2, height]]


def test_an_error_that_spans_a_decade_is_drawn_by_its_logarithm() -> None:
    wide, narrow = (arm_of("adam", "sync", {0.1: (end,)}, "rmse") for end in (0.01, 0.4))
    assert draw_curves(comparison_of(wide)).axes[0].get_yscale() == "log"
    assert draw_curves(comparison_of(narrow)).axes[0].get_yscale() == "linear"


def test_all_of_the_accuracy_is_inside_the_picture() -> None:
    left, _ = draw_curves(comparison_of(ADAM, SGD)).axes
    low, high = left.get_ylim()
    assert low < 0.5
    assert 0.99 < high < 0.995


def test_a_perfect_accuracy_can_be_drawn(tmp_path: Path) -> None:
    perfect = arm_of("adam", "sync", {0.1: (1.0, 1.0)})
    assert "curves.png" in draw(comparison_of(perfect), tmp_path)


def test_an_arm_that_always_diverged_has_a_cross_and_no_curve(tmp_path: Path) -> None:
    arm = arm_of("adam", "sync", {0.1: (None,), 0.2: (None,)})
    assert "sensitivity.png" in draw(comparison_of(arm), tmp_path)


def test_without_matplotlib_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'psgd\[plots\]'"):
        draw(comparison_of(ADAM), tmp_path)
