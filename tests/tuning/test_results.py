import csv
import json
import math
from pathlib import Path

from psgd.analysis.tables import as_text
from psgd.tuning.results import in_words, reasons, table, write_csv, write_json
from psgd.tuning.space import Choices, Range, Space
from psgd.tuning.trials import Measured, Trial

SPACE: Space = {"lr": Range(1e-4, 1e-1, log=True), "optimizer_args.betas": Choices((None, [0.9, 0.99]))}


def trial(number: int, lr: float, betas: str | None, *losses: float) -> Trial:
    evaluations = tuple(Measured(100 * (k + 1), 1.25 * (k + 1), {"test_loss": loss}) for k, loss in enumerate(losses))
    return Trial(number, {"lr": lr, "optimizer_args.betas": betas}, "done", None, evaluations)


POINT = {"lr": 0.1, "optimizer_args.betas": None}
TRIALS = [
    trial(0, 0.0123456, None, 0.5, 0.25),
    Trial(1, POINT, "refused", "batch_size must be <= 10"),
    trial(2, 0.001, "[0.9, 0.99]", 0.125),
    Trial(3, POINT, "diverged", "test_loss is not finite", (Measured(100, 1.0, {"test_loss": math.nan}),)),
    Trial(4, POINT, "refused", "batch_size must be <= 10"),
]


def test_the_table_has_the_best_first() -> None:
    assert as_text(table(SPACE, TRIALS, "test_loss", "min"), words={0, 6}).split("\n") == [
        "trial       lr  optimizer_args.betas  test_loss  steps  seconds  status",
        "-------------------------------------------------------------------------",
        "2        0.001           [0.9, 0.99]     0.1250    100      1.2  done",
        "0      0.01235                  none     0.2500    200      2.5  done",
        "3          0.1                  none          –    100      1.0  diverged",
        "1          0.1                  none          –      –        –  refused",
        "4          0.1                  none          –      –        –  refused",
    ]


def test_reasons_are_said_once_each() -> None:
    assert reasons(TRIALS) == [
        "trials 1, 4 refused: batch_size must be <= 10",
        "trial 3 diverged: test_loss is not finite",
    ]


def test_settings_are_written_as_on_the_command_line() -> None:
    words = [in_words(value) for value in (0.1234567, 1e-5, 3, True, None, "sync", [0.9, 0.99], ("0:3x", "1:2x"))]
    assert words == ["0.1235", "1e-05", "3", "true", "none", "sync", "[0.9, 0.99]", "[0:3x,1:2x]"]


def test_the_csv_has_every_final_metric_and_exact_numbers(tmp_path: Path) -> None:
    write_csv(tmp_path / "results.csv", SPACE, TRIALS, "test_loss", "min")
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [row["trial"] for row in rows] == ["2", "0", "3", "1", "4"]
    assert rows[1] == {
        **{"trial": "0", "lr": "0.0123456", "optimizer_args.betas": "", "test_loss": "0.25"},
        **{"step": "200", "seconds": "2.5", "status": "done", "reason": ""},
    }


def test_the_json_has_every_evaluation_and_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", SPACE, TRIALS, "test_loss", "min")
    content = json.loads((tmp_path / "results.json").read_text(), parse_constant=lambda word: word)
    assert (content["objective"], content["goal"], content["best"]) == ("test_loss", "min", 2)
    assert content["trials"][0]["point"] == {"lr": 0.001, "optimizer_args.betas": [0.9, 0.99]}
    assert [each["metrics"]["test_loss"] for each in content["trials"][1]["evaluations"]] == [0.5, 0.25]
    assert content["trials"][2]["evaluations"][0]["metrics"] == {"test_loss": None}
