"""One server of a fleet: whether it can serve a call, and one sample drawn there."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from erpd_hub.config import ServerEngine
from erpd_hub.endpoints.client import Refused, ServerClient
from erpd_hub.endpoints.replies import Served
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.sampling.backlog import Job
from erpd_hub.sampling.engine import Completion, Request
from erpd_hub.sampling.server_chat import PAGE, Dialect, chat_body, chat_finished, chat_probe, read_reply
from erpd_hub.sampling.server_reply import (
    Choice,
    Wanted,
    finished,
    probe_body,
    read_choice,
    sample_body,
    shows_processed,
)

logger = logging.getLogger(__name__)

_BYTES_PER_TOKEN, _BYTES_PER_REPLY = 1024, 2**20
"""Bound of a reply; vLLM's have about 70 bytes a token."""


@dataclass(eq=False)
class Server:
    """Its place in the fleet; the fleet changes it, in its one thread."""

    client: ServerClient
    config: ServerEngine
    name: str
    """`server 2 of 4`: the log never has its address."""
    cap: int
    """Requests it gets at once; less than the config's after it said it was busy."""
    served: Served | None = None
    """None while it is away."""
    processed: bool = False
    """Whether its log-probs are those of what was drawn from, and not the model's."""
    reason: str = "it was never reached"
    """Why it is away, or takes nothing."""
    paused_until: float = 0.0
    refusals: int = 0
    """Times it said it was busy, one after the other."""
    inflight: dict[asyncio.Task, Job] = field(default_factory=dict)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    inspection: asyncio.Task | None = None
    dialect: Dialect = field(default_factory=Dialect)
    """Of its chat completions."""

    def free(self, now: float) -> bool:
        return self.served is not None and self.paused_until <= now and len(self.inflight) < self.cap

    async def draw(self, request: Request, wanted: Wanted) -> Completion:
        """One sample.

        Raises:
            Setback: this attempt came to nothing.
            StageError: no other attempt here would do better.
        """
        assert self.served is not None, "sampled from a server that is away"
        if wanted.chat is not None:
            return await self._converse(request, wanted, self.served)
        budget = wanted.budget(request)
        body = sample_body(request, wanted, self.served)
        choice = await self._ask(body, wanted, budget=budget, seconds=self.config.timeout)
        try:
            return finished(choice, request, wanted, keep_logprobs=wanted.keeps_logprobs(self.processed))
        except StageError as error:
            raise StageError(f"{self.client.url}: {error}") from None

    async def admit(self, probe: Request, wanted: Wanted, *, longest: int) -> Served:
        """Whether it can serve a call: its model list, and one token after the probe's prompt.

        Args:
            longest: Tokens of the longest sample that may come, prompt included.

        Raises:
            Setback: it does not answer (yet).
            ConfigError: it answers, and cannot serve the call.
        """
        served = await self._choose_model()
        if served.max_model_len is not None and served.max_model_len < longest:
            raise ConfigError(
                f"{self.client.url}: expected a context of {longest} tokens (longest prompt and max_new_tokens), got "
                f"{served.max_model_len}; start it with --max-model-len {longest}"
            )
        seconds = min(self.config.timeout, self.config.patience)
        if wanted.chat is not None:
            await self._greet(probe, wanted, served, seconds)
            return served
        body = probe_body(probe, wanted, served)
        try:
            choice = await self._ask(body, wanted, budget=1, seconds=seconds)
        except Refused as error:
            raise ConfigError(str(error)) from None
        self._check_probe(choice, body["prompt"], wanted)
        self.processed = shows_processed(choice, body)
        return served

    async def _converse(self, request: Request, wanted: Wanted, served: Served) -> Completion:
        body = chat_body(request, wanted, served, self.dialect)
        limit = _BYTES_PER_REPLY + _BYTES_PER_TOKEN * wanted.budget(request)
        payload = await self.client.post(PAGE, body, seconds=self.config.timeout, limit=limit)
        return chat_finished(read_reply(payload), wanted)

    async def _greet(self, probe: Request, wanted: Wanted, served: Served, seconds: float) -> None:
        """A few tokens, asked for in words that the server understands."""
        while True:
            body = chat_probe(probe, wanted, served, self.dialect)
            try:
                read_reply(await self.client.post(PAGE, body, seconds=seconds, limit=_BYTES_PER_REPLY))
            except Refused as error:
                if error.status in (400, 422) and self.dialect.learn(str(error), error.parameter):
                    continue
                raise ConfigError(str(error)) from None
            if not self.dialect.seeds:
                logger.warning("%s takes no seed: whether its samples differ is up to it", self.name)
            return

    async def _ask(self, body: dict[str, Any], wanted: Wanted, *, budget: int, seconds: float) -> Choice:
        limit = _BYTES_PER_REPLY + _BYTES_PER_TOKEN * (len(body["prompt"]) + budget)
        payload = await self.client.complete(body, seconds=seconds, limit=limit)
        return read_choice(payload, max_tokens=budget, vocabulary=wanted.vocabulary)

    async def _choose_model(self) -> Served:
        wanted = self.config.model
        try:
            listed = await self.client.models()
        except Refused as error:
            if wanted is None or error.status not in (404, 405):
                raise ConfigError(str(error)) from None
            return Served(wanted, vllm=False, max_model_len=None)
        named = [served for served in listed if wanted in (None, served.name)]
        if len(named) != 1:
            names = ", ".join(repr(served.name) for served in listed[:10]) or "none"
            asked = "one model" if wanted is None else f"the model {wanted!r}"
            raise ConfigError(f"{self.client.url}: expected {asked}, got {names}; name one of its own in engine.model")
        return named[0]

    def _check_probe(self, choice: Choice, prompt: list[int], wanted: Wanted) -> None:
        url = self.client.url
        if choice.token_ids is None and wanted.needs_ids:
            raise ConfigError(
                f"{url}: expected token ids with each response, got text alone; rollouts need a server that returns "
                "them, such as vllm serve (this one may serve an evaluation)"
            )
        if choice.prompt_ids is not None and choice.prompt_ids != prompt:
            raise ConfigError(f"{url}: expected the prompt's token ids back, got others; serve the policy's own model")
        if choice.prompt_tokens is not None and choice.prompt_tokens != len(prompt):
            raise ConfigError(
                f"{url}: expected it to read {len(prompt)} prompt tokens, got {choice.prompt_tokens}; it must take "
                "token ids as they are and add none"
            )
