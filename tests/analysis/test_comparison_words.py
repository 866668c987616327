import json

from psgd.analysis.comparison import ArmRuns, Rate
from psgd.analysis.comparison_words import as_json, best_table, in_markdown, in_text, rates_table
from tests.analysis.runs import arm_of, comparison_of

ADAM = arm_of("adam", "sync", {0.001: (0.9871, 0.9902, 0.9889), 0.01: (0.97, 0.97, 0.97)})
SGD = arm_of("sgd:momentum=0.9", "async:4", {0.1: (None, None, 0.5)})


def test_the_table_shows_each_arm_at_its_best() -> None:
    assert best_table(comparison_of(ADAM, SGD)) == [
        ("optimizer", "mode", "lr", "test accuracy", "train accuracy", "samples", "steps", "seconds", "samples/s"),
        ("adam", "sync", "0.001", "98.89 % (98.71–99.02)", "90.00 %", "32", "4", "2", "16"),
        ("sgd:momentum=0.9", "async:4", "0.1", "diverged", "diverged", "32", "4", "2", "16"),
    ]


def test_the_other_table_shows_every_learning_rate() -> None:
    assert rates_table(comparison_of(ADAM, SGD)) == [
        ("optimizer", "mode", "lr", "test accuracy", "train accuracy", "diverged"),
        ("adam", "sync", "0.001", "98.89 % (98.71–99.02)", "90.00 %", "0 of 3"),
        ("adam", "sync", "0.01", "97.00 %", "90.00 %", "0 of 3"),
        ("sgd:momentum=0.9", "async:4", "0.1", "diverged", "diverged", "2 of 3"),
    ]


def test_every_learning_rate_is_shown_only_where_several_were_tried() -> None:
    assert in_text(comparison_of(ADAM)).count("optimizer") == 2
    assert in_text(comparison_of(SGD)).count("optimizer") == 1


def test_the_page_has_the_tables_the_notes_and_the_pictures() -> None:
    page = in_markdown(comparison_of(ADAM), ["curves.png"]).splitlines()
    assert page[:5] == [
        "# 2 slots of 4, 4 steps",
        "",
        "| optimizer | mode | lr | test accuracy | train accuracy | samples | steps | seconds | samples/s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| adam | sync | 0.001 | 98.89 % (98.71–99.02) | 90.00 % | 32 | 4 | 2 | 16 |",
    ]
    assert "![curves](curves.png)" in page
    assert "## Every learning rate" in page
    assert "- adam: the best learning rate is the lowest tried, 0.001: a lower one may be better." in page
    assert page[-1] == "Made with psgd 0.1."


def test_the_report_has_one_entry_an_arm_and_is_plain_json() -> None:
    report = json.loads(json.dumps(as_json(comparison_of(ADAM, SGD)), allow_nan=False))
    assert (report["metric"], report["goal"], report["seeds"]) == ("test_accuracy", "max", [0, 1, 2])
    assert report["lr_chosen_by"] == "median test_accuracy, on the test set"
    adam, sgd = report["arms"]
    assert (adam["arm"], adam["lr"], adam["diverged"], adam["failed"]) == ("adam, sync", 0.001, 0, 0)
    assert adam["test_accuracy"] == {"median": 0.9889, "low": 0.9871, "high": 0.9902}
    assert adam["train_accuracy"] == {"median": 0.9, "low": 0.9, "high": 0.9}
    assert [rate["lr"] for rate in adam["lrs"]] == [0.001, 0.01]
    assert [run["seed"] for run in adam["runs"]] == [0, 1, 2]
    assert adam["runs"][0]["test_accuracy"] == 0.9871
    assert sgd["test_accuracy"] == {"median": None, "low": 0.5, "high": 0.5}
    assert sgd["diverged"] == 2
    assert report["versions"] == [{"psgd": "0.1"}]


def test_a_comparison_of_nothing_says_so() -> None:
    nothing = comparison_of(ArmRuns("adam", "sync", (Rate(0.1, (None,)),)))
    assert best_table(nothing)[1] == ("adam", "sync", "0.1", "–", "–", "–", "–", "–", "–")
    assert as_json(nothing)["arms"][0]["runs"] == [None]
    assert in_markdown(nothing, []).endswith("Made with nothing yet.\n")
