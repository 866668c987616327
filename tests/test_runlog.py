import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from psgd.errors import DataError
from psgd.runlog import (
    FILE_NAME,
    Evaluation,
    Footer,
    Header,
    Iteration,
    Notice,
    Record,
    Reported,
    decode,
    encode,
    read,
    versions,
)
from tests.records import EVALUATION, ITERATION

RECORDS: list[Record] = [
    Header({"mode": "sync", "workers": 2}, {"psgd": "0.1.0"}, "2026-01-02T03:04:05+00:00"),
    ITERATION,
    Iteration(1.5, 1, 1, 7, None, 4, "late", 2, 9, (), 0.1, 0.2),
    EVALUATION,
    Reported(2.5, 1, {"f1": 0.5}),
    Notice(3.5, "worker 1 replaced"),
    Footer({"steps": 3, "lag": {"mean": 0.5}}),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    assert decode(encode(record)) == record


def test_a_line_is_json_that_names_its_kind() -> None:
    assert json.loads(encode(EVALUATION))["kind"] == "evaluation"
    assert "\n" not in encode(Notice(0.0, "two\nlines"))


@pytest.mark.parametrize(
    "line", ["", "[]", "{}", '{"kind": "nonsense"}', '{"kind": "notice", "time_s": 1.0}', '{"kind": "notice", "te']
)
def test_what_is_no_record_is_refused(line: str) -> None:
    with pytest.raises(DataError, match=r"^not a record of a run log: "):
        decode(line)


def test_a_log_is_read_from_its_file_or_its_folder(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_text("".join(encode(record) + "\n" for record in RECORDS))
    assert list(read(file)) == RECORDS
    assert list(read(tmp_path)) == RECORDS


def test_a_last_line_without_its_end_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_text(encode(EVALUATION) + "\n" + encode(ITERATION)[:40])
    assert list(read(file)) == [EVALUATION]


@pytest.mark.parametrize("broken", [b"nonsense", b'{"kind": "notice", "time_s": 1.0, "text": "\xff"}', b"\xff\xfe"])
def test_a_broken_line_in_the_middle_is_refused_by_its_number(tmp_path: Path, broken: bytes) -> None:
    file = tmp_path / FILE_NAME
    line = encode(EVALUATION).encode()
    file.write_bytes(line + b"\n" + broken + b"\n" + line + b"\n")
    with pytest.raises(DataError, match=rf"^{file}, line 2: not a record of a run log: '") as caught:
        list(read(file))
    assert "\n" not in str(caught.value)


def test_a_last_line_without_its_end_may_end_within_a_character(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(encode(EVALUATION).encode() + b"\n" + "é".encode()[:1])
    assert list(read(file)) == [EVALUATION]


@pytest.mark.parametrize(
    ("record", "name", "value", "words"),
    [
        (ITERATION, "time_s", "soon", "time_s must be a number, got 'soon'"),
        (ITERATION, "time_s", None, "time_s must be a number, got None"),
        (ITERATION, "time_s", True, "time_s must be a number, got True"),
        (ITERATION, "time_s", math.nan, "a log has null for NaN"),
        (ITERATION, "slot", -1, "slot must be a whole number >= 0, got -1"),
        (ITERATION, "slot", 0.5, "slot must be a whole number >= 0, got 0.5"),
        (ITERATION, "step", "3", "step must be a whole number >= 0, got '3'"),
        (ITERATION, "loss", "low", "loss must be a number or null, got 'low'"),
        (ITERATION, "lr", 0.1, "lr must be a list of numbers, got 0.1"),
        (ITERATION, "lr", ["high"], "lr must be a list of numbers, got ('high',)"),
        (ITERATION, "inner_lr", {}, "inner_lr must be a list of numbers, got {}"),
        (EVALUATION, "step", -1, "step must be a whole number >= 0, got -1"),
        (EVALUATION, "seconds", "long", "seconds must be a number, got 'long'"),
        (EVALUATION, "metrics", {"test_loss": "low"}, "metrics must be numbers by name, got {'test_loss': 'low'}"),
        (RECORDS[0], "settings", [], "settings must be values by name, got ()"),
        (RECORDS[-1], "figures", None, "figures must be values by name, got None"),
    ],
)
def test_a_field_of_another_kind_is_refused_by_its_name(record: Record, name: str, value: object, words: str) -> None:
    fields = json.loads(encode(record)) | {name: value}
    with pytest.raises(DataError, match=rf"^not a record of a run log: .*{re.escape(words)}"):
        decode(json.dumps(fields))


@pytest.mark.parametrize(
    "record",
    [replace(ITERATION, loss=math.nan, lr=(math.inf, 0.1)), replace(EVALUATION, metrics={"test_loss": math.nan})],
)
def test_what_was_nan_is_null_and_can_be_read(record: Record) -> None:
    line = encode(record)
    assert "null" in line
    assert encode(decode(line)) == line


def test_a_missing_log_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no run log at {tmp_path / FILE_NAME}"):
        list(read(tmp_path))


def test_versions_name_python_and_torch() -> None:
    found = versions()
    assert set(found) == {"python", "psgd", "torch", "numpy", "ray"}
    assert found["torch"][0].isdigit()


def test_the_records_fields_are_a_promise_to_readers() -> None:
    assert Evaluation.__dataclass_fields__.keys() == {
        "time_s",
        "boundary",
        "step",
        "versions",
        "metrics",
        "seconds",
        "decision",
        "effective_step",
        "lr_factor",
        "arrays",
    }
