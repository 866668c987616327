from pathlib import Path

import pytest

from scripts.experiments.delayed_descent import Course, claims_of, descend, limit, main


def test_the_limit_is_that_of_delayed_gradient_descent() -> None:
    assert [round(limit(delay), 4) for delay in (0, 1, 3)] == [2.0, 1.0, 0.445]


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_the_weight_goes_the_way_of_the_recurrence(delay: int) -> None:
    rate = 0.8 * limit(delay)
    course = descend(delay, rate)
    x = [1.0] * (delay + 1)
    for update in range(len(course.sizes)):
        x.append(x[-1] - rate * x[update])  # x[delay + t] is the weight before update t
    assert course.lags_are_exact
    # the gradient of update t was computed τ updates before, or at the beginning
    assert course.sizes[:40] == pytest.approx([abs(was) for was in x[:40]], rel=1e-3, abs=1e-6)


def course(delay: int, growth: float, lags: tuple[int, ...] | None = None) -> Course:
    swing = 2 * (2 * delay + 1)
    sizes = (1.0,) * (delay + swing) + (growth,) * swing
    return Course(delay, 0.5, sizes, lags or tuple(min(update, delay) for update in range(len(sizes))))


def test_growth_compares_the_last_swing_with_the_first_one() -> None:
    assert course(3, 0.25).growth == 0.25


def test_verdicts_take_a_clear_end() -> None:
    shown = [claim.shown for claim in claims_of([course(1, 0.09), course(1, 0.11)], [course(1, 11.0), course(1, 9.0)])]
    assert shown == [True, False, True, False]


def test_a_run_with_other_lags_shows_nothing() -> None:
    swings = course(1, 0.01)
    other = course(1, 0.01, (0, 1, *swings.lags[2:-1], 2))
    (claim,) = claims_of([other], [])
    assert not claim.shown
    assert claim.found.endswith("; lags were not 1 throughout")


def test_small_delays_are_stable_below_the_limit_and_diverge_above_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    assert [line.split(": ")[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["shown", f"τ = {delay}"] for _ in ("below", "above") for delay in (0, 1, 3)
    ]
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert "\n| τ | limit of α L | " in (tmp_path / "table.md").read_text(encoding="utf-8")
