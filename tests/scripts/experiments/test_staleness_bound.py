from dataclasses import replace
from pathlib import Path

import pytest

from psgd.cli.building import parse_straggler
from psgd.core.modes import Async, Rules
from psgd.durations import parse_duration
from psgd.running import run_without_gradients
from psgd.simulation.timing import TimingJob
from psgd.simulation.world import World
from scripts.experiments import staleness_bound
from scripts.experiments.staleness_bound import BOUNDS, KINDS, PERMANENT, TRANSIENT, Pace, main, pace_of, shape
from tests.records import iteration

RISING = {(kind, s): Pace(10.0 if kind == PERMANENT else 1 + s, 0.5 - s / 100) for kind in KINDS for s in BOUNDS}


def test_the_middle_of_a_run_says_how_fast_it_was() -> None:
    part = {"compute_s": 0.25, "wait_s": 0.5, "transfer_s": 0.25}
    records = [iteration(time_s=0.01 * n if n < 4 else n / 2, **part) for n in range(20)]
    assert pace_of(records) == Pace(pushes_per_s=2.0, idle_share=0.75)


def test_claims_are_shown_where_they_hold() -> None:
    assert [claim.shown for claim in shape(RISING, "simulated")] == [True, True, True]


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({(TRANSIENT, 8): Pace(1.5, 0.4)}, [False, True, True]),  # it falls in the end
        ({(TRANSIENT, 0): Pace(4.9, 0.5)}, [False, True, True]),  # it rises too little
        ({(TRANSIENT, 8): Pace(9.0, 0.9)}, [True, False, True]),
        ({(PERMANENT, 0): Pace(9.0, 0.5)}, [True, True, False]),
    ],
)
def test_claims_are_not_shown_where_they_do_not(changed: dict[tuple[str, int], Pace], shown: list[bool]) -> None:
    assert [claim.shown for claim in shape({**RISING, **changed}, "real")] == shown


def test_a_page_is_written_without_real_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--seeds", "1", "--out", str(tmp_path)])
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "table.md").read_text()
    assert "| stragglers | s | simulated pushes/s | idle |" in page
    assert "shown: simulated, permanent: throughput does not depend on s" in capsys.readouterr().out
    assert "real" not in page.partition("Made by")[0].replace("--real", "")


def test_real_runs_that_are_there_are_kept_and_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated runs take the places of real ones: predictions must find them again."""
    monkeypatch.setattr(staleness_bound, "PSGD", ("false",))  # no run is made
    monkeypatch.setattr(staleness_bound, "REAL_STEPS", {TRANSIENT: 40, PERMANENT: 40})
    world = World(compute=parse_duration("lognormal:20ms:0.3"), service=parse_duration("3ms"))
    for kind in KINDS:
        for bound in BOUNDS:
            stragglers = tuple(map(parse_straggler, staleness_bound.DELAYS[kind]))
            job = TimingJob(Rules(Async(bound), 8, 1, 40), 8, stragglers=stragglers, seed=1)
            slower = world if kind == TRANSIENT else replace(world, compute=parse_duration("lognormal:30ms:0.3"))
            run_without_gradients(job, slower, tmp_path / "runs" / f"{kind}-{bound}", progress=False)
    code = main(["--real", "--quick", "--seeds", "1", "--runs", f"{tmp_path}/runs", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "shown: predicted throughput is within 15% of the real runs': the worst, permanent" in said
    assert code == (1 if "not shown" in said else 0)
    row = next(
        line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("| transient | 2 |")
    )
    assert row.endswith("| calibrated on it |")
