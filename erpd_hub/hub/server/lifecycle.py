"""The server as a process: one per root, announced by a ready file, gone when nobody wants it any more.

Client processes that want the server hold a shared flock on the client lock; the kernel drops it however they die.
"""

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNUSED_GRACE_S = 5.0
UNUSED_POLL_S = 0.5
LOCK_TRIES, LOCK_PAUSE_S = 5, 0.05
"""Somebody who asks whether the root is served holds the lock for a moment."""


class AlreadyServed(Exception):
    """Another live server holds the root."""


@contextmanager
def only_server(root: Path) -> Iterator[None]:
    """Hold the root for this process; raises AlreadyServed when another one does."""
    with (root / "server.lock").open("a") as file:
        for _ in range(LOCK_TRIES):
            if _try_exclusive(file.fileno()):
                break
            time.sleep(LOCK_PAUSE_S)
        else:
            raise AlreadyServed
        yield


def is_served(root: Path) -> bool:
    """Whether a live server holds the root; nothing is written, as the root may be a backup on a read-only mount."""
    try:
        with (root / "server.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def ready_file(path: Path | None) -> Iterator[None]:
    """On leaving, remove the ready file unless another server has written its own over it."""
    try:
        yield
    finally:
        if path is not None and _owner(path) == os.getpid():
            path.unlink(missing_ok=True)


def announce(path: Path, *, port: int, url: str) -> None:
    """Write the ready file in one step."""
    path.unlink(missing_ok=True)  # of a killed server; on a full disk it leaves the room for this one
    temporary = path.with_name(f"{path.name}.new")
    try:
        temporary.write_text(json.dumps({"pid": os.getpid(), "port": port, "url": url}))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _owner(path: Path) -> int | None:
    try:
        return json.loads(path.read_text())["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


class ClientLock:
    """The lock whose shared holders are the server's clients."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("a") if path is not None else None

    async def wait_unused(self) -> None:
        """Return once no client is left, holding the lock: a client that comes now waits until this server is gone,
        finds no ready file and starts another."""
        assert self._file is not None
        await asyncio.sleep(UNUSED_GRACE_S)
        while not _try_exclusive(self._file.fileno()):
            await asyncio.sleep(UNUSED_POLL_S)

    def __enter__(self) -> "ClientLock":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _try_exclusive(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
