"""A few killable grading workers: comparisons in, outcomes out, whatever the answers do.

The parent never blocks on a worker: it waits for progress lines with a deadline each and kills what overruns. A killed
worker is replaced when the next job needs it. Jobs are independent, so the outcomes do not depend on the order.
"""

import atexit
import functools
import importlib.util
import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from erpd_hub.errors import require_extra

Outcome = Literal["equal", "different", "unparsed", "bad_gold", "slow_gold", "timeout", "crash", "no_worker"]

_STARTUP_SECONDS = 120.0  # importing sympy takes 3 s on an idle core, far longer on a crowded one
_PASSED_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "TMPDIR")  # no tokens in there


@dataclass
class _Job:
    index: int
    gold: str
    answer: str
    attempts: int = 0


@dataclass
class _Worker:
    """A child process and the job it has."""

    process: subprocess.Popen = field(default_factory=lambda: _start_process())
    job: _Job | None = None
    phase: Literal["sent", "taken", "gold"] = "sent"
    deadline: float = 0.0
    unread: bytes = b""

    def send(self, job: _Job, seconds: float) -> None:
        self.job, self.phase, self.deadline = job, "sent", time.monotonic() + _STARTUP_SECONDS
        line = json.dumps({"gold": job.gold, "answer": job.answer, "seconds": seconds})
        os.write(self.process.stdin.fileno(), line.encode() + b"\n")  # type: ignore[union-attr]

    def read_lines(self) -> list[str] | None:
        """Complete lines that have arrived; None when the process has ended."""
        data = os.read(self.process.stdout.fileno(), 1 << 16)  # type: ignore[union-attr]
        if not data:
            return None
        *lines, self.unread = (self.unread + data).split(b"\n")
        return [line.decode() for line in lines]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.stdout.close()  # type: ignore[union-attr]


class GradingPool:
    """Up to `size` workers, started when a job needs one and kept for the next call."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: list[_Worker] = []

    def compare(self, pairs: Sequence[tuple[str, str]], *, seconds: float) -> list[Outcome]:
        """Outcomes of (gold, answer) pairs in order; a pair has `seconds` of wall time once a worker has taken it."""
        outcomes: list[Outcome] = ["no_worker"] * len(pairs)
        pending = deque(_Job(index, gold, answer) for index, (gold, answer) in enumerate(pairs))
        busy: list[_Worker] = []
        try:
            while pending or busy:
                while pending and len(busy) < self._size:
                    busy.append(self._assign(pending.popleft(), seconds))
                for worker in _wait(busy):
                    outcome = _advance(worker, seconds)
                    if outcome is None:
                        continue
                    busy.remove(worker)
                    self._settle(worker, outcome, outcomes, pending)
        finally:
            for worker in busy:  # an interrupt: what they were doing is lost
                worker.kill()
        return outcomes

    def close(self) -> None:
        while self._idle:
            self._idle.pop().kill()

    def _assign(self, job: _Job, seconds: float) -> _Worker:
        job.attempts += 1
        worker = self._idle.pop() if self._idle else _Worker()
        if worker.process.poll() is not None:
            worker.kill()
            worker = _Worker()
        worker.send(job, seconds)
        return worker

    def _settle(self, worker: _Worker, outcome: Outcome, outcomes: list[Outcome], pending: deque[_Job]) -> None:
        """Note the outcome; once, a crash is tried again, since something else may have killed the worker."""
        job = worker.job
        assert job is not None
        if outcome in ("equal", "different", "unparsed", "bad_gold"):
            self._idle.append(worker)
        else:
            worker.kill()
        if outcome in ("crash", "no_worker") and job.attempts == 1:
            pending.append(job)
        else:
            outcomes[job.index] = outcome


@functools.cache
def shared_pool() -> GradingPool:
    """The process's pool.

    Raises:
        ErpdError: math-verify is not installed.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise require_extra("eval", "comparing answers by algebra")
    pool = GradingPool(min(4, os.cpu_count() or 1))
    atexit.register(pool.close)
    return pool


def _start_process() -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "erpd_hub.evaluation.grading_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _PASSED_ENVIRONMENT if name in os.environ},
        start_new_session=True,  # Ctrl-C is the parent's to handle
        bufsize=0,
    )


def _wait(workers: list[_Worker]) -> list[_Worker]:
    """Workers that have something to read or whose time is up."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
        patience = min(worker.deadline for worker in workers) - time.monotonic()
        readable = [key.data for key, _ in selector.select(max(patience, 0.0))]
    now = time.monotonic()
    return readable + [worker for worker in workers if worker.deadline <= now and worker not in readable]


def _advance(worker: _Worker, seconds: float) -> Outcome | None:
    """Take in what a worker says; its outcome, or None while it is still at work."""
    if worker.deadline <= time.monotonic():
        return _failed(worker, timed_out=True)
    lines = worker.read_lines()
    if lines is None:
        return _failed(worker, timed_out=False)
    for line in lines:
        if line not in ("taken", "gold"):
            return line  # type: ignore[return-value]
        worker.phase = line  # type: ignore[assignment]
        if line == "taken":
            worker.deadline = time.monotonic() + seconds
    return None


def _failed(worker: _Worker, *, timed_out: bool) -> Outcome:
    if worker.phase == "sent":
        return "no_worker"
    if worker.phase == "taken":
        return "slow_gold"
    return "timeout" if timed_out else "crash"
