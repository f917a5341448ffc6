"""What every engine takes and gives: token ids in, token ids out, one seed a sample."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from erpd_hub.config import Decoding
from erpd_hub.samples import FinishReason


@dataclass(frozen=True)
class Request:
    """One sample to draw; its result depends on nothing else."""

    prompt_ids: tuple[int, ...]
    """Empty where `messages` are sent instead."""
    seed: int
    response_ids: tuple[int, ...] = ()
    """What a sample that ended by length has so far; it is continued, and its tokens count."""
    max_new_tokens: int | None = None
    """Of this sample's whole response, where it is less than the decoding's: the prompt has taken the rest."""
    messages: tuple[tuple[str, str], ...] = ()
    """(role, content) of a conversation, for an endpoint whose tokens are not known here."""

    def limit(self, decoding: Decoding) -> int:
        """Tokens that its response may have, with what is continued."""
        most = decoding.max_new_tokens
        return most if self.max_new_tokens is None else min(most, self.max_new_tokens)


def request_seed(request: Request) -> int:
    """Seed for an engine that cannot go on where a continued sample's noise stopped: another one for each length."""
    if not request.response_ids:
        return request.seed
    key = f"{request.seed}\x1f{len(request.response_ids)}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Completion:
    response_ids: list[int] | None
    """The stop token, or the token that completes a stop string, included; what was continued comes first. None from
    a server that returns none (evaluation only)."""
    logprobs: list[float] | None
    """Nats under the distribution that was drawn from (after temperature, top-k and top-p); the model's if greedy.
    None where the engine gives none; of a continued sample those of its new tokens only."""
    finish_reason: FinishReason
    text: str
    """Of all of `response_ids`: special tokens left out, cut before a stop string. Of an error the reason."""
    counted: int | None = None
    """Response tokens as a server says, where it gives no ids."""

    @property
    def num_tokens(self) -> int:
        """Response tokens; 0 where nobody says."""
        return len(self.response_ids) if self.response_ids is not None else self.counted or 0


class Engine(Protocol):
    """Draws samples. Engines whose results depend on nothing but the batch are `reproducible`: they are given the
    plan batch by batch. The others get everything at once and a journal keeps what they have finished."""

    reproducible: bool

    @property
    def unseeded(self) -> bool:
        """Whether some samples of the call under way are drawn without their seeds, which a server does not take."""
        ...

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, stop: Sequence[str]
    ) -> Iterator[tuple[int, Completion]]:
        """Completions as they finish, each with the index of its request; each exactly once.

        `Request.limit` bounds the whole response, with what is continued.
        """
        ...

    def close(self) -> None:
        """Give back the device's memory and every process."""
        ...
