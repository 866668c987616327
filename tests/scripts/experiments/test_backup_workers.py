from pathlib import Path

import pytest

from scripts.experiments.backup_workers import captured, claims_of, fresh_seconds, gradients_per_s, main


def test_captured_is_the_share_of_the_seconds_that_many_save() -> None:
    seconds = {0: 7.0, 4: 2.0, 10: 1.0}
    assert captured(seconds) == pytest.approx(5 / 6)
    assert gradients_per_s(seconds, 4) == 48.0


def test_the_verdict_goes_by_means_and_says_how_far_seeds_are_apart() -> None:
    (claim,) = claims_of({0: [6.0, 8.0], 4: [2.0, 2.0], 10: [1.0, 1.0]})
    assert not claim.shown
    assert claim.found == "83.3% (by seed 80.0% to 85.7%): 7.00 s a step without, 2.00 s and 1.00 s with them"
    assert claims_of({0: [7.0], 4: [1.8], 10: [1.0]})[0].shown


def test_where_all_begin_at_once_a_step_takes_its_order_statistic() -> None:
    fresh = fresh_seconds()
    assert len(fresh) == 100
    assert fresh == sorted(fresh, reverse=True)
    assert fresh[99] == pytest.approx(1.0, abs=1e-3)  # the fastest of 100
    assert captured(fresh) == pytest.approx(0.96, abs=0.01)


def test_a_short_run_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--seeds", "1", "--out", str(tmp_path)])
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| 4 backups capture > 85% of the speed-up of 10 | " in page
    assert "\n| backups | seconds a step | speed-up | " in page
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert len(capsys.readouterr().err.splitlines()) == 4
