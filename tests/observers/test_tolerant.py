import errno

import pytest

from psgd.errors import ConfigurationError
from psgd.observers import Tolerant
from psgd.runlog import Record
from tests.records import ITERATION

FULL = OSError(errno.ENOSPC, "No space left on device")


class Writer:
    def __init__(self, error: Exception) -> None:
        self.error = error
        self.tried = 0

    def __call__(self, record: Record) -> None:
        self.tried += 1
        raise self.error

    def close(self) -> None:
        self.tried += 1
        raise self.error


def test_a_full_disk_is_told_once_and_ends_the_writing(caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer(FULL)
    tolerant = Tolerant(writer)
    tolerant(ITERATION)
    tolerant(ITERATION)
    assert writer.tried == 1
    tolerant.close()
    assert [record.getMessage() for record in caplog.records] == [
        "Writer gave up: [Errno 28] No space left on device; training goes on unwritten"
    ]


def test_a_disk_that_is_full_at_the_end_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    Tolerant(Writer(FULL)).close()
    assert len(caplog.records) == 1


def test_other_errors_end_the_run() -> None:
    with pytest.raises(ConfigurationError):
        Tolerant(Writer(ConfigurationError("out must be without a run")))(ITERATION)
