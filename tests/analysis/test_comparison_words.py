from psgd.analysis.comparison import ArmRuns, Rate, Target
from psgd.analysis.comparison_words import TERMINAL, in_markdown, in_text, rates_table
from psgd.analysis.findings import find
from tests.analysis.runs import arm_in, arm_of, comparison_of, run_of

ADAM = arm_of("adam", "sync", {0.001: (0.9871, 0.9902, 0.9889), 0.01: (0.97, 0.97, 0.97)})
SGD = arm_of("sgd:momentum=0.9", "async:4", {0.1: (None, None, 0.5)})
SYNC = arm_in(
    "sync", *(run_of(0.9, seed=s, seconds=seconds, before=0.99) for s, seconds in enumerate((18.0, 19.0, 20.0)))
)
ASYNC = arm_in(
    "async", *(run_of(0.9, seed=s, seconds=seconds, before=0.99) for s, seconds in enumerate((10.0, 10.5, 11.2)))
)


def test_the_other_table_shows_every_learning_rate() -> None:
    assert rates_table(comparison_of(ADAM, SGD)) == [
        ("optimizer", "mode", "lr", "test accuracy", "train accuracy", "diverged"),
        ("adam", "sync", "0.001", "98.89 % (98.71–99.02)", "90.00 %", "0 of 3"),
        ("adam", "sync", "0.01", "97.00 %", "90.00 %", "0 of 3"),
        ("sgd:momentum=0.9", "async:4", "0.1", "diverged", "diverged", "2 of 3"),
    ]


def test_every_learning_rate_is_shown_only_where_several_were_tried() -> None:
    assert in_text(find(comparison_of(ADAM))).count("optimizer") == 2
    assert in_text(find(comparison_of(SGD))).count("optimizer") == 1


def test_a_terminal_shows_the_table_what_it_tells_what_to_take_and_why_it_is_fair() -> None:
    text = in_text(find(comparison_of(SYNC, ASYNC, target=Target("test_accuracy", 0.85))))
    assert text.replace("\n  ", " ").split("\n\n") == [
        "mode      time to 85.00 %  samples drawn to it  test accuracy  train accuracy         samples/s  seconds\n"
        "--------------------------------------------------------------------------------------------------------\n"
        "sync   19.0 s (18.0–20.0)                   32        90.00 %         90.00 %  1.68 (1.60–1.78)       19\n"
        "async  10.5 s (10.0–11.2)                   32        90.00 %         90.00 %  3.05 (2.86–3.20)     10.5",
        "The same for all: optimizer sgd, lr 0.1, dropped samples 0, samples used 32, steps 4.",
        "async reaches 85.00 % first: 1.8× sooner than sync (95 % CI 1.77–1.83×).\n"
        "sync and async are equal in samples to 85.00 %.\n"
        "sync and async are equal in test accuracy.\n"
        "async makes the most samples/s: 1.8× those of sync (95 % CI 1.77–1.83×).",
        "Take async.\n"
        "All are equal in test accuracy.\n"
        "async reaches 85.00 % 1.8× sooner than sync (95 % CI 1.77–1.83×).",
        "Equal for all: Same seeds (0, 1, 2), so the same first weights and the same data order per slot (if the "
        "programs that made them had the same model and data: the logs do not name them). Same global batch: 2 slots "
        "× 4 = 8 samples. Same optimizer: unknown. Same learning rate: unknown. Same processes: unknown. Same "
        "stragglers: none. All other settings are the same.",
        "Medians over 3 seeds, with the least and the greatest; all arms have the same seeds.\n"
        "The target counts as reached at the first evaluation that meets it: samples and seconds to it are known to "
        "within the distance of two evaluations, which intervals allow for. Seconds are those until the steps before "
        "it had finished.\n"
        "Asynchronous arms make an update for each gradient (softsync: for several), synchronous ones one a step.",
    ]
    assert max(map(len, text.splitlines())) <= TERMINAL


def test_the_page_has_the_tables_what_follows_the_notes_and_the_pictures() -> None:
    page = in_markdown(find(comparison_of(ADAM)), ["curves.png"]).splitlines()
    assert page[:5] == [
        "# 2 slots of 4, 4 steps",
        "",
        "| optimizer | mode | lr | test accuracy | train accuracy | samples/s | dropped samples | seconds "
        "| samples used | steps |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| adam | sync | 0.001 | 98.89 % (98.71–99.02) | 90.00 % | 1.60 | 0 | 20 | 32 | 4 |",
    ]
    assert "![curves](curves.png)" in page
    assert "## Every learning rate" in page
    assert "## Notes" in page
    assert "## Which one to take" not in page
    assert "- adam: the best learning rate is the lowest tried, 0.001: a lower one may be better." in page
    assert page[-1] == "Made with psgd 0.1."
    both = in_markdown(find(comparison_of(SYNC, ASYNC)), []).splitlines()
    assert both[both.index("## Which one to take") + 2] == "- Take async."


def test_a_comparison_of_nothing_says_so() -> None:
    nothing = comparison_of(ArmRuns("adam", "sync", (Rate(0.1, (None,)),)))
    assert in_text(find(nothing)).splitlines()[0].split() == ["optimizer", "mode", "lr"]
    assert in_markdown(find(nothing), []).endswith("Made with nothing yet.\n")
