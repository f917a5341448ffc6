"""Which sample goes next, and to which server: what is left of a call's work, in the event loop's one thread."""

import heapq
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count

from erpd_hub.sampling.engine import Request


@dataclass(eq=False)
class Job:
    """One sample on its way; it is in the backlog or with one server, never in both."""

    index: int
    request: Request
    attempts: int = 0
    """Failures for which the sample itself may be to blame."""
    lost: int = 0
    """Servers that went away while they drew it."""
    avoid: Hashable = None
    """Who failed at it last."""


@dataclass(order=True)
class _Returned:
    ready: float
    tie: int
    job: Job = field(compare=False)


class Backlog:
    """Samples of one prompt are a group, and a server that opens a group keeps it: the prompt is read once.

    A server with nothing of its own left takes from the others' groups, so none is idle while a sample waits.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        groups: dict[Hashable, deque[Job]] = {}
        for index, request in enumerate(requests):
            groups.setdefault((request.prompt_ids, request.messages), deque()).append(Job(index, request))
        self._groups = deque(groups.values())
        self._open: dict[Hashable, deque[Job]] = {}
        self._returned: list[_Returned] = []
        self._ties = count()

    def take(self, server: Hashable, now: float, *, alone: bool) -> Job | None:
        """The next sample for a server: one that came back, one of its prompt, a new prompt, another server's.

        Args:
            alone: Whether nobody else could take what this server has failed at.
        """
        returned = self._take_returned(server, now, alone)
        if returned is not None:
            return returned
        if not self._open.get(server) and self._groups:
            self._open[server] = self._groups.popleft()
        own = self._open.get(server)
        if own:
            return own.popleft()
        longest = max(self._open.values(), key=len, default=None)
        return longest.pop() if longest else None

    def give_back(self, job: Job, *, ready: float = 0.0) -> None:
        """A sample that came to nothing may be taken again from `ready` on (in the clock of `take`)."""
        heapq.heappush(self._returned, _Returned(ready, next(self._ties), job))

    def abandon(self, server: Hashable) -> None:
        """The server is gone; its prompt is for whoever comes first."""
        group = self._open.pop(server, None)
        if group:
            self._groups.appendleft(group)

    def next_ready(self, now: float) -> float | None:
        """When the next of what came back may be taken; None where nothing is to be waited for."""
        return min((entry.ready for entry in self._returned if entry.ready > now), default=None)

    def _take_returned(self, server: Hashable, now: float, alone: bool) -> Job | None:
        chosen, passed = None, []
        while chosen is None and self._returned and self._returned[0].ready <= now:
            entry = heapq.heappop(self._returned)
            if alone or entry.job.avoid is not server:
                chosen = entry.job
            else:
                passed.append(entry)
        for entry in passed:
            heapq.heappush(self._returned, entry)
        return chosen
