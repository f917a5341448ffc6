"""What is to be drawn, in which order and in which shards: a function of problems, tokenizer and config alone.

Prompts of like length stand together so that little is padded, and the K samples of a prompt stand together so that an
engine with a prefix cache reads it once. An extension has the same samples; those that had ended are taken as they are.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from erpd_hub.config import PromptFormat
from erpd_hub.errors import StageError
from erpd_hub.prompts import Problem, opens_thinking, render
from erpd_hub.samples import sample_seed, shard_paths
from erpd_hub.sampling.engine import Request

SHARD_TOKENS = 4_000_000
SHARD_SAMPLES = 1024
_LISTED = 5
"""Problem ids named in a refusal; the count says how many there are."""


class Prompt(NamedTuple):
    problem: Problem
    prompt_ids: tuple[int, ...]
    thinking: bool


class Draw(NamedTuple):
    """One sample of the plan."""

    prompt: Prompt
    k: int
    seed: int


def render_prompts(
    problems: Sequence[Problem], format: PromptFormat, tokenizer: PreTrainedTokenizerBase
) -> list[Prompt]:
    """Prompts in the plan's order, the shortest first."""
    prompts = [_render(problem, format, tokenizer) for problem in problems]
    return sorted(prompts, key=lambda prompt: len(prompt.prompt_ids))


def refuse_unfit(prompts: Sequence[Prompt], max_new_tokens: int, context: int | None) -> None:
    """Raises StageError: prompts without tokens, or too long for the context with their response."""
    empty = [prompt.problem.problem_id for prompt in prompts if not prompt.prompt_ids]
    if empty:
        raise StageError(f"prompts: expected tokens in each, got none in {_listed(empty)}; check the format's template")
    room = None if context is None else context - max_new_tokens
    long = [prompt.problem.problem_id for prompt in prompts if room is not None and len(prompt.prompt_ids) > room]
    if long:
        raise StageError(
            f"prompts: expected at most {room} tokens (context {context} - max_new_tokens {max_new_tokens}), got more "
            f"in {_listed(long)}; lower max_new_tokens or leave these out"
        )


def all_draws(prompts: Sequence[Prompt], benchmark: str, k: int, seed: int, *, k_from: int = 0) -> list[Draw]:
    """Samples k_from ... k - 1 of each prompt."""
    return [
        Draw(prompt, index, sample_seed(seed, benchmark, prompt.problem.problem_id, index))
        for prompt in prompts
        for index in range(k_from, k)
    ]


def cut_batches(lengths: Sequence[int], batch_tokens: int) -> list[range]:
    """Runs of consecutive samples of which (number of samples x longest) stays within the budget, one at least.

    Args:
        lengths: Tokens of each sample with room for its longest response.
    """
    batches, start, longest = [], 0, 0
    for index, length in enumerate(lengths):
        longest = max(longest, length)
        if index > start and (index + 1 - start) * longest > batch_tokens:
            batches.append(range(start, index))
            start, longest = index, length
    return [*batches, range(start, len(lengths))] if lengths else []


class Earlier:
    """The samples of an artifact that is extended, read shard by shard."""

    def __init__(self, folder: Path, max_new_tokens: int) -> None:
        self._max_new_tokens = max_new_tokens
        self._places: dict[int, tuple[Path, int]] = {}
        self._tokens: dict[int, int] = {}
        self._open: set[int] = set()
        self._shard: tuple[Path | None, list[dict[str, Any]]] = (None, [])
        for path in shard_paths(folder):
            table = pq.read_table(path, columns=["seed", "finish_reason", "response_ids"])
            seeds, reasons = table["seed"].to_pylist(), table["finish_reason"].to_pylist()
            lengths = pc.list_value_length(table["response_ids"]).to_pylist()
            self._places |= {seed: (path, row) for row, seed in enumerate(seeds)}
            self._tokens |= {seed: length or 0 for seed, length in zip(seeds, lengths, strict=True)}
            self._open |= {seed for seed, reason in zip(seeds, reasons, strict=True) if reason == "length"}

    def is_open(self, draw: Draw) -> bool:
        """Whether the sample ended by length, so that it goes on; the others stay as they are."""
        return draw.seed in self._open

    def num_tokens(self, draw: Draw) -> int:
        """Response tokens of the sample; 0 where it has no token ids."""
        return self._tokens.get(draw.seed, 0)

    def row(self, draw: Draw) -> dict[str, Any]:
        """The sample's row.

        Raises:
            StageError: it is not there, was drawn from another prompt, or has no token ids to go on from.
        """
        if draw.seed not in self._places:
            raise StageError(f"extended: expected sample {_name(draw)}, got none; it was drawn from other prompts")
        path, index = self._places[draw.seed]
        if self._shard[0] != path:
            self._shard = (path, pq.read_table(path).to_pylist())
        row = self._shard[1][index]
        if row["prompt_ids"] is not None and tuple(row["prompt_ids"]) != draw.prompt.prompt_ids:
            raise StageError(f"extended: expected the prompt of {_name(draw)} unchanged; the tokenizer is another one")
        if row["finish_reason"] == "length" and len(row["response_ids"] or ()) != self._max_new_tokens:
            raise StageError(
                f"extended: expected {self._max_new_tokens} token ids in sample {_name(draw)}, got "
                f"{len(row['response_ids'] or ())}; sample it with an engine that returns them"
            )
        return row


def request_of(draw: Draw, earlier: Earlier | None) -> Request:
    so_far = tuple(earlier.row(draw)["response_ids"]) if earlier else ()
    return Request(draw.prompt.prompt_ids, draw.seed, so_far)


def chunked(lengths: Sequence[int]) -> Iterator[range]:
    """Shards of finished samples: up to SHARD_TOKENS response tokens or SHARD_SAMPLES samples each."""
    start = tokens = 0
    for index, length in enumerate(lengths):
        if index > start and (tokens + length > SHARD_TOKENS or index - start == SHARD_SAMPLES):
            yield range(start, index)
            start, tokens = index, 0
        tokens += length
    if start < len(lengths):
        yield range(start, len(lengths))


def _render(problem: Problem, format: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> Prompt:
    prompt_ids = tuple(render(problem.problem, format, tokenizer))
    return Prompt(problem, prompt_ids, opens_thinking(tokenizer.decode(prompt_ids)))


def _listed(problem_ids: Sequence[str]) -> str:
    shown = ", ".join(problem_ids[:_LISTED])
    return f"{len(problem_ids)} prompts ({shown}{', ...' if len(problem_ids) > _LISTED else ''})"


def _name(draw: Draw) -> str:
    return f"{draw.prompt.problem.problem_id}#{draw.k}"
