"""Several servers as one: every sample done once, by whichever of them is there.

Which servers are there is the business of `Membership`; when one is gone its samples go back to the backlog. All state
belongs to one event loop, so there are no locks.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

from erpd_hub.config import ServerEngine
from erpd_hub.endpoints.client import Refused, ServerClient, key_in
from erpd_hub.endpoints.replies import Setback
from erpd_hub.errors import StageError
from erpd_hub.sampling.backlog import Backlog, Job
from erpd_hub.sampling.engine import Completion, Request
from erpd_hub.sampling.membership import Membership
from erpd_hub.sampling.server import Server
from erpd_hub.sampling.server_reply import Wanted

_KEY_NAME = "ERPD_SERVER_KEY"
_RETRY_FIRST, _RETRY_LAST = 0.5, 60.0
"""Seconds before a failed sample is sent again, doubling."""
_AT_FAULT = (400, 413, 422)
"""Statuses that say something about the request, not about whoever sends it."""
_REFUSALS = 16
"""Refused samples without one that was taken: then it is not the samples."""
_LOSSES = 16
"""Servers that may go away under one sample: beyond that it is the sample that takes them down."""

logger = logging.getLogger(__name__)


class Fleet:
    """One call of the engine: `run` returns when every request has been delivered."""

    def __init__(
        self,
        config: ServerEngine,
        requests: Sequence[Request],
        wanted: Wanted,
        deliver: Callable[[int, Completion], None],
    ) -> None:
        self._config = config
        self._wanted = wanted
        self._deliver = deliver
        self._backlog = Backlog(requests)
        self._members = Membership(requests, wanted, spawn=self._spawn, left=self._gone, joined=self._joined)
        self._left = len(requests)
        self._taken = self._refused = 0
        self._servers: list[Server] = []
        self._tasks: set[asyncio.Task] = set()
        self._failure: BaseException | None = None

    @property
    def unseeded(self) -> bool:
        """Whether a server takes no seeds."""
        return any(not server.dialect.seeds for server in self._servers)

    async def run(self) -> None:
        """Raises:
        ConfigError: a server that answers cannot serve this call.
        StageError: no server answers any more, or one will not do what it is asked.
        """
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._progress = self._loop.time()
        async with AsyncExitStack() as stack:
            key, number = key_in(_KEY_NAME), len(self._config.urls)
            for place, url in enumerate(self._config.urls, start=1):
                client = ServerClient(url, key=key, key_name=_KEY_NAME)
                stack.push_async_callback(client.close)
                name = f"server {place} of {number}"
                self._servers.append(Server(client, self._config, name, cap=self._config.concurrency))
            stack.push_async_callback(self._stop)
            await asyncio.gather(*[self._spawn(self._members.first_join(server)) for server in self._servers])
            for server in self._servers:
                self._spawn(self._members.watch(server))
            await self._serve()

    async def _serve(self) -> None:
        while self._left:
            if self._failure is not None:
                raise self._failure
            self._wake.clear()
            now = self._loop.time()
            self._dispatch(now)
            self._check_patience(now)
            await self._sleep(now)

    def _dispatch(self, now: float) -> None:
        """Hand out samples one at a time, each to the server with the fewest: all get equally busy."""
        free = [server for server in self._servers if server.free(now)]
        while free:
            server = min(free, key=lambda server: len(server.inflight))
            job = self._backlog.take(server, now, alone=len(free) < 2)
            if job is None:
                free.remove(server)
                continue
            task = self._spawn(self._draw(server, job))
            server.inflight[task] = job
            if not server.free(now):
                free.remove(server)

    async def _sleep(self, now: float) -> None:
        """Until something happens, or may: a pause ends, a sample may be retried, patience runs out."""
        times = [server.paused_until for server in self._servers if server.paused_until > now]
        times += [self._backlog.next_ready(now) or now + self._config.patience, now + self._config.patience / 4]
        with suppress(TimeoutError):
            async with asyncio.timeout(max(min(times) - now, 0.0)):
                await self._wake.wait()

    def _check_patience(self, now: float) -> None:
        """Raises: StageError: for `patience` seconds nothing was in flight and nobody could be sent anything."""
        if any(server.inflight for server in self._servers):
            return
        if now - self._progress > self._config.patience:
            states = "; ".join(f"{server.client.url}: {server.reason}" for server in self._servers)
            raise StageError(
                f"servers: expected one that takes samples within {self._config.patience:g} s, got none ({states}); "
                "finished samples are kept, start the servers and run again"
            )

    async def _draw(self, server: Server, job: Job) -> None:
        """One attempt at one sample; afterwards it is delivered, or in the backlog again."""
        setback = None
        try:
            completion = await server.draw(job.request, self._wanted)
            self._taken += 1
        except Refused as error:
            self._refused += 1
            hopeless = not self._taken and self._refused > _REFUSALS
            if hopeless or not self._wanted.tolerant or error.status not in _AT_FAULT:
                raise
            completion = Completion(None, None, "error", f"refused with HTTP {error.status}")
        except Setback as error:
            setback = error
            if setback.retry_after is None:
                # If the server turns out to be gone, this task is cancelled here and the sample given back.
                await asyncio.shield(self._members.inspect(server))
        if not self._release(server):
            return
        if setback is not None:
            self._set_back(server, job, setback)
        else:
            server.refusals = 0
            server.cap = min(server.cap + 1, self._config.concurrency)
            self._finish(job, completion)

    def _release(self, server: Server) -> bool:
        """Whether the sample of the running task was still its own: it is not after its server has left."""
        task = asyncio.current_task()
        assert task is not None
        self._wake.set()
        return server.inflight.pop(task, None) is not None

    def _set_back(self, server: Server, job: Job, setback: Setback) -> None:
        """Back into the backlog, with a mark against the sample if the server is well and took it."""
        now = self._loop.time()
        if setback.retry_after is not None:
            self._pause(server, setback.retry_after, str(setback))
            self._backlog.give_back(job)
            return
        self._progress = now
        job.attempts += 1
        job.avoid = server
        logger.info("%s: sample %d, attempt %d: %s", server.name, job.index, job.attempts, setback)
        if job.attempts > self._config.retries:
            logger.warning("%s: sample %d failed %d times: %s", server.name, job.index, job.attempts, setback)
            self._finish(job, Completion(None, None, "error", f"{job.attempts} attempts failed"))
            return
        delay = min(_RETRY_FIRST * 2 ** (job.attempts - 1), _RETRY_LAST) * random.uniform(1.0, 1.5)
        self._backlog.give_back(job, ready=now + delay)

    def _pause(self, server: Server, asked: float, reason: str) -> None:
        """The server is busy: leave it alone for a while, then send it no more at once than it took."""
        now = self._loop.time()
        if server.paused_until <= now:  # the first of the requests that it turned down together
            server.refusals += 1
            server.reason = reason
            server.cap = max(1, len(server.inflight))
        delay = asked or min(_RETRY_FIRST * 2 ** (server.refusals - 1), _RETRY_LAST)
        server.paused_until = max(server.paused_until, now + delay)

    def _lost(self, job: Job) -> None:
        job.lost += 1
        if job.lost > _LOSSES:
            self._finish(job, Completion(None, None, "error", f"{job.lost} servers went away under it"))
        else:
            self._backlog.give_back(job)

    def _finish(self, job: Job, completion: Completion) -> None:
        self._left -= 1
        self._progress = self._loop.time()
        self._deliver(job.index, completion)

    def _gone(self, server: Server, jobs: Sequence[Job]) -> None:
        """A server is gone: what it had in flight goes to the others."""
        self._progress = self._loop.time()
        self._backlog.abandon(server)
        for job in jobs:
            self._lost(job)
        self._wake.set()

    def _joined(self) -> None:
        self._progress = self._loop.time()
        self._wake.set()

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task) -> None:
        """What goes wrong in a task ends the call, not only the task."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()
            self._wake.set()

    async def _stop(self) -> None:
        """Cancel what is in flight; a server gives up a request whose connection closes."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
