from pathlib import Path

import pytest

import psgd
from scripts.experiments import staleness_aware
from scripts.experiments.staleness_aware import Setting, best_rate, claims_of, main


def test_the_best_rate_has_the_least_median() -> None:
    assert best_rate({0.02: [0.1, 0.1, 0.1], 0.05: [0.04, 0.05, 0.9], 0.1: [0.06, 0.06, 0.01]}) == 0.05


def test_softsync_gathers_as_many_as_share_its_slots() -> None:
    modes = [Setting(split, False, 0.1, 0, 1).mode for split in (0, 15, 30)]
    assert modes == [psgd.Sync(), psgd.Async(gather=2), psgd.Async(gather=1)]


def test_verdicts_go_by_medians_and_their_bounds() -> None:
    plain = {15: [0.49, 0.51, 0.9], 30: [0.9, 0.5, 0.4]}
    corrected = {15: [0.0, 0.0599, 0.2], 30: [0.061, 0.9, 0.0]}
    claims = claims_of([0.04, 0.03, 0.9], plain, corrected)
    assert [claim.shown for claim in claims] == [True, False, True, False]
    assert [claim.found for claim in claims] == [
        "51.00 %",
        "50.00 %",
        "5.99 % against 4.00 %, +1.99 points",
        "6.10 % against 4.00 %, +2.10 points",
    ]


@pytest.mark.data
def test_a_short_run_writes_its_page_and_makes_no_run_again(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data-dir", str(shared_data / "mnist"), "--quick", "--seeds", "1", "--out", str(tmp_path)]
    words += ["--runs", str(tmp_path / "runs.jsonl")]
    main(words)
    first = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| 30-softsync, divided by the lag | 0.05 | " in first
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert len(capsys.readouterr().err.splitlines()) == 5
    monkeypatch.setattr(staleness_aware, "train", lambda *_: pytest.fail("a run was made again"))
    main(words)
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == first


def test_without_the_data_it_says_so_and_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data-dir", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("staleness_aware is skipped: ")
    assert not (tmp_path / "out").exists()
