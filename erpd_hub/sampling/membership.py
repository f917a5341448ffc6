"""Which servers of a fleet are there.

A server joins by answering: its model list and one token of the first prompt tell whether it can serve this call. It is
asked how it is while it works, and after every failure; when it is gone it is asked again until it is back.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from erpd_hub.endpoints.replies import Setback
from erpd_hub.errors import ErpdError
from erpd_hub.sampling.backlog import Job
from erpd_hub.sampling.engine import Request
from erpd_hub.sampling.server import Server
from erpd_hub.sampling.server_reply import Wanted

_HEALTH_PERIOD = 10.0
"""Seconds between two questions to a server at work: one that lost its power closes no connection."""
_SILENCES = 3
"""Health checks without any answer before a server counts as gone: what it has in flight is lost with it."""
_REJOIN_FIRST, _REJOIN_LAST = 0.5, 15.0
"""Seconds between attempts to reach a server that is away, doubling."""

logger = logging.getLogger(__name__)


class Membership:
    """Lets servers in and out, in the fleet's event loop."""

    def __init__(
        self,
        requests: Sequence[Request],
        wanted: Wanted,
        *,
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task],
        left: Callable[[Server, Sequence[Job]], None],
        joined: Callable[[], None],
    ) -> None:
        """
        Args:
            spawn: Starts a task of the call.
            left: Told of a server that is gone, with what it had in flight.
            joined: Told when one is there.
        """
        self._wanted = wanted
        self._spawn, self._left, self._joined = spawn, left, joined
        self._probe = min(requests, key=lambda request: len(request.prompt_ids))
        self._longest = max(len(request.prompt_ids) for request in requests) + wanted.decoding.max_new_tokens

    async def first_join(self, server: Server) -> None:
        """The start: a server that answers but cannot serve this stops the call before anything is drawn."""
        try:
            await self._join(server)
        except Setback as setback:
            server.reason = str(setback)
            logger.warning("%s is away (%s); waiting for it", server.name, setback)

    async def watch(self, server: Server) -> None:
        """Keep a server in the fleet for as long as it answers, and take it in again when it does."""
        while True:
            if server.served is None:
                await self._rejoin(server)
            silences = 0
            while server.served is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HEALTH_PERIOD):
                        await server.gone.wait()
                if server.served is not None and server.inflight:
                    silences = silences + 1 if await asyncio.shield(self.inspect(server)) == "silent" else 0
                    if silences >= _SILENCES:
                        self._leave(server, "it no longer answers")

    def inspect(self, server: Server) -> asyncio.Task:
        """The health check under way, or a new one: hundreds of samples that fail together ask once."""
        if server.inspection is None or server.inspection.done():
            server.inspection = self._spawn(self._check_health(server))
        return server.inspection

    async def _check_health(self, server: Server) -> str:
        state = await server.client.health()
        if state == "down" and server.served is not None:
            self._leave(server, "it is not well, or nobody listens")
        return state

    def _leave(self, server: Server, reason: str) -> None:
        """Out of the fleet, its samples to the others; what is cancelled is given up by a server that still lives."""
        logger.warning("%s is away (%s); %d samples go back", server.name, reason, len(server.inflight))
        server.served, server.reason = None, reason
        server.gone.set()
        jobs = list(server.inflight.values())
        for task in server.inflight:
            task.cancel()
        server.inflight.clear()
        self._left(server, jobs)

    async def _rejoin(self, server: Server) -> None:
        delay = _REJOIN_FIRST
        while server.served is None:
            await asyncio.sleep(delay)
            delay = min(2 * delay, _REJOIN_LAST)
            try:
                await self._join(server)
            except Setback as setback:
                server.reason = str(setback)
            except ErpdError as error:
                logger.warning("%s is back, but cannot serve this call any more", server.name)
                server.reason = str(error)
        logger.warning("%s is here", server.name)

    async def _join(self, server: Server) -> None:
        """Raises: Setback, ConfigError: as `Server.admit`."""
        server.served = await server.admit(self._probe, self._wanted, longest=self._longest)
        if self._wanted.chat is None and not self._wanted.keeps_logprobs(server.processed):
            logger.warning(
                "%s gives no log-probs of what is drawn from: sampler_logprobs stay null; start it with "
                "--logprobs-mode processed_logprobs to have them",
                server.name,
            )
        server.gone.clear()
        server.paused_until, server.refusals, server.cap = 0.0, 0, server.config.concurrency
        self._joined()
