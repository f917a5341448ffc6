"""The embedded Hub as a process of its own, for the tests that talk to one."""

import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

REPO_ROOT = Path(__file__).parent.parent
TOKEN = "any-text"


def start(root: Path, ready: Path, *arguments: str, max_file: int | None = None) -> subprocess.Popen[bytes]:
    """A server process; with `max_file` its disk is full for files beyond that many bytes."""
    command = [sys.executable, "-m", "erpd_hub.hub.server", "--root", str(root), "--ready-file", str(ready), *arguments]
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (max_file, max_file))) if max_file else None
    return subprocess.Popen(command, cwd=REPO_ROOT, stderr=subprocess.PIPE, preexec_fn=limit)


def wait_ready(process: subprocess.Popen[bytes], ready: Path) -> str:
    """The URL of a server that belongs to this process."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(FileNotFoundError):
            record = json.loads(ready.read_text())
            if record["pid"] == process.pid:
                return record["url"]
        time.sleep(0.02)
    pytest.fail(f"the server did not start: {process.stderr.read().decode() if process.poll() is not None else ''}")


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[str]:
    """A server on `folder`/root for the length of the block; yields its URL."""
    process = start(folder / "root", folder / "ready.json", *arguments)
    try:
        yield wait_ready(process, folder / "ready.json")
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0, process.stderr.read().decode()


def until(holds: Callable[[], bool]) -> None:
    """Waits for it, and fails after a minute."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def content_id(content: bytes, *, lfs: bool) -> str:
    """The id git or git-lfs gives a content."""
    return (
        hashlib.sha256(content).hexdigest() if lfs else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    )
