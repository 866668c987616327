from pathlib import Path

import pytest

from scripts.experiments.throughput import Measured, claims_of, harmonic, main


def test_harmonic_numbers() -> None:
    assert [round(harmonic(n), 4) for n in (1, 2, 4, 16)] == [1.0, 1.5, 2.0833, 3.3807]


def measured(ratio: float, lag: int) -> Measured:
    return Measured(slots=4, sync=2.0, free=2.0 * ratio, histogram={lag - 1: 0.5, lag + 1: 0.5})


def test_verdicts_hold_up_to_their_bounds() -> None:
    exact = measured(harmonic(4), 3)
    assert [claim.shown for claim in claims_of([exact])] == [True, True]
    assert exact.lag == 3
    for factor, shown in ((1.029, True), (1.031, False), (0.971, True), (0.969, False)):
        assert claims_of([measured(harmonic(4) * factor, 3)])[0].shown is shown
    assert [claim.shown for claim in claims_of([measured(harmonic(4), 4)])] == [True, False]


def test_a_verdict_says_its_number() -> None:
    ahead, stale = claims_of([measured(2.1, 3)])
    assert (ahead.words, ahead.found) == ("N = 4: async/sync throughput is H_N = 2.083 within 3%", "2.100, +0.8%")
    assert (stale.words, stale.found) == ("N = 4: mean lag of async is N − 1 = 3 within 5%", "3.00, +0.0%")


def test_a_short_run_writes_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--seeds", "1", "--out", str(tmp_path)])
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| N = 16")] == [
        "| N = 16: async/sync throughput is H_N = 3.381 within 3%",
        "| N = 16: mean lag of async is N − 1 = 15 within 5%",
    ]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert len(capsys.readouterr().err.splitlines()) == 3
