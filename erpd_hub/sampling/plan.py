"""What is to be drawn, in which order and in which shards: a function of problems, tokenizer and config alone.

Prompts of like length stand together so that little is padded, and the K samples of a prompt stand together so that an
engine with a prefix cache reads it once. An extension has the same samples; those that had ended are taken as they are.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from erpd_hub.config import PromptFormat
from erpd_hub.errors import StageError
from erpd_hub.prompts import Problem, opens_thinking, prompt_messages, render
from erpd_hub.samples import sample_seed
from erpd_hub.sampling.draws import Draw, Prompt, draw_name
from erpd_hub.sampling.stored import StoredRows

SHARD_TOKENS = 4_000_000
SHARD_SAMPLES = 1024
_LISTED = 5
"""Problem ids named in a refusal; the count says how many there are."""


def render_prompts(
    problems: Sequence[Problem], format: PromptFormat, tokenizer: PreTrainedTokenizerBase
) -> list[Prompt]:
    """Prompts in the plan's order, the shortest first."""
    prompts = [_render(problem, format, tokenizer) for problem in problems]
    return sorted(prompts, key=lambda prompt: len(prompt.prompt_ids))


def message_prompts(problems: Sequence[Problem], format: PromptFormat) -> list[Prompt]:
    """Prompts for an endpoint, which has its own chat template: the messages, the shortest first.

    Raises:
        StageError: the format is no conversation.
    """
    if not format.chat:
        raise StageError("prompts: expected a chat format, which an endpoint's model can be sent, got plain completion")
    talks = [tuple((m["role"], m["content"]) for m in prompt_messages(p.problem, format)) for p in problems]
    prompts = [Prompt(problem, (), False, talk) for problem, talk in zip(problems, talks, strict=True)]
    return sorted(prompts, key=lambda prompt: sum(len(content) for _, content in prompt.messages))


def refuse_unfit(
    prompts: Sequence[Prompt], max_new_tokens: int, context: int | None, max_sequence_tokens: int | None = None
) -> None:
    """Raises StageError: prompts without tokens, or too long for the context with their response."""
    empty = [prompt.problem.problem_id for prompt in prompts if not prompt.prompt_ids]
    if empty:
        raise StageError(f"prompts: expected tokens in each, got none in {_listed(empty)}; check the format's template")
    limits = [response_limit(prompt, max_new_tokens, max_sequence_tokens) for prompt in prompts]
    full = [prompt.problem.problem_id for prompt, limit in zip(prompts, limits, strict=True) if limit < 1]
    if full:
        raise StageError(f"prompts: expected less than max_sequence_tokens {max_sequence_tokens} tokens, got as many "
                         f"or more in {_listed(full)}; raise it or leave these out")  # fmt: skip
    room = None if context is None else context - max_new_tokens
    long = [
        prompt.problem.problem_id
        for prompt, limit in zip(prompts, limits, strict=True)
        if context is not None and len(prompt.prompt_ids) > context - limit
    ]
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
    """The samples of an artifact that is extended."""

    def __init__(self, folder: Path, max_new_tokens: int, max_sequence_tokens: int | None = None) -> None:
        self._limits = (max_new_tokens, max_sequence_tokens)
        self._rows = StoredRows(folder)

    def is_open(self, draw: Draw) -> bool:
        """Whether the sample ended by length, so that it goes on; the others stay as they are."""
        return self._rows.finish_reason(draw.seed) == "length"

    def num_tokens(self, draw: Draw) -> int:
        """Response tokens of the sample; 0 where it has no token ids."""
        return self._rows.num_tokens(draw.seed)

    def row(self, draw: Draw) -> dict[str, Any]:
        """The sample's row.

        Raises:
            StageError: it is not there, was drawn from another prompt, or has no token ids to go on from.
        """
        if draw.seed not in self._rows:
            raise StageError(f"extended: expected sample {draw_name(draw)}, got none; it was drawn from other prompts")
        row = self._rows.read(draw.seed)
        if row["prompt_ids"] is not None and tuple(row["prompt_ids"]) != draw.prompt.prompt_ids:
            raise StageError(
                f"extended: expected the prompt of {draw_name(draw)} unchanged; the tokenizer is another one"
            )
        limit = response_limit(draw.prompt, *self._limits)
        if row["finish_reason"] == "length" and len(row["response_ids"] or ()) != limit:
            raise StageError(
                f"extended: expected {limit} token ids in sample {draw_name(draw)}, got "
                f"{len(row['response_ids'] or ())}; sample it with an engine that returns them"
            )
        return row


def response_limit(prompt: Prompt, max_new_tokens: int, max_sequence_tokens: int | None) -> int:
    """Tokens that a response to a prompt may have."""
    if max_sequence_tokens is None:
        return max_new_tokens
    return min(max_new_tokens, max_sequence_tokens - len(prompt.prompt_ids))


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
