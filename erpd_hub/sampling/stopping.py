"""Where a response ends, in one place, so that every engine says the same of the same tokens.

A response ends with a stop token, or with the token that completes a stop string; both belong to its token ids. Its
text leaves special tokens out and ends before the stop string.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from erpd_hub.samples import FinishReason

_TAIL = 8
"""Tokens decoded beyond the length of a stop string, which may begin inside a token."""


def cut_at_stop(text: str, stop: Iterable[str]) -> str:
    """The text before the first stop string in it."""
    places = [place for place in map(text.find, stop) if place >= 0]
    return text[: min(places)] if places else text


class StopRule:
    """The stop strings of one call, in terms of a tokenizer's tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._window = max((len(text.encode()) for text in stop), default=0) + _TAIL

    def completed_by_last(self, response_ids: Sequence[int]) -> bool:
        """Whether the last token completes a stop string, given that none before it did."""
        return bool(self._stop) and self._contains(response_ids[-self._window :])

    def text(self, response_ids: Sequence[int]) -> str:
        return cut_at_stop(self._decode(response_ids), self._stop)

    def finish(self, response_ids: list[int], finish_reason: FinishReason) -> tuple[list[int], FinishReason, str]:
        """The response as far as it goes, why it ended, and its text.

        An engine that continues a response sees only the new part: a stop string that began before it is found here.
        """
        if not self._stop or not self._contains(response_ids):
            return response_ids, finish_reason, self._decode(response_ids)
        lengths = range(1, len(response_ids) + 1)
        end = lengths[bisect_left(lengths, True, key=lambda length: self._contains(response_ids[:length]))]
        return response_ids[:end], "stop", self.text(response_ids[:end])

    def _contains(self, token_ids: Sequence[int]) -> bool:
        text = self._decode(token_ids)
        return any(stop in text for stop in self._stop)

    def _decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))


def stop_token_ids(checkpoint: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """What `models.stop_ids` gives for the model in a folder, without loading its weights."""
    if (checkpoint / "generation_config.json").is_file():
        generation = GenerationConfig.from_pretrained(checkpoint)
    else:
        generation = GenerationConfig.from_model_config(model_config(checkpoint))
    configured = generation.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)


def model_config(checkpoint: Path) -> PreTrainedConfig:
    """The architecture of a checkpoint folder; of an adapter that of its base beside it."""
    folder = checkpoint if (checkpoint / "config.json").is_file() else checkpoint / "base"
    return AutoConfig.from_pretrained(folder)


def context_tokens(checkpoint: Path) -> int | None:
    """Positions the model in a folder was made for; None where its config does not say."""
    return getattr(model_config(checkpoint).get_text_config(), "max_position_embeddings", None)
