import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from psgd.analysis.curves import Curve
from psgd.analysis.page import PAGE_NAME, as_script, render, write_page
from psgd.analysis.page.contents import page_contents
from psgd.analysis.page.plots import MOST_POINTS, plot_data
from psgd.analysis.page.table import cards, groups
from psgd.analysis.run_figures import RunFigures
from tests.analysis.page.reports import figure, make

SCHEMA_NULLS: dict[str, Any] = {
    "target": None,
    "comparisons": [],
    "recommendation": {"mode": None, "reasons": [], "words": ""},
}


def report_of(*modes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return (
        {"title": "t", "metric": "test_accuracy", "goal": "max", "seeds": [0], "modes": list(modes)}
        | SCHEMA_NULLS
        | changes
    )


def mode_of(name: str = "sync", runs: int = 1, **figures: list[float | None]) -> dict[str, Any]:
    return {"name": name, "runs": runs, "figures": {key: figure(values) for key, values in figures.items()}}


def text_of(page: str) -> str:
    """What a reader sees, without markup, scripts and styles."""
    body = re.sub(r"(?s)<(script|style)\b.*?</\1>", " ", page)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)).replace("\xa0", " ")


def cells(report: Mapping[str, Any], label: str) -> list[tuple[str, str, str]]:
    line = next(line for _, lines in groups(report) for line in lines if line.label == label)
    return [(cell.median, cell.spread, cell.remark) for cell in line.cells]


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    page = write_page(report_of(mode_of()), {}, tmp_path)
    assert page == tmp_path / PAGE_NAME
    markup = re.sub(r"(?s)<script\b.*?</script>", "", page.read_text(encoding="utf-8"))
    assert not re.search(r"""(?:src|href)=["'](?!#)|url\(|@import""", markup)
    assert "default-src 'none'" in markup


def test_hostile_names_are_text() -> None:
    name = "</script><img src=x onerror=alert(1)>\u2028"
    runs = {name: [RunFigures(train_loss=Curve((1.0,), (1.0,), (1.0,)))]}
    report = report_of(
        mode_of(name),
        title=name,
        notes=[name],
        settings={name: name},
        equal=[name],
        versions=[name],
        recommendation={"mode": name, "reasons": [name], "words": name},
    )
    page = render(report, runs)
    assert "<img" not in page
    assert page.count("</script>") == 6  # the data, plotly and four of ours
    data = re.search(r'id="report-data">(.*?)</script>', page)
    assert data is not None
    assert json.loads(data[1])["modes"] == [name]


def test_json_in_a_script_is_the_same_json() -> None:
    value = ["</script>", "<!--", "a & b", "\u2028\u2029", {"é": None}]
    assert json.loads(as_script(value)) == value
    assert not set("<>&\u2028\u2029") & set(as_script(value))


def test_what_the_report_does_not_have_is_not_on_the_page() -> None:
    page = render(report_of(mode_of(seconds=[2.0])), {})
    assert re.findall(r'<section id="(\w+)"', page) == ["figures", "details"]
    assert 'class="plot' not in page
    assert "There are no losses and no evaluations in these runs" in page
    assert "None" not in text_of(page)


def test_a_mode_with_no_run_at_all_has_a_column() -> None:
    report = report_of(mode_of(seconds=[2.0]), {"name": "async", "runs": 0, "failed": 3, "figures": {}})
    assert cells(report, "Duration") == [("2.00 s", "", ""), ("no run", "", "")]
    assert "0 runs, 3 failed" in text_of(render(report, {}))


def test_the_answer_comes_first() -> None:
    recommendation = {"mode": "async", "reasons": ["It is 2 times as fast."], "words": "async wins."}
    report = report_of(
        mode_of("sync", samples_per_s=[10.0]), mode_of("async", samples_per_s=[20.0]), recommendation=recommendation
    )
    words = text_of(render(report, {}))
    assert (
        words.index("async wins.")
        < words.index("It is 2 times as fast.")
        < words.index("20.0/s")
        < words.index("Mode by mode")
    )


def test_without_a_recommendation_the_key_figures_are_ranges_over_the_modes() -> None:
    report = report_of(mode_of("sync", samples_per_s=[10.0]), mode_of("async", samples_per_s=[20.0]))
    assert [(card.label, card.big, card.whose) for card in cards(report)] == [("Samples per second", "10.0–20.0/s", "")]


def test_a_single_mode_is_told_in_a_sentence() -> None:
    report = report_of(mode_of(seconds=[4.2], test_accuracy=[0.9]))
    assert "sync ends at 90.00 % test accuracy after 4.20 s" in text_of(render(report, {}))


def test_a_spread_stands_below_the_median() -> None:
    report = report_of(mode_of(runs=3, seconds=[2.0, 4.0, 3.0], test_accuracy=[0.9, 0.92, 0.91]))
    assert cells(report, "Duration") == [("3.00 s", "2.00–4.00 s", "")]
    assert cells(report, "Test accuracy") == [("91.00 %", "90.00–92.00 %", "")]


def test_a_target_that_was_not_reached_is_no_time() -> None:
    target = {"metric": "test_accuracy", "value": 0.85}
    modes = [
        {**mode_of("a", 3, seconds_to_target=[2.0, None, 3.0]), "reached": 2},
        {**mode_of("b", 3, seconds_to_target=[None, None, None]), "reached": 0},
        {**mode_of("c", 3, seconds_to_target=[None, 2.0, None]), "reached": 1},
    ]
    report = report_of(*modes, target=target)
    assert cells(report, "Time to 85 % test accuracy") == [
        ("3.00 s", "2.00–3.00 s", "2 of 3 reached it"),
        ("not reached", "", ""),
        ("–", "2.00 s", "1 of 3 reached it"),
    ]
    assert [strip.value for strip in cards(report)[0].strips] == ["3.00 s (2 of 3)", "not reached", "1 of 3 reached it"]


def test_diverged_runs_are_told_where_their_metric_is_missing() -> None:
    modes = [
        {**mode_of("a", 2, test_accuracy=[0.5, None]), "diverged": 1},
        {**mode_of("b", 2, test_accuracy=[None, None]), "diverged": 2},
    ]
    assert cells(report_of(*modes), "Test accuracy") == [("–", "50.00 %", "1 of 2 diverged"), ("diverged", "", "")]


def test_the_accuracy_of_a_run_whose_loss_diverged_is_no_part_of_the_median_either() -> None:
    lost, sound = Curve((1.0, 2.0), (1.0, 2.0), (1.0, None)), Curve((1.0, 2.0), (1.0, 2.0), (0.5, 0.75))
    chance = Curve((1.0, 2.0), (1.0, 2.0), (0.1, 0.1))
    runs = RunFigures(test={"accuracy": chance}, train_loss=lost), RunFigures(test={"accuracy": sound})
    metric = plot_data(report_of(mode_of("a", 2)), {"a": runs})["metrics"][0]
    assert metric["key"] == "test_accuracy"
    assert metric["modes"][0]["samples"]["y"] == [0.5, 0.75]
    assert [seed["diverged"] for seed in metric["modes"][0]["seeds"]] == [True, False]


def test_the_curve_of_a_run_that_diverged_is_no_part_of_the_median() -> None:
    sound, lost = Curve((1.0, 2.0), (1.0, 2.0), (4.0, 2.0)), Curve((1.0, 2.0), (1.0, 2.0), (4.0, None))
    data = plot_data(report_of(mode_of()), {"sync": [RunFigures(train_loss=sound), RunFigures(train_loss=lost)]})
    (curves,) = data["metrics"][0]["modes"]
    assert curves["samples"] == {"x": [1.0, 2.0], "y": [4.0, 2.0]}
    assert [(seed["values"], seed["diverged"]) for seed in curves["seeds"]] == [
        ([4.0, 2.0], False),
        ([4.0, None], True),
    ]


def test_the_reports_metric_is_the_first_picture_and_the_training_loss_the_last() -> None:
    curve = Curve((1.0,), (1.0,), (0.5,))
    run = RunFigures(test={"loss": curve, "accuracy": curve}, train_loss=curve)
    data = plot_data(report_of(mode_of(), target={"metric": "test_accuracy", "value": 0.85}), {"sync": [run]})
    assert [(each["key"], each["percent"], each["goal"], each["target"]) for each in data["metrics"]] == [
        ("test_accuracy", True, "max", 0.85),
        ("test_loss", False, "min", None),
        ("train_loss", False, "min", None),
    ]


def test_long_curves_are_thinned() -> None:
    numbers = tuple(map(float, range(1, 401)))
    run = RunFigures(test={"loss": Curve(numbers, numbers, numbers)})
    (seed,) = plot_data(report_of(mode_of()), {"sync": [run]})["metrics"][0]["modes"][0]["seeds"]
    assert [len(seed[name]) for name in ("samples", "seconds", "values")] == [MOST_POINTS] * 3
    assert (seed["values"][0], seed["values"][-1]) == (1.0, 400.0)


def test_many_lags_share_bars() -> None:
    report = report_of({**mode_of(), "lag_histogram": {"0": 1, "1": 1, "119": 2}})
    assert plot_data(report, {})["lags"] == {
        "width": 2,
        "modes": [{"from": [0, 118], "share": [0.5, 0.5], "mean": 59.75, "max": 119, "pushes": 4}],
    }


def test_lags_come_from_the_logs_where_the_report_has_none() -> None:
    data = plot_data(report_of(mode_of()), {"sync": [RunFigures(lags={0: 3}), RunFigures(lags={0: 1, 1: 4})]})
    assert data["lags"]["modes"][0]["share"] == [0.5, 0.5]


def test_one_learning_rate_is_a_sentence_and_several_are_a_picture() -> None:
    constant, falling = (RunFigures(lr=Curve((1.0, 2.0), (1.0, 2.0), values)) for values in ((0.1, 0.1), (0.1, 0.05)))
    one, several = (render(report_of(mode_of()), {"sync": [run]}) for run in (constant, falling))
    assert "The learning rate was 0.1 throughout." in text_of(one)
    assert 'id="plot-lr"' not in one
    assert 'id="plot-lr"' in several


def test_learning_rates_that_were_tried_have_a_picture() -> None:
    lrs = [{"lr": lr, "test_accuracy": {"median": lr, "low": lr, "high": lr}} for lr in (0.1, 0.2)]
    report = report_of({**mode_of(), "lrs": [*lrs, {"lr": 0.4, "test_accuracy": None}]})
    assert [rate["median"] for rate in plot_data(report, {})["tried"][0]] == [0.1, 0.2, None]
    assert 'id="plot-tried"' in render(report, {})


def test_shares_of_time_are_of_the_whole_even_where_they_do_not_add_up_to_it() -> None:
    report = report_of(mode_of(compute_share=[0.25], wait_share=[0.25], transfer_share=[0.125]))
    (each,) = page_contents(report, {}, plot_data(report, {}))["shares"]
    assert [(part["kind"], part["width"], part["words"]) for part in each["parts"]] == [
        ("compute", 25.0, "25 %"),
        ("transfer", 12.5, "12 %"),
        ("wait", 25.0, "25 %"),
    ]
    assert "Blank: time that belongs to no iteration" in render(report, {})


def test_modes_beyond_the_colours_begin_again_with_dashes() -> None:
    report = report_of(*(mode_of(f"async:{bound}") for bound in range(9)))
    contents = page_contents(report, {}, plot_data(report, {}))
    assert [(mode["colour"], mode["dashed"]) for mode in contents["modes"]][7:] == [(7, False), (0, True)]


def test_settings_are_flat_and_say_only_what_is_set() -> None:
    report = report_of(
        mode_of(),
        settings={"optimizer": {"lr": 0.1, "fused": None}, "overlap": True, "stragglers": [], "slots": [1, 2]},
    )
    contents = page_contents(report, {}, plot_data(report, {}))
    assert contents["settings"] == [("optimizer.lr", "0.1"), ("overlap", "yes"), ("slots", "1; 2")]


@pytest.mark.parametrize("simulated", [True, False])
def test_the_page_says_whether_it_was_simulated(simulated: bool) -> None:
    assert ("virtual time" in text_of(render(report_of(mode_of(), simulated=simulated), {}))) == simulated


def test_the_data_of_five_modes_and_three_seeds_is_small(tmp_path: Path) -> None:
    assert len(as_script(plot_data(*make(tmp_path)))) < 2_000_000


def test_reasons_that_the_words_repeat_are_said_once_and_warnings_stand_apart() -> None:
    reasons = ["It is fast.", "Beware: Runs were short."]
    recommendation = {"mode": "sync", "reasons": reasons, "words": "Take sync. It is fast. Beware: Runs were short."}
    report = report_of(mode_of(), mode_of("async"), recommendation=recommendation)
    contents = page_contents(report, {}, plot_data(report, {}))
    assert (contents["headline"], contents["reasons"], contents["caveats"]) == (
        "Take sync.",
        ["It is fast."],
        ["Runs were short."],
    )
    assert text_of(render(report, {})).count("It is fast.") == 1


def test_statements_stand_before_every_pair() -> None:
    pairs = [{"told": True, "words": "a is better than b."}, {"told": False, "words": "c is like b."}]
    words = text_of(render(report_of(mode_of(), comparisons=pairs, statements=["a is the best."]), {}))
    places = [words.index(part) for part in ("a is the best.", "Every pair", "a is better than b.", "c is like b.")]
    assert places == sorted(places)


def test_what_differs_is_told() -> None:
    assert "Not the same Learning rates differ." in text_of(
        render(report_of(mode_of(), differing=["Learning rates differ."]), {})
    )
