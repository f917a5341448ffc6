"""A few child processes that answer one JSON object a line; each can be killed at any moment.

A worker says "taken" when it begins with a job, from when on the job has its seconds. A job that ends in a timeout or
takes its worker with it is the text's fault; one that was never taken is tried again, once.
"""

import queue
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from erpd_hub.errors import ErpdError
from erpd_hub.evaluation.backends.confinement import bare_environment, confined, end_group
from erpd_hub.evaluation.backends.foreign.guard import REFUSED_CODE
from erpd_hub.line_pipes import LinePipes

STARTUP_SECONDS = 300.0  # a harness takes half a minute to import on a crowded machine

_LOG = "stderr.log"
_FEW = 64  # jobs that one worker is done with before a second harness is imported

Loss = Literal["timeout", "refused", "crash", "no_worker"]


@dataclass(frozen=True)
class Lost:
    """A job without a reply: its time was up, it reached for a file or a socket, or its worker ended or never began."""

    how: Loss


Reply = dict[str, Any] | Lost


class Workers:
    """Up to `size` processes of one command, started when there is work for them; a few jobs are for one."""

    def __init__(self, command: list[str], *, size: int, seconds: float) -> None:
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # the one that is at work already comes first
        self._folder = tempfile.TemporaryDirectory(prefix="erpd-grader-")
        self._work = Path(self._folder.name).resolve()
        self._all = [_Worker(command, self._work) for _ in range(size)]
        self._seconds = seconds
        # Kept as long as the workers: the kernel ends a worker with the thread that started it.
        self._threads = ThreadPoolExecutor(max_workers=size)
        for worker in self._all:
            self._idle.put(worker)

    def ask_all(self, jobs: Sequence[dict[str, Any]]) -> list[Reply]:
        """Replies to jobs, in order.

        Raises:
            ErpdError: the command does not start; its last words are in the message.
        """
        if len(jobs) <= _FEW:
            replies = self._threads.submit(lambda: [self._ask(job) for job in jobs]).result()
        else:
            replies = list(self._threads.map(self._ask, jobs))
        if Lost("no_worker") in replies:
            log = self._work / _LOG
            words = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
            raise ErpdError(
                f"grader: its process does not start: {' | '.join(words[-3:]).strip() or 'it says nothing'}"
            )
        return replies

    def close(self) -> None:
        for worker in self._all:
            worker.close()
        self._threads.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def _ask(self, job: dict[str, Any]) -> Reply:
        worker = self._idle.get()
        try:
            return worker.ask(job, self._seconds)
        finally:
            self._idle.put(worker)


class _Worker:
    """One child process, started anew whenever it is lost."""

    def __init__(self, command: list[str], work: Path) -> None:
        self._command = command
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: LinePipes | None = None
        self._closed = False

    def ask(self, job: dict[str, Any], seconds: float) -> Reply:
        reply = self._try(job, seconds)
        return self._try(job, seconds) if reply == Lost("no_worker") else reply

    def close(self) -> None:
        self._closed = True
        self._kill()

    def _try(self, job: dict[str, Any], seconds: float) -> Reply:
        if self._closed:
            return Lost("no_worker")
        if self._process is None or self._process.poll() is not None:
            self._start()
        pipes = self._pipes
        assert pipes is not None, "it was started"
        pipes.send(job)
        try:
            pipes.receive(STARTUP_SECONDS)
        except (TimeoutError, EOFError):
            self._kill()
            return Lost("no_worker")
        try:
            reply: dict[str, Any] = pipes.receive(seconds)
        except (TimeoutError, EOFError):
            return Lost(self._kill())
        return reply

    def _start(self) -> None:
        self._kill()
        work = str(self._work)
        with (self._work / _LOG).open("wb") as log:
            self._process = subprocess.Popen(
                confined(self._command, work=self._work),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=bare_environment(HOME=work, TMPDIR=work),
                cwd=work,
                start_new_session=True,  # Ctrl-C is the parent's to handle, and what it starts is killed with it
                bufsize=0,
            )
        self._pipes = LinePipes(self._process)

    def _kill(self) -> Loss:
        """End the process and whatever it started; says how it had ended."""
        if self._process is None:
            return "no_worker"
        process, self._process = self._process, None
        code = end_group(process)
        if self._pipes is not None:
            self._pipes.close()
        if code is None:
            return "timeout"
        return "refused" if code == REFUSED_CODE else "crash"
