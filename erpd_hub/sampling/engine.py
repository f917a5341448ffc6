"""What every engine takes and gives: token ids in, token ids out, one seed a sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from erpd_hub.config import Decoding
from erpd_hub.samples import FinishReason


@dataclass(frozen=True)
class Request:
    """One sample to draw; its result depends on nothing else."""

    prompt_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class Completion:
    response_ids: list[int]
    """The stop token, or the token that completes a stop string, included."""
    logprobs: list[float]
    """Nats under the distribution that was drawn from (after temperature, top-k and top-p); the model's if greedy."""
    finish_reason: FinishReason
    text: str
    """Special tokens left out, cut before a stop string."""


class Engine(Protocol):
    def generate(self, requests: Sequence[Request], decoding: Decoding, stop: Sequence[str]) -> list[Completion]:
        """One completion for each request, in order."""
        ...
