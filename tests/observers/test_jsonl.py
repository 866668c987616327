from pathlib import Path

import pytest

from psgd.errors import ConfigurationError
from psgd.observers import JsonLinesWriter
from psgd.runlog import FILE_NAME, Footer, Header, read
from tests.records import EVALUATION, ITERATION

HEADER = Header({"mode": "sync"}, {"psgd": "0.1.0"}, "2026-01-02T03:04:05+00:00")


def test_the_log_holds_the_header_then_every_record(tmp_path: Path) -> None:
    writer = JsonLinesWriter(tmp_path / "a" / "run", HEADER)
    for record in (ITERATION, EVALUATION, Footer({"steps": 3})):
        writer(record)
    writer.close()
    assert list(read(tmp_path / "a" / "run")) == [HEADER, ITERATION, EVALUATION, Footer({"steps": 3})]


def test_a_record_is_on_disk_before_the_run_has_ended(tmp_path: Path) -> None:
    writer = JsonLinesWriter(tmp_path, HEADER)
    writer(ITERATION)
    assert list(read(tmp_path)) == [HEADER, ITERATION]
    writer.close()


def test_a_run_that_says_nothing_leaves_no_folder(tmp_path: Path) -> None:
    JsonLinesWriter(tmp_path / "run", HEADER).close()
    assert list(tmp_path.iterdir()) == []


def test_another_runs_log_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("other\n")
    with pytest.raises(ConfigurationError, match=f"^out must be without a run, got {tmp_path}: run.jsonl is there$"):
        JsonLinesWriter(tmp_path, HEADER)(ITERATION)
    assert (tmp_path / FILE_NAME).read_text() == "other\n"
