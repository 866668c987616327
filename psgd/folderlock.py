"""A folder that one process at a time writes to: whoever comes second is refused, and spoils nothing."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psgd.errors import ConfigurationError

FILE_NAME = ".psgd.lock"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system says that has none."""


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Within it no other process that asks for the same may write to the folder; nothing of it is left behind.

    The lock is the kernel's: it ends with the process, however that dies, and the file that then stays is no lock.

    Args:
        folder: made with its parents; those that are empty in the end are removed again.

    Raises:
        ConfigurationError: if another process is the writer, or the folder can not be written or locked.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        descriptor = _claim(folder)
        try:
            yield
        finally:
            _remove(folder / FILE_NAME)
            os.close(descriptor)
    finally:
        for each in made:
            with suppress(OSError):  # there is something in it
                each.rmdir()


def _claim(folder: Path) -> int:
    """The open descriptor whose lock makes this process the writer."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _lock(folder / FILE_NAME)
    except BlockingIOError:
        raise ConfigurationError(
            f"out must have one writer, got {folder}: another process is writing there; wait for its end, or "
            "choose another folder"
        ) from None
    except OSError as error:
        rule = "on a file system with locks" if error.errno in WITHOUT_LOCKS else "writable"
        raise ConfigurationError(
            f"out must be {rule}, got {folder}: {error.strerror}; choose another folder"
        ) from error


def _lock(file: Path) -> int:
    """An open descriptor of the file, which has the lock.

    Raises:
        BlockingIOError: if another one has it.
        OSError: if the file can not be made, or not be locked.
    """
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                _remove(file)
            os.close(descriptor)
            raise
        if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
            return descriptor
        os.close(descriptor)  # its last holder has removed it in between


def _remove(file: Path) -> None:
    with suppress(OSError):  # a disk that has become read-only keeps it, and it locks nothing
        file.unlink()
