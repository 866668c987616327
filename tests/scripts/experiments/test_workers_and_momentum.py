from pathlib import Path

import pytest

from scripts.experiments.workers_and_momentum import claims_of, largest_fall, main, medians, risen_at


def one_seed(*errors: float) -> dict[int, list[float]]:
    return {2**power: [error] for power, error in enumerate(errors)}


def test_what_has_diverged_is_equally_bad() -> None:
    errors = {1: [0.1, 0.2, 0.9], 2: [0.9, 0.8, 0.1], 4: [0.7, 0.6, 0.65]}
    assert medians(errors) == {1: 0.2, 2: 0.5, 4: 0.5}
    assert largest_fall(errors) == 0.0


def test_a_fall_is_measured_from_the_largest_error_before_it() -> None:
    assert largest_fall(one_seed(0.1, 0.3, 0.2, 0.25)) == pytest.approx(0.1)


def test_the_workers_with_which_the_error_has_risen() -> None:
    assert risen_at(one_seed(0.05, 0.09, 0.1, 0.2)) == 4
    assert risen_at(one_seed(0.05, 0.06)) == float("inf")


def test_verdicts_ask_for_growth_and_for_more_of_it_with_momentum() -> None:
    slow, fast = one_seed(0.05, 0.041, 0.06, 0.2), one_seed(0.05, 0.2, 0.9, 0.8)
    assert [claim.shown for claim in claims_of(slow, fast)] == [True, True, True]
    assert [claim.found for claim in claims_of(slow, fast)] == [
        "5.00 % to 20.00 %, the largest fall 0.90 points",
        "5.00 % to ≥ 50 %, the largest fall 0.00 points",
        "at 2 with, at 8 without",
    ]
    assert [claim.shown for claim in claims_of(fast, slow)] == [True, True, False]
    falling, flat = one_seed(0.05, 0.2, 0.18, 0.3), one_seed(0.05, 0.05, 0.05, 0.06)
    assert [claim.shown for claim in claims_of(falling, flat)] == [False, False, False]
    assert claims_of(falling, flat)[2].found == "at none with, at 2 without"


@pytest.mark.data
def test_a_short_run_writes_its_page(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data-dir", str(shared_data / "mnist"), "--quick", "--seeds", "1", "--out", str(tmp_path)]
    main([*words, "--runs", str(tmp_path / "runs.jsonl")])
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "\n| workers | learning rate 0.05 | learning rate 0.05, momentum 0.9 | " in page
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert len(capsys.readouterr().err.splitlines()) == 6


def test_without_the_data_it_says_so_and_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data-dir", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("workers_and_momentum is skipped: ")
