import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from scripts.experiments.results import Claim, Findings, Runs, add_runs, as_page, at_least_one, parser_of, publish

SHOWN, NOT_SHOWN = Claim("error < 50 %", "12 %", True), Claim("twice as fast", "1.5 times", False)


def findings(*claims: Claim) -> Findings:
    rows = [("mode", "error"), ("sync", "12 %")]
    return Findings("Title", "What was simulated.", claims, rows, {0}, Figure(), ["A note."])


# ------------------------------------------------------------------ the page and the exit code


def test_all_claims_shown_end_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish(findings(SHOWN, SHOWN), tmp_path / "new" / "folder", "python -m it") == 0
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["figure.png", "table.md"]
    assert capsys.readouterr().out == "shown: error < 50 %: 12 %\n" * 2


def test_one_claim_that_is_not_shown_is_told_by_the_exit_code_and_the_page_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(findings(SHOWN, NOT_SHOWN), tmp_path, "python -m it") == 1
    assert capsys.readouterr().out.splitlines()[1] == "not shown: twice as fast: 1.5 times"
    assert "| twice as fast | 1.5 times | not shown |" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_the_page_has_verdicts_picture_table_notes_and_command() -> None:
    assert as_page(findings(SHOWN, NOT_SHOWN), "python -m it").splitlines() == [
        "# Title",
        "",
        "What was simulated.",
        "",
        "| must come out | came out | verdict |",
        "| --- | --- | --- |",
        "| error < 50 % | 12 % | shown |",
        "| twice as fast | 1.5 times | not shown |",
        "",
        "![Title](figure.png)",
        "",
        "| mode | error |",
        "| --- | ---: |",
        "| sync | 12 % |",
        "",
        "- A note.",
        "",
        "Made by `python -m it`.",
    ]


# ------------------------------------------------------------------ runs that are kept


def never() -> dict[str, Any]:
    raise AssertionError("a run was made again")


def test_a_run_is_made_once_for_its_settings_also_by_the_next_process(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "it.jsonl"
    assert Runs(file).of({"lr": 0.1, "seed": 0}, lambda: {"error": 0.5}) == {"error": 0.5}
    again = Runs(file)
    assert again.of({"seed": 0, "lr": 0.1}, never) == {"error": 0.5}
    assert again.of({"seed": 1, "lr": 0.1}, lambda: {"error": 0.25}) == {"error": 0.25}
    assert len(file.read_text().splitlines()) == 2


def test_numbers_that_json_has_not_become_none_at_once(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "it.jsonl")
    assert runs.of({}, lambda: {"curve": [1.0, float("nan"), float("inf")]}) == {"curve": [1.0, None, None]}


def test_a_line_without_its_end_is_no_run(tmp_path: Path) -> None:
    file = tmp_path / "it.jsonl"
    whole = json.dumps({"settings": {"seed": 0}, "figures": {"error": 0.5}})
    file.write_text(f'{whole}\n{{"settings": {{"se')
    runs = Runs(file)
    assert runs.of({"seed": 0}, never) == {"error": 0.5}
    assert runs.of({"seed": 1}, lambda: {"error": 0.75}) == {"error": 0.75}
    assert Runs(file).of({"seed": 1}, never) == {"error": 0.75}


# ------------------------------------------------------------------ options


def test_results_go_beside_those_of_the_other_scripts() -> None:
    parser = parser_of("What it shows.", "it", seeds=3)
    add_runs(parser, "it")
    options = parser.parse_args([])
    assert options.out.parts[-3:] == ("scripts", "results", "it")
    assert (options.seeds, options.quick, options.runs) == (3, False, Path("runs/it.jsonl"))


@pytest.mark.parametrize("word", ["0", "-1", "1.5", "many"])
def test_fewer_than_one_seed_is_refused(word: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"must be a whole number >= 1, got {word}"):
        at_least_one(word)


def test_where_nothing_is_random_there_are_no_seeds() -> None:
    assert not hasattr(parser_of("What it shows.", "it").parse_args([]), "seeds")
