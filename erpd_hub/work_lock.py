"""The lock of a work directory: one process at a time makes an artifact."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from erpd_hub.errors import StageError


def lock_file(work: Path) -> Path:
    return work.with_suffix(".lock")


@contextmanager
def exclusive(work: Path) -> Iterator[None]:
    """The work directory of one fingerprint, for one process at a time; a second one waits.

    Raises:
        StageError: the directory cannot be written (full disk, permissions).
    """
    lock = lock_file(work)
    try:
        work.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    except OSError as error:
        raise StageError(f"work directory: {error.strerror}; free space or set ERPD_HOME elsewhere") from None
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        work.mkdir(parents=True, exist_ok=True)
        yield


def discard(work: Path) -> None:
    """Remove a work directory, unless a process is at it."""
    with lock_file(work).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(work, ignore_errors=True)
        lock_file(work).unlink(missing_ok=True)
