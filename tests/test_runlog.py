import json
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


def test_a_broken_line_in_the_middle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_text("nonsense\n" + encode(EVALUATION) + "\n")
    with pytest.raises(DataError, match="'nonsense"):
        list(read(file))


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
