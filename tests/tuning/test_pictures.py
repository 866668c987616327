import math
import sys
from pathlib import Path
from typing import Any

import pytest

from psgd.errors import ConfigurationError
from psgd.tuning.pictures import (
    HISTORY_NAME,
    IMPORTANCE_NAME,
    PARALLEL_NAME,
    draw,
    draw_history,
    draw_importance,
    draw_parallel,
    importances,
)
from psgd.tuning.space import Choices, Range, Space
from psgd.tuning.trials import Measured, Status, Trial

SPACE: Space = {"lr": Range(1e-4, 1e-1, log=True), "optimizer_args.weight_decay": Choices((0.001, 0, None))}


def trial(number: int, lr: float, decay: float | None, accuracy: float | None, status: Status = "done") -> Trial:
    measured = () if accuracy is None else (Measured(10, 1.0, {"acc": accuracy}),)
    return Trial(number, {"lr": lr, "optimizer_args.weight_decay": decay}, status, None, measured)


TRIALS = [
    trial(0, 1e-4, 0, 0.7),
    trial(1, 1e-3, 0.001, 0.8, "stopped"),
    trial(2, 1e-2, None, 0.9),
    trial(3, 1e-1, 0, None, "refused"),
    trial(4, 1e-1, 0, 0.1),
    trial(5, 1e-2, 0, 0.85),
    trial(6, 2e-2, 0.001, 0.88),
]
MEASURED = [each for each in TRIALS if each.value("acc") is not None]


def test_the_history_shows_each_trial_and_the_best_until_then() -> None:
    axes = draw_history(TRIALS, "acc", "max").axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines["trained to its end"].get_xdata()) == [0, 2, 5, 6]  # type: ignore[arg-type]
    assert list(lines["stopped early"].get_xdata()) == [1]  # type: ignore[arg-type]
    assert list(lines["refused, failed or diverged"].get_xdata()) == [3]  # type: ignore[arg-type]
    assert list(lines["far off"].get_xdata()) == [4]  # type: ignore[arg-type]
    assert list(lines["best so far"].get_ydata()) == [0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9]  # type: ignore[arg-type]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("trial", "acc")


def test_the_best_falls_where_less_is_better() -> None:
    lines = draw_history(TRIALS, "acc", "min").axes[0].get_lines()
    assert list(lines[-1].get_ydata())[-3:] == [0.1, 0.1, 0.1]  # type: ignore[arg-type]


def test_a_parallel_line_crosses_each_axis_at_its_setting_and_the_best_lies_on_top() -> None:
    axes = draw_parallel(SPACE, MEASURED, "acc", "max").axes[0]
    [lines] = axes.collections
    paths: list[Any] = [path.vertices for path in lines.get_paths()]
    assert len(paths) == 6
    best = paths[-1]
    assert [x for x, _ in best] == [0, 1, 2]
    assert best[0][1] == pytest.approx(2 / 3)  # 1e-2 of 1e-4 … 1e-1
    assert best[1][1] == pytest.approx(1 / 6)  # the lowest of three choices
    assert best[2][1] == max(path[2][1] for path in paths)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lr", "optimizer_args.\nweight_decay", "acc"]
    assert {"0.0001", "0.1", "none", "0.001", "far off"} <= {text.get_text() for text in axes.texts}


def test_numbers_ascend_on_their_axis_in_whatever_order_they_are_listed() -> None:
    space: Space = {"lr": Choices((0.1, 0.001, 0.01))}
    trials = [Trial(k, {"lr": lr}, "done", None, (Measured(1, 1.0, {"acc": lr}),)) for k, lr in enumerate((0.1, 0.001))]
    texts = draw_parallel(space, trials, "acc", "max").axes[0].texts
    heights = {text.get_text(): text.get_position()[1] for text in texts}
    assert heights["0.001"] < heights["0.01"] < heights["0.1"]


def test_the_setting_that_decides_has_the_greatest_share() -> None:
    space: Space = {"lr": Range(1e-4, 1e-1, log=True), "shards": Choices((1, 2))}
    trials = [
        Trial(k, {"lr": lr, "shards": 1 + k % 2}, "done", None, (Measured(1, 1.0, {"acc": -math.log10(lr)}),))
        for k, lr in enumerate((1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2))
    ]
    shares = importances(space, trials, "acc")
    assert list(shares) == ["lr", "shards"]
    assert sum(shares.values()) == pytest.approx(1.0)
    bars = draw_importance(shares, "acc").axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx([shares["shards"], shares["lr"]])  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [0, 4])
def test_few_trials_say_nothing_of_importance(count: int) -> None:
    with pytest.raises(ConfigurationError, match=f"it takes 5 trials that differ in two settings .* got {count}"):
        importances(SPACE, MEASURED[:count], "acc")


def test_all_pictures_are_written(tmp_path: Path) -> None:
    assert draw(SPACE, TRIALS, "acc", "max", tmp_path) == []
    for name in (HISTORY_NAME, PARALLEL_NAME, IMPORTANCE_NAME):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_left_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [line] = draw(SPACE, TRIALS[:2], "acc", "max", tmp_path)
    assert line.startswith("no importance.png: it takes 5 trials")
    assert sorted(path.name for path in tmp_path.iterdir()) == [HISTORY_NAME, PARALLEL_NAME]
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for name in [name for name in sys.modules if name.startswith("sklearn.") or "optuna.importance" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    [line] = draw(SPACE, TRIALS, "acc", "max", tmp_path)
    assert line == "no importance.png: it takes Optuna and scikit-learn: pip install 'psgd[tune]'"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    [line] = draw(SPACE, TRIALS, "acc", "max", tmp_path)
    assert line.startswith("no pictures: ")
    assert line.endswith("pip install 'psgd[plots]'")


def test_without_a_metric_there_is_nothing_to_draw(tmp_path: Path) -> None:
    assert draw(SPACE, [TRIALS[3]], "acc", "max", tmp_path) == []
    assert list(tmp_path.iterdir()) == []
