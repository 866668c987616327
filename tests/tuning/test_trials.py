import json
import math

import pytest

from psgd.tuning.trials import Measured, Status, Trial, as_plain, best, from_plain, ranked


def trial(number: int, *losses: float, status: Status = "done") -> Trial:
    evaluations = tuple(Measured(10 * (k + 1), 0.5 * k, {"loss": loss}) for k, loss in enumerate(losses))
    return Trial(number, {"lr": 0.1 * number}, status, None, evaluations)


def test_a_trial_is_worth_what_its_last_evaluation_measured() -> None:
    assert trial(0, 0.5, 0.25).value("loss") == 0.25
    assert (trial(0, 0.5, 0.25).step, trial(0, 0.5, 0.25).seconds) == (20, 0.5)
    assert trial(0).value("loss") is None
    assert trial(0, 0.5).value("accuracy") is None
    assert trial(0, 0.5, math.inf).value("loss") is None
    assert trial(0, 0.5, status="failed").value("loss") is None


@pytest.mark.parametrize(("goal", "order"), [("min", [2, 0, 4, 1, 3]), ("max", [0, 2, 4, 1, 3])])
def test_the_best_is_first_and_what_was_stopped_early_behind_what_was_trained_to_its_end(
    goal: str, order: list[int]
) -> None:
    trials = [trial(0, 0.5), trial(1, math.nan, status="diverged"), trial(2, 0.25), trial(3, status="refused")]
    trials.append(trial(4, 0.125, status="stopped"))
    assert [each.number for each in ranked(trials, "loss", goal)] == order  # type: ignore[arg-type]
    first = best(trials, "loss", goal)  # type: ignore[arg-type]
    assert first is not None
    assert first.number == order[0]


def test_there_is_no_best_of_trials_without_a_metric() -> None:
    assert best([trial(0, math.nan, status="diverged"), trial(1, status="failed")], "loss", "min") is None


def test_a_trial_survives_json() -> None:
    before = trial(3, 0.5, 0.25)
    assert from_plain(json.loads(json.dumps(as_plain(before), allow_nan=False))) == before


def test_what_is_not_finite_is_null_in_json() -> None:
    plain = as_plain(trial(3, math.inf))
    assert plain["evaluations"] == [{"step": 10, "seconds": 0.0, "metrics": {"loss": None}}]
    assert math.isnan(from_plain(plain).evaluations[0].metrics["loss"])
