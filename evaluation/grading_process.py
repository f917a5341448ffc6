"""One grading worker as its parent sees it: a child process, the jobs it has, and what it says about them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Outcome = Literal["equal", "different", "unparsed", "bad_gold", "slow_gold", "timeout", "crash", "no_worker"]
Method = Literal["reader first", "math-verify"]
Phase = Literal["sent", "loading", "taken", "gold"]

_OUTCOMES: dict[str, Outcome] = {
    "equal": "equal", "different": "different", "unparsed": "unparsed", "bad_gold": "bad_gold",
}  # fmt: skip
_PHASES: dict[str, Phase] = {"loading": "loading", "taken": "taken", "gold": "gold"}

_STARTUP_SECONDS = 120.0  # importing sympy takes 3 s on an idle core, far longer on a crowded one
_PASSED_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "TMPDIR")  # no tokens in there


class Comparison(NamedTuple):
    """What comparing one pair came to."""

    outcome: Outcome
    layer: str
    """`reader` or `math-verify`."""
    ms: float
    """Wall time in the worker, milliseconds."""


@dataclass
class Job:
    index: int
    gold: str
    answer: str
    attempts: int = 0

    @property
    def size(self) -> int:
        """Bytes on the way to a worker, where a character may take twelve."""
        return len(json.dumps([self.gold, self.answer]))


@dataclass
class Worker:
    """A child process and the jobs it has, the first of which is at work."""

    process: subprocess.Popen[bytes] = field(default_factory=lambda: start_process())
    jobs: deque[Job] = field(default_factory=deque)
    phase: Phase = "sent"
    deadline: float = 0.0
    started: float = 0.0
    unread: bytes = b""
    worn: bool = False
    """Whether it has grown so large that it is not kept."""

    def __post_init__(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None, "both are pipes"
        self.requests, self.replies = self.process.stdin, self.process.stdout

    def send(self, jobs: Sequence[Job], seconds: float, method: Method) -> None:
        self.jobs.extend(jobs)
        self.phase, self.deadline = "sent", time.monotonic() + _STARTUP_SECONDS
        self.started = time.monotonic()
        lines = [
            json.dumps({"gold": job.gold, "answer": job.answer, "seconds": seconds, "method": method}) for job in jobs
        ]
        with contextlib.suppress(BrokenPipeError):  # a dead worker is seen when it is read
            _write(self.requests.fileno(), "".join(line + "\n" for line in lines).encode())

    def read_lines(self) -> list[str] | None:
        """Complete lines that have arrived; None when the process has ended."""
        data = os.read(self.replies.fileno(), 1 << 16)
        if not data:
            return None
        *lines, self.unread = (self.unread + data).split(b"\n")
        return [line.decode() for line in lines]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.requests.close()
        self.replies.close()


def start_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "erpd_hub.evaluation.grading_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _PASSED_ENVIRONMENT if name in os.environ},
        start_new_session=True,  # Ctrl-C is the parent's to handle
        bufsize=0,
    )


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def advance(worker: Worker, seconds: float) -> list[tuple[Job, Comparison]]:
    """Take in what a worker says: the outcomes of the jobs it has finished."""
    lines = worker.read_lines()
    if lines is None:
        return end(worker, timed_out=False)
    found = []
    for line in lines:
        if line == "worn":
            worker.worn = True
            continue
        if line in _PHASES:
            _progress(worker, _PHASES[line], seconds)
            continue
        word, _, layer = line.partition(" ")
        now = time.monotonic()
        outcome = _OUTCOMES.get(word, "crash")  # a worker that says anything else has failed
        found.append((worker.jobs.popleft(), Comparison(outcome, layer, 1000 * (now - worker.started))))
        worker.phase, worker.started, worker.deadline = "sent", now, now + _STARTUP_SECONDS
        if worker.jobs:
            worker.jobs[0].attempts += 1
    return found


def end(worker: Worker, *, timed_out: bool) -> list[tuple[Job, Comparison]]:
    """Kill a worker that is late or dead; the outcome is that of the job it was at."""
    worker.kill()
    outcome, ms = _failed(worker, timed_out=timed_out), 1000 * (time.monotonic() - worker.started)
    return [(worker.jobs.popleft(), Comparison(outcome, "none", ms))]


def _progress(worker: Worker, phase: Phase, seconds: float) -> None:
    now = time.monotonic()
    worker.phase = phase
    if phase == "loading":
        worker.deadline = now + _STARTUP_SECONDS
    elif phase == "taken":
        worker.deadline, worker.started = now + seconds, now


def _failed(worker: Worker, *, timed_out: bool) -> Outcome:
    if worker.phase in ("sent", "loading"):
        return "no_worker"
    if worker.phase == "taken":
        return "slow_gold"
    return "timeout" if timed_out else "crash"
