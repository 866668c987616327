import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from psgd.errors import ConfigurationError
from psgd.folderlock import FILE_NAME, only_writer

WRITER = """
import sys
from pathlib import Path
from psgd.folderlock import only_writer
with only_writer(Path(sys.argv[1])):
    print("writing", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_writer(folder: Path) -> "Iterator[subprocess.Popen[str]]":
    """Another process, which writes to the folder until its standard input ends."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as caught, only_writer(folder):
        raise AssertionError("two write to one folder")
    return str(caught.value)


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with another_writer(folder):
        assert refusal(folder) == (
            f"out must have one writer, got {folder}: another process is writing there; wait for its end, or "
            "choose another folder"
        )
    with only_writer(folder):
        assert refusal(folder).startswith("out must have one writer, ")


def test_a_writer_that_was_killed_keeps_nobody_out(tmp_path: Path) -> None:
    with another_writer(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / FILE_NAME).exists()
    with only_writer(tmp_path):
        assert (tmp_path / FILE_NAME).exists()
    assert list(tmp_path.iterdir()) == []


def test_folders_that_were_made_for_nothing_are_removed_again(tmp_path: Path) -> None:
    with only_writer(tmp_path / "runs" / "compare"):
        assert (tmp_path / "runs" / "compare").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_or_was_written_stays(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with only_writer(tmp_path / "runs" / "compare"):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"]
    with only_writer(tmp_path / "runs" / "compare"):
        (tmp_path / "runs" / "compare" / "table.md").touch()
    assert [path.name for path in (tmp_path / "runs" / "compare").iterdir()] == ["table.md"]


def test_a_file_that_its_holder_removes_while_it_is_being_locked_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, locked = fcntl.flock, list[int]()

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        if not locked:
            (tmp_path / FILE_NAME).unlink()
        locked.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_writer(tmp_path):
        assert len(locked) == 2
        assert refusal(tmp_path).startswith("out must have one writer, ")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "out must be writable, got {}: Read-only file system; choose another folder"),
        (errno.ENOLCK, "out must be on a file system with locks, got {}: No locks available; choose another folder"),
    ],
)
def test_a_file_system_that_does_not_do_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    assert refusal(tmp_path / "out") == words.format(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    assert refusal(tmp_path / "out") == f"out must be writable, got {tmp_path}/out: File exists; choose another folder"
