"""A few killable grading workers: comparisons in, outcomes out, whatever the answers do.

The parent never blocks on a worker: it waits for progress lines with a deadline each and kills what overruns. A killed
worker is replaced when the next job needs it. Jobs are independent, so the outcomes do not depend on the order.
"""

import atexit
import contextlib
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
from typing import Literal, NamedTuple

from erpd_hub.errors import require_extra

Outcome = Literal["equal", "different", "unparsed", "bad_gold", "slow_gold", "timeout", "crash", "no_worker"]
Method = Literal["reader first", "math-verify"]

_STARTUP_SECONDS = 120.0  # importing sympy takes 3 s on an idle core, far longer on a crowded one
_BATCH = 16  # jobs that a worker is given at once: fewer waits, and few to hand out again when it dies
_BATCH_CHARACTERS = 8_000  # a character is six bytes at most, and a pipe holds 64 KiB
_PASSED_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "TMPDIR")  # no tokens in there


class Comparison(NamedTuple):
    """What comparing one pair came to."""

    outcome: Outcome
    layer: str
    """`reader` or `math-verify`."""
    ms: float
    """Wall time in the worker, milliseconds."""


@dataclass
class _Job:
    index: int
    gold: str
    answer: str
    attempts: int = 0


@dataclass
class _Worker:
    """A child process and the jobs it has, the first of which is at work."""

    process: subprocess.Popen = field(default_factory=lambda: _start_process())
    jobs: deque[_Job] = field(default_factory=deque)
    phase: Literal["sent", "loading", "taken", "gold"] = "sent"
    deadline: float = 0.0
    started: float = 0.0
    unread: bytes = b""

    def send(self, jobs: Sequence[_Job], seconds: float, method: Method) -> None:
        self.jobs.extend(jobs)
        self.phase, self.deadline = "sent", time.monotonic() + _STARTUP_SECONDS
        self.started = time.monotonic()
        lines = [
            json.dumps({"gold": job.gold, "answer": job.answer, "seconds": seconds, "method": method}) for job in jobs
        ]
        with contextlib.suppress(BrokenPipeError):  # a dead worker is seen when it is read
            _write(self.process.stdin.fileno(), "".join(line + "\n" for line in lines).encode())  # type: ignore[union-attr]

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

    def compare(
        self, pairs: Sequence[tuple[str, str]], *, seconds: float, method: Method = "reader first"
    ) -> list[Comparison]:
        """Outcomes of (gold, answer) pairs in order; a pair has `seconds` of wall time once a worker has taken it."""
        found = [Comparison("no_worker", "none", 0.0)] * len(pairs)
        pending = deque(_Job(index, gold, answer) for index, (gold, answer) in enumerate(pairs))
        busy: list[_Worker] = []
        try:
            while pending or busy:
                while pending and len(busy) < self._size:
                    busy.append(self._assign(pending, seconds, method))
                for worker, readable in _wait(busy):
                    for job, comparison in _advance(worker, seconds) if readable else _end(worker, timed_out=True):
                        _settle(job, comparison, found, pending)
                    if worker.process.returncode is not None or not worker.jobs:
                        busy.remove(worker)
                        self._release(worker, pending)
        finally:
            for worker in busy:  # an interrupt: what they were doing is lost
                worker.kill()
        return found

    def close(self) -> None:
        while self._idle:
            self._idle.pop().kill()

    def _assign(self, pending: deque[_Job], seconds: float, method: Method) -> _Worker:
        jobs = _next_batch(pending, max(1, min(_BATCH, len(pending) // (2 * self._size))))  # the last ones are spread
        again = jobs[0].attempts > 0
        jobs[0].attempts += 1
        worker = self._idle.pop() if self._idle and not again else _Worker()
        if worker.process.poll() is not None:
            worker.kill()
            worker = _Worker()
        worker.send(jobs, seconds, method)
        return worker

    def _release(self, worker: _Worker, pending: deque[_Job]) -> None:
        """Keep a worker that is alive; hand out again what a dead one had not begun."""
        if worker.process.returncode is None:
            self._idle.append(worker)
        else:
            pending.extendleft(reversed(worker.jobs))
            worker.jobs.clear()


def _settle(job: _Job, comparison: Comparison, found: list[Comparison], pending: deque[_Job]) -> None:
    """Note the outcome; once, a job whose worker ended without one of its own is tried again.

    Something else may have killed the worker, or an earlier answer have filled its memory.
    """
    if comparison.outcome in ("crash", "no_worker", "slow_gold") and job.attempts == 1:
        pending.append(job)
    else:
        found[job.index] = comparison


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


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _next_batch(pending: deque[_Job], count: int) -> list[_Job]:
    """The next jobs, few enough to be written to an idle worker at once even if it hangs on the first.

    A job that is tried again comes alone.
    """
    jobs, room = [pending.popleft()], _BATCH_CHARACTERS
    if jobs[0].attempts:
        return jobs
    while pending and len(jobs) < count and not pending[0].attempts:
        room -= len(jobs[-1].gold) + len(jobs[-1].answer)
        if room <= 0:
            break
        jobs.append(pending.popleft())
    return jobs


def _wait(workers: list[_Worker]) -> list[tuple[_Worker, bool]]:
    """Workers that have something to read, and (False) those that have not and whose time is up."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
        patience = min(worker.deadline for worker in workers) - time.monotonic()
        readable = [key.data for key, _ in selector.select(max(patience, 0.0))]
    now = time.monotonic()
    late = [worker for worker in workers if worker.deadline <= now and worker not in readable]
    return [(worker, True) for worker in readable] + [(worker, False) for worker in late]


def _advance(worker: _Worker, seconds: float) -> list[tuple[_Job, Comparison]]:
    """Take in what a worker says: the outcomes of the jobs it has finished."""
    lines = worker.read_lines()
    if lines is None:
        return _end(worker, timed_out=False)
    found = []
    for line in lines:
        if line in ("loading", "taken", "gold"):
            _progress(worker, line, seconds)
            continue
        outcome, _, layer = line.partition(" ")
        now = time.monotonic()
        found.append((worker.jobs.popleft(), Comparison(outcome, layer, 1000 * (now - worker.started))))  # type: ignore[arg-type]
        worker.phase, worker.started, worker.deadline = "sent", now, now + _STARTUP_SECONDS
        if worker.jobs:
            worker.jobs[0].attempts += 1
    return found


def _end(worker: _Worker, *, timed_out: bool) -> list[tuple[_Job, Comparison]]:
    """Kill a worker that is late or dead; the outcome is that of the job it was at."""
    worker.kill()
    outcome, ms = _failed(worker, timed_out=timed_out), 1000 * (time.monotonic() - worker.started)
    return [(worker.jobs.popleft(), Comparison(outcome, "none", ms))]


def _progress(worker: _Worker, line: str, seconds: float) -> None:
    now = time.monotonic()
    worker.phase = line  # type: ignore[assignment]
    if line == "loading":
        worker.deadline = now + _STARTUP_SECONDS
    elif line == "taken":
        worker.deadline, worker.started = now + seconds, now


def _failed(worker: _Worker, *, timed_out: bool) -> Outcome:
    if worker.phase in ("sent", "loading"):
        return "no_worker"
    if worker.phase == "taken":
        return "slow_gold"
    return "timeout" if timed_out else "crash"
