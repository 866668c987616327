from pathlib import Path

import pytest

from psgd.errors import DataError
from psgd.tuning.journal import FILE_NAME, Journal
from psgd.tuning.trials import Measured, Trial

ONE = Trial(0, {"lr": 0.1, "betas": "[0.9, 0.99]"}, "done", None, (Measured(10, 1.5, {"test_loss": 0.5}),))
TWO = Trial(1, {"lr": 0.2, "betas": None}, "refused", "too large")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin([ONE])
    journal.append(TWO)
    assert journal.read() == [ONE, TWO]


def test_a_search_exists_once_it_has_begun(tmp_path: Path) -> None:
    assert Journal(tmp_path).exists is False
    Journal(tmp_path).begin([])
    assert Journal(tmp_path).exists is True


def test_a_line_without_its_end_is_left_out_and_gone_with_the_next_beginning(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin([])
    journal.append(ONE)
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"number": 1, "poi')  # the writer was killed
    assert journal.read() == [ONE]
    journal.begin(journal.read())
    journal.append(TWO)
    assert journal.read() == [ONE, TWO]


@pytest.mark.parametrize("line", ["no trial", "[]", '{"number": 0}', '{"evaluations": []}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE_NAME).write_text(line + "\n")
    with pytest.raises(DataError, match=r"trials.jsonl: not a trial of a search"):
        Journal(tmp_path).read()
