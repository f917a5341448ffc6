"""The `server` engine: a fleet of OpenAI-compatible servers, every sample a request of its own.

Token ids go out and come back, so nothing is tokenised twice. Thousands of requests are in flight from one thread with
an event loop; samples are yielded as they finish, in no order that can be relied on.
"""

import asyncio
import contextlib
import queue
import resource
import threading
from collections.abc import Collection, Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from erpd_hub.config import Decoding, ServerEngine
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.sampling.engine import Completion, Request
from erpd_hub.sampling.fleet import Fleet
from erpd_hub.sampling.server_chat import ChatSettings
from erpd_hub.sampling.server_reply import Wanted
from erpd_hub.sampling.stopping import StopRule

_OTHER_FILES = 256
"""Open files beside the connections: shards, libraries, the journal."""


class FleetEngine:
    """Draws samples from the servers of a config."""

    reproducible = False

    def __init__(
        self,
        config: ServerEngine,
        tokenizer: PreTrainedTokenizerBase | None,
        stop_ids: Collection[int],
        *,
        needs_ids: bool = True,
        vocabulary: int | None = None,
        chat: ChatSettings | None = None,
        tolerant: bool = False,
    ) -> None:
        """
        Args:
            tokenizer: None where messages are sent (`chat`).
            stop_ids: Tokens that end a response of the policy.
            needs_ids: Refuse servers that return no token ids; without, their samples have none (evaluation).
            vocabulary: Tokens the policy has; ids beyond are refused.
            tolerant: A sample that a server refuses fails by itself, and does not end the call.

        Raises:
            ConfigError: fewer files may be open than connections are asked for.
        """
        _allow_connections(config.concurrency * len(config.urls))
        self._config = config
        self._tokenizer = tokenizer
        self._stop_ids = frozenset(stop_ids)
        self._needs_ids = needs_ids
        self._vocabulary = vocabulary
        self._chat = chat
        self._tolerant = tolerant
        self._calls: set[_Call] = set()

    @property
    def unseeded(self) -> bool:
        return any(call.unseeded for call in self._calls)

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, stop: Sequence[str]
    ) -> Iterator[tuple[int, Completion]]:
        """Completions as they finish; one that failed for good has finish_reason `error`.

        Raises:
            ConfigError: a server cannot serve this call; nothing was drawn.
            StageError: no server is left, or one refused a request. What was finished before has been yielded.
        """
        if not requests:
            return
        rule = None if self._tokenizer is None else StopRule(self._tokenizer, stop)
        wanted = Wanted(
            decoding, tuple(stop), self._stop_ids, rule, self._vocabulary, self._needs_ids, self._chat, self._tolerant
        )
        call = _Call(self._config, requests, wanted)
        self._calls.add(call)
        try:
            yield from call.results()
        finally:
            call.cancel()
            self._calls.discard(call)

    def close(self) -> None:
        """Cancel what is in flight."""
        for call in list(self._calls):
            call.cancel()


class _Call:
    """One `generate`: an event loop in a thread, and the queue between it and the caller."""

    def __init__(self, config: ServerEngine, requests: Sequence[Request], wanted: Wanted) -> None:
        self._queue: queue.SimpleQueue[tuple[int, Completion] | BaseException | None] = queue.SimpleQueue()
        self._fleet = Fleet(config, requests, wanted, lambda index, completion: self._queue.put((index, completion)))
        self._loop = asyncio.new_event_loop()
        self._main = self._loop.create_task(self._fleet.run())
        self._thread = threading.Thread(target=self._work, name="erpd-servers", daemon=True)
        self._thread.start()

    @property
    def unseeded(self) -> bool:
        return self._fleet.unseeded

    def results(self) -> Iterator[tuple[int, Completion]]:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def cancel(self) -> None:
        """Stop and wait until every connection is closed; nothing to do after the end."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()

    def _work(self) -> None:
        end: BaseException | None = None
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            end = StageError("servers: expected to go on sampling, got closed; finished samples are kept")
        except BaseException as error:  # raised again where the samples are waited for
            end = error
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
            self._queue.put(end)


def _allow_connections(connections: int) -> None:
    """Raise the soft limit of open files to what the connections need: it is often 1,024."""
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ConfigError(
            f"engine.concurrency: expected at most {hard - _OTHER_FILES} connections in all (the limit of open files "
            f"is {hard}), got {connections}; lower it or raise the limit (ulimit -n)"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
