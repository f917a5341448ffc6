"""Chat completions: messages out, text back, for an endpoint that is evaluated without its weights or tokenizer.

A server that separates the reasoning from the answer sends it as `reasoning_content` or `reasoning`, and no `content`
where the sample ended before an answer. Here the two become one text again, `<think>reasoning</think>content`, which is
graded as any other: without an answer after the reasoning there is none.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from erpd_hub.endpoints.replies import Served, Setback, read_count, read_json, shown, storable
from erpd_hub.sampling.engine import Completion, Request
from erpd_hub.sampling.server_reply import Wanted, shaping
from erpd_hub.sampling.stopping import cut_at_stop

PAGE = "chat/completions"
_PROBE_TOKENS = 16
"""Some servers refuse fewer."""
_SEED = re.compile(r"(?<![\w/-])(?<!\w\.)(?:body\.)?seed(?![\w/-])(?!\.\w)")
"""The parameter's name in words about it, and no part of another name, as in `bytedance-seed-2.0`."""


@dataclass
class Dialect:
    """What one server calls things; learnt from what it refuses."""

    limit: str = "max_tokens"
    """The newer name, which some servers insist on, is `max_completion_tokens`."""
    seeds: bool = True

    def learn(self, refusal: str, parameter: str | None) -> bool:
        """Whether a refusal (of a status that says the request is wrong) is a matter of names.

        Args:
            parameter: What is refused, where the server says it apart; otherwise the words have to name it.
        """
        if self.limit == "max_tokens" and "max_completion_tokens" in refusal:
            self.limit = "max_completion_tokens"
            return True
        if self.seeds and (parameter.rpartition(".")[2] == "seed" if parameter else _SEED.search(refusal)):
            self.seeds = False
            return True
        return False


@dataclass(frozen=True)
class ChatSettings:
    template: Mapping[str, Any] = field(default_factory=dict)
    """`chat_template_kwargs`, which vLLM takes in a request."""


class Reply(NamedTuple):
    """One reply, checked."""

    content: str
    reasoning: str
    finish_reason: str
    counted: int | None


def chat_body(request: Request, wanted: Wanted, served: Served, dialect: Dialect) -> dict[str, Any]:
    """The JSON of `POST /v1/chat/completions` for one sample."""
    decoding = wanted.decoding
    body: dict[str, Any] = {
        "model": served.name,
        "messages": [{"role": role, "content": content} for role, content in request.messages],
        dialect.limit: wanted.budget(request),
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
    }
    if dialect.seeds:
        body["seed"] = request.seed
    if wanted.stop:
        body["stop"] = list(wanted.stop)
    body |= shaping(decoding, whole=served.vllm)
    if wanted.chat is not None and wanted.chat.template:
        body["chat_template_kwargs"] = dict(wanted.chat.template)
    return body


def chat_probe(request: Request, wanted: Wanted, served: Served, dialect: Dialect) -> dict[str, Any]:
    """A few tokens of another question, to see whether the server takes what samples are asked for with."""
    asked = replace(request, seed=0, messages=(("user", "1+1=?"),))
    body = chat_body(asked, wanted, served, dialect)
    return body | {dialect.limit: min(_PROBE_TOKENS, wanted.budget(request))}


def read_reply(payload: bytes) -> Reply:
    """The only choice of a chat completion.

    Raises:
        Setback: anything in it has a wrong type.
    """
    content = read_json(payload)
    choices = content.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise Setback(f"expected one choice, got {shown(payload)!r}")
    message, finish = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict) or not isinstance(finish, str):
        raise Setback("expected a message and a finish_reason, got something else")
    text = message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    if not isinstance(text, str | None) or not isinstance(reasoning, str):
        raise Setback("expected content and reasoning as text, got something else")
    return Reply(text or "", reasoning, finish, read_count(content, "completion_tokens"))


def chat_finished(reply: Reply, wanted: Wanted) -> Completion:
    """The completion that a reply stands for.

    Raises:
        Setback: the server gave the sample up, or kept it back (`content_filter`).
    """
    if reply.finish_reason not in ("stop", "length"):
        raise Setback(f"expected finish_reason stop or length, got {shown(reply.finish_reason)!r}")
    answer = cut_at_stop(reply.content, wanted.stop)
    text = storable(f"<think>{reply.reasoning}</think>{answer}" if reply.reasoning else answer)
    return Completion(None, None, "stop" if reply.finish_reason == "stop" else "length", text, reply.counted)
