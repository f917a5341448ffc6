"""What goes to an OpenAI-compatible server for one sample, and what of its answer is believed.

A server's reply is foreign text: types, lengths and ids are checked before any of it becomes a sample. vLLM 0.32
returns the stop token and the token that completes a stop string among its `token_ids` (tests/test_vllm_server.py),
with `stop_reason` null for the model's own end-of-sequence token, the token's id for another of `stop_token_ids`, and
the string for a stop string; a server that shuts down finishes its requests with `abort`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from erpd_hub.config import Decoding
from erpd_hub.endpoints.replies import Served, Setback, is_whole, read_count, read_json, shown, storable
from erpd_hub.errors import StageError
from erpd_hub.samples import FinishReason
from erpd_hub.sampling.engine import Completion, Request, request_seed
from erpd_hub.sampling.stopping import cut_at_stop

if TYPE_CHECKING:
    from erpd_hub.sampling.server_chat import ChatSettings
    from erpd_hub.sampling.stopping import StopRule

NEUTRAL = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Said outright, because `vllm serve` takes what a request leaves out from the model's generation config."""


def shaping(decoding: Decoding, *, whole: bool) -> dict[str, Any]:
    """What else decoding says, for a server that knows vLLM's extensions (`whole`) or may refuse them."""
    said = {"top_k": decoding.top_k, "presence_penalty": decoding.presence_penalty}
    return NEUTRAL | said if whole else {name: value for name, value in said.items() if value}


class Choice(NamedTuple):
    """One reply, checked against its request."""

    token_ids: list[int] | None
    logprobs: list[float] | None
    prompt_ids: list[int] | None
    prompt_tokens: int | None
    counted: int | None
    """Tokens of the response as the server says."""
    finish_reason: str
    stop_reason: int | str | None
    text: str


@dataclass(frozen=True)
class Wanted:
    """What every request of one call has in common."""

    decoding: Decoding
    stop: tuple[str, ...]
    stop_ids: frozenset[int]
    rule: "StopRule | None"
    """None where no tokens are looked at."""
    vocabulary: int | None
    needs_ids: bool
    chat: "ChatSettings | None" = None
    """Given, messages are sent and text comes back."""
    tolerant: bool = False
    """A sample whose request a server will not take fails by itself, and does not end the call."""

    def budget(self, request: Request) -> int:
        """Tokens a request may still draw."""
        remaining = request.limit(self.decoding) - len(request.response_ids)
        assert remaining > 0, "a continued sample has no tokens left to draw"
        return remaining

    def keeps_logprobs(self, processed: bool) -> bool:
        """Whether a server's log-probs are those of what was drawn from: `Completion.logprobs` are nothing else."""
        decoding = self.decoding
        unchanged = decoding.temperature == 1 and decoding.top_p == 1 and decoding.top_k == 0
        return processed or ((unchanged or decoding.temperature == 0) and not decoding.presence_penalty)


def sample_body(request: Request, wanted: Wanted, served: Served) -> dict[str, Any]:
    """The JSON of `POST /v1/completions` for one sample: token ids in, token ids out where the server has them.

    Extensions are sent to vLLM, and to whichever server is asked for rollouts; others refuse fields they do not know.
    """
    decoding = wanted.decoding
    body: dict[str, Any] = {
        "model": served.name,
        "prompt": [*request.prompt_ids, *request.response_ids],
        "n": 1,
        "max_tokens": wanted.budget(request),
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": request_seed(request),
    }
    if wanted.stop:
        body["stop"] = list(wanted.stop)
    whole = served.vllm or wanted.needs_ids
    body |= shaping(decoding, whole=whole)
    if whole:
        # logprobs 0: of the drawn token alone. Text is decoded here from the ids, so the server's is not looked at.
        body |= {"stop_token_ids": sorted(wanted.stop_ids), "logprobs": 0, "return_token_ids": True}
    return body


def probe_body(request: Request, wanted: Wanted, served: Served) -> dict[str, Any]:
    """One token, with no choice left where the server knows `allowed_token_ids`: the prompt's first once more."""
    body = sample_body(request, wanted, served) | {"max_tokens": 1, "temperature": 0.5}
    body.pop("stop", None)
    return body | {"allowed_token_ids": body["prompt"][:1]} if "logprobs" in body else body


def shows_processed(choice: Choice, body: dict[str, Any]) -> bool:
    """Whether the probe's token, certain after the restriction and next to impossible before it, has log-prob 0."""
    forced = choice.token_ids is not None and choice.token_ids == body.get("allowed_token_ids")
    return forced and choice.logprobs is not None and choice.logprobs[0] > -1e-6


def read_choice(payload: bytes, *, max_tokens: int, vocabulary: int | None) -> Choice:
    """The only choice of a completions reply.

    Raises:
        Setback: anything in it has a wrong type, length or range.
    """
    content = read_json(payload)
    choices = content.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise Setback(f"expected one choice, got {shown(payload)!r}")
    choice = choices[0]
    text, finish, stop = choice.get("text"), choice.get("finish_reason"), choice.get("stop_reason")
    if not isinstance(text, str) or not isinstance(finish, str):
        raise Setback("expected text and finish_reason as strings, got something else")
    token_ids = _ids(choice, "token_ids", vocabulary)
    if token_ids is not None and not 0 < len(token_ids) <= max_tokens:
        raise Setback(f"expected 1 to {max_tokens} tokens, got {len(token_ids)}")
    return Choice(
        token_ids,
        _logprobs(choice.get("logprobs"), token_ids),
        _ids(choice, "prompt_token_ids", None),
        read_count(content, "prompt_tokens"),
        read_count(content, "completion_tokens"),
        finish,
        stop if isinstance(stop, str) or is_whole(stop, vocabulary) else None,
        text,
    )


def finished(choice: Choice, request: Request, wanted: Wanted, *, keep_logprobs: bool) -> Completion:
    """The completion that a checked reply stands for.

    Raises:
        Setback: the server gave the sample up (`abort`, `error`, ...).
        StageError: it ended the sample before its budget, or keeps back the token that ended it.
    """
    if choice.finish_reason not in ("stop", "length"):
        raise Setback(f"expected finish_reason stop or length, got {shown(choice.finish_reason)!r}")
    if choice.token_ids is None:
        return _without_ids(choice, request, wanted)
    ids, reason = _ended(choice.token_ids, choice, request, wanted)
    before = len(request.response_ids)
    assert wanted.rule is not None, "token ids are looked at with a tokenizer"
    response_ids, reason, text = wanted.rule.finish([*request.response_ids, *ids], reason)
    count = len(response_ids) - before
    logprobs = choice.logprobs[:count] if keep_logprobs and choice.logprobs is not None else None
    return Completion(response_ids, logprobs if logprobs and len(logprobs) == count else None, reason, text)


def _without_ids(choice: Choice, request: Request, wanted: Wanted) -> Completion:
    assert not request.response_ids, "what a server gave no token ids for cannot be continued"
    if wanted.needs_ids:
        raise Setback("expected token ids, got none")
    text = cut_at_stop(storable(choice.text), wanted.stop)
    return Completion(None, None, "stop" if choice.finish_reason == "stop" else "length", text, choice.counted)


def _ended(ids: list[int], choice: Choice, request: Request, wanted: Wanted) -> tuple[list[int], FinishReason]:
    """The new tokens up to the one that ends them, whether or not the server returned that."""
    place = next((place for place, token in enumerate(ids) if token in wanted.stop_ids), None)
    if place is not None:
        return ids[: place + 1], "stop"
    budget = wanted.budget(request)
    if choice.finish_reason == "length":
        if len(ids) < budget:
            raise StageError(
                f"server: expected up to {budget} tokens, got a sample cut off after {len(ids)}; raise the server's "
                "--max-model-len, and start it with --generation-config vllm if the model's own limits its length"
            )
        return ids, "length"
    assert wanted.rule is not None, "token ids are looked at with a tokenizer"
    if choice.stop_reason in wanted.stop or wanted.rule.finish([*request.response_ids, *ids], "length")[1] == "stop":
        return ids, "stop"
    if isinstance(choice.stop_reason, int):
        last = choice.stop_reason
    elif len(wanted.stop_ids) == 1:
        last = next(iter(wanted.stop_ids))
    else:
        raise StageError(
            f"server: expected the token that ends a response, one of {sorted(wanted.stop_ids)}, among its token ids, "
            "got none of them; this server cannot serve rollouts"
        )
    if len(ids) >= budget:
        raise Setback("expected a stop token within max_tokens, got none")
    return [*ids, last], "stop"


def _ids(choice: dict[str, Any], name: str, vocabulary: int | None) -> list[int] | None:
    ids = choice.get(name)
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(is_whole(token, vocabulary) for token in ids):
        raise Setback(f"expected {name} to be token ids{f' below {vocabulary}' if vocabulary else ''}, got others")
    return ids


def _logprobs(listed: Any, token_ids: Sequence[int] | None) -> list[float] | None:
    values = listed.get("token_logprobs") if isinstance(listed, dict) else None
    if token_ids is None or values is None:
        return None
    numbers = isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )
    if not numbers or len(values) != len(token_ids):
        raise Setback(f"expected {len(token_ids)} finite log-probs, got something else")
    return [float(value) for value in values]
