"""A few killable grading workers: comparisons in, outcomes out, whatever the answers do.

The parent never blocks on a worker: it waits for progress lines with a deadline each and kills what overruns. A killed
worker is replaced when the next job needs it. Jobs are independent, so the outcomes do not depend on the order.
"""

import atexit
import functools
import importlib.util
import os
import selectors
import time
from collections import deque
from collections.abc import Sequence

from erpd_hub.errors import require_extra
from erpd_hub.evaluation.grading_process import Comparison, Job, Method, Worker, advance, end

_BATCH = 16  # jobs that a worker is given at once: fewer waits, and few to hand out again when it dies
_BATCH_BYTES = 60_000  # a pipe holds 64 KiB


class GradingPool:
    """Up to `size` workers, started when a job needs one and kept for the next call."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: list[Worker] = []

    def compare(
        self, pairs: Sequence[tuple[str, str]], *, seconds: float, method: Method = "reader first"
    ) -> list[Comparison]:
        """Outcomes of (gold, answer) pairs in order; a pair has `seconds` of wall time once a worker has taken it."""
        found = [Comparison("no_worker", "none", 0.0)] * len(pairs)
        pending = deque(Job(index, gold, answer) for index, (gold, answer) in enumerate(pairs))
        busy: list[Worker] = []
        try:
            while pending or busy:
                while pending and len(busy) < self._size:
                    busy.append(self._assign(pending, seconds, method))
                for worker, readable in _wait(busy):
                    for job, comparison in advance(worker, seconds) if readable else end(worker, timed_out=True):
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

    def _assign(self, pending: deque[Job], seconds: float, method: Method) -> Worker:
        jobs = _next_batch(pending, max(1, min(_BATCH, len(pending) // (2 * self._size))))  # the last ones are spread
        again = jobs[0].attempts > 0
        jobs[0].attempts += 1
        worker = self._idle.pop() if self._idle and not again else Worker()
        if worker.process.poll() is not None:
            worker.kill()
            worker = Worker()
        worker.send(jobs, seconds, method)
        return worker

    def _release(self, worker: Worker, pending: deque[Job]) -> None:
        """Keep a worker that is alive and not worn; hand out again what a dead one had not begun."""
        if worker.process.returncode is None and not worker.worn:
            self._idle.append(worker)
            return
        if worker.worn:
            worker.kill()
        pending.extendleft(reversed(worker.jobs))
        worker.jobs.clear()


def _settle(job: Job, comparison: Comparison, found: list[Comparison], pending: deque[Job]) -> None:
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


def _next_batch(pending: deque[Job], count: int) -> list[Job]:
    """The next jobs, few enough to be written to an idle worker at once even if it hangs on the first.

    A job that is tried again comes alone.
    """
    jobs = [pending.popleft()]
    if jobs[0].attempts:
        return jobs
    room = _BATCH_BYTES - jobs[0].size
    while pending and len(jobs) < count and not pending[0].attempts:
        room -= pending[0].size
        if room < 0:
            break
        jobs.append(pending.popleft())
    return jobs


def _wait(workers: list[Worker]) -> list[tuple[Worker, bool]]:
    """Workers that have something to read, and (False) those that have not and whose time is up."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.replies, selectors.EVENT_READ, worker)
        patience = min(worker.deadline for worker in workers) - time.monotonic()
        readable = [key.data for key, _ in selector.select(max(patience, 0.0))]
    now = time.monotonic()
    late = [worker for worker in workers if worker.deadline <= now and worker not in readable]
    return [(worker, True) for worker in readable] + [(worker, False) for worker in late]
