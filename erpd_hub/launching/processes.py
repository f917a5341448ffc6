"""The child processes of a stage: started together, watched, and all stopped when one fails or this one has to stop.

Each is the head of a process group of its own, so that what it started (an engine's processes, the ranks of a training)
goes with it. A lock that the children hold too keeps the next run out until the last of them is gone.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from erpd_hub.launching.worker import MARK

GRACE = 60.0
"""Seconds between asking a process to stop and making it: an engine writes down what it has."""
_POLL = 0.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Command:
    """A process to start."""

    label: str
    """`rollouts 1/2`: before its lines."""
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    """Everything that it prints."""


@dataclass(frozen=True)
class Ended:
    """A process that ended by itself, in the order in which they did."""

    command: Command
    code: int

    @property
    def reason(self) -> str:
        """How it ended, for a message."""
        return f"was killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with code {self.code}"


def run_together(commands: Sequence[Command], lock: int) -> list[Ended]:
    """Run processes until all have ended, or one has failed and the others were stopped.

    Args:
        lock: File descriptor that they keep open.
    """
    children: list[tuple[Command, subprocess.Popen[str]]] = []
    readers: list[threading.Thread] = []
    try:
        with _interrupted_by_sigterm():
            for command in commands:
                child = _start(command, lock)
                children.append((command, child))
                readers.append(threading.Thread(target=_forward, args=(command, child.stdout), daemon=True))
                readers[-1].start()
            return _watch(children)
    finally:
        _stop([child for _, child in children])
        for reader in readers:
            reader.join(timeout=5)


@contextmanager
def alone(path: Path) -> Iterator[int]:
    """A lock file's descriptor, once no process of an earlier run holds it any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("waiting for the processes of an interrupted run to end")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream.fileno()


def _start(command: Command, lock: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command.arguments,
        env=dict(command.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=(lock,),
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )


def _die_with_parent() -> None:
    """Runs in the child: `accelerate launch` does not ask for this by itself, as a worker does."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _forward(command: Command, stream: IO[str]) -> None:
    """Keep all lines of a process in its log, and pass on those of our own logging."""
    with command.log.open("a") as log:
        for line in stream:
            level, _, message = line[1:].rstrip("\n").partition(MARK) if line.startswith(MARK) else ("", "", "")
            log.write(f"{message}\n" if level else line)
            log.flush()
            if level:
                logger.log(int(level), "[%s] %s", command.label, message)


def _watch(children: "list[tuple[Command, subprocess.Popen[str]]]") -> list[Ended]:
    ended: list[Ended] = []
    running = list(children)
    while running and not any(item.code for item in ended):
        time.sleep(_POLL)
        for command, child in list(running):
            if (code := child.poll()) is not None:
                running.remove((command, child))
                ended.append(Ended(command, code))
    return ended


def _stop(children: "Sequence[subprocess.Popen[str]]") -> None:
    """Stop what still runs, and whatever those that ended may have left behind."""
    _signal(children, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
    _signal(children, signal.SIGKILL)
    for child in children:
        child.wait()


def _signal(children: "Sequence[subprocess.Popen[str]]", number: int) -> None:
    for child in children:
        with suppress(ProcessLookupError):  # the whole group is gone
            os.killpg(child.pid, number)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind this process as Ctrl-C does, so that the children are stopped; restored afterwards."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
