"""K graded responses to each problem, shard by shard: what rollouts, probes and evaluation details are made of.

The plan (samples by prompt length, cut into batches) is a function of the problems and the config alone, and a batch is
a shard. A killed run keeps its finished shards and draws the unfinished one again whole, so it ends in the same bytes.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from erpd_hub.config import Decoding, PromptFormat, TransformersEngine
from erpd_hub.errors import StageError
from erpd_hub.evaluation.grading import Response, grade_many
from erpd_hub.models import context_length, load_model, load_tokenizer
from erpd_hub.prompts import Problem, opens_thinking, render
from erpd_hub.samples import SAMPLE_SCHEMA, Sample, sample_seed, shard_path, write_rows
from erpd_hub.sampling.engine import Completion, Engine, Request
from erpd_hub.sampling.transformers_engine import LocalEngine

_LISTED = 5
"""Problem ids named in a refusal; the count says how many there are."""

logger = logging.getLogger(__name__)


class _Prompt(NamedTuple):
    problem: Problem
    prompt_ids: tuple[int, ...]
    thinking: bool


class _Draw(NamedTuple):
    prompt: _Prompt
    k: int
    seed: int


@dataclass
class _Progress:
    """Throughput and accuracy so far, for the log."""

    total: int
    started: float
    samples: int = 0
    tokens: int = 0
    correct: int = 0
    graded: int = 0

    def add(self, rows: Sequence[Sample]) -> None:
        labels = [row["label"] for row in rows if row["label"] is not None]
        self.samples += len(rows)
        self.tokens += sum(len(row["response_ids"] or ()) for row in rows)
        self.correct += sum(labels)
        self.graded += len(labels)
        seconds = max(time.monotonic() - self.started, 1e-9)
        accuracy = f"{self.correct / self.graded:.3f}" if self.graded else "-"
        logger.info(
            "%d/%d samples, accuracy %s, %.0f tokens/s", self.samples, self.total, accuracy, self.tokens / seconds
        )


def sample_problems(
    problems: Sequence[Problem],
    *,
    benchmark: str,
    k: int,
    checkpoint: Path,
    decoding: Decoding,
    format: PromptFormat,
    engine: TransformersEngine,
    seed: int,
    out: Path,
) -> None:
    """Draw and grade k responses to each problem into `out/data/train-*.parquet` (SAMPLE_SCHEMA).

    Raises:
        StageError: prompts that are empty, or too long for the model's context with their response.
    """
    tokenizer = load_tokenizer(checkpoint)
    prompts = [_render(problem, format, tokenizer) for problem in problems]
    model = load_model(checkpoint)
    _refuse(prompts, decoding.max_new_tokens, context_length(model))
    batches = _plan(prompts, benchmark, k, seed, engine.batch_size)
    sampler = LocalEngine(model, tokenizer)
    progress = _Progress(total=len(prompts) * k, started=time.monotonic())
    for index, batch in enumerate(batches):
        path = shard_path(out, index)
        if path.exists():
            progress.total -= pq.read_metadata(path).num_rows
            continue
        rows = _draw(batch, benchmark, decoding, format, sampler)
        write_rows(path, rows, SAMPLE_SCHEMA)
        progress.add(rows)


def _render(problem: Problem, format: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> _Prompt:
    prompt_ids = tuple(render(problem.problem, format, tokenizer))
    return _Prompt(problem, prompt_ids, opens_thinking(tokenizer.decode(prompt_ids)))


def _refuse(prompts: Sequence[_Prompt], max_new_tokens: int, context: int | None) -> None:
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


def _listed(problem_ids: Sequence[str]) -> str:
    shown = ", ".join(problem_ids[:_LISTED])
    return f"{len(problem_ids)} prompts ({shown}{', ...' if len(problem_ids) > _LISTED else ''})"


def _plan(prompts: Sequence[_Prompt], benchmark: str, k: int, seed: int, batch_size: int) -> list[list[_Draw]]:
    """All draws, prompts of like length together so that little is padded, cut into batches."""
    draws = [
        _Draw(prompt, index, sample_seed(seed, benchmark, prompt.problem.problem_id, index))
        for prompt in sorted(prompts, key=lambda prompt: len(prompt.prompt_ids))
        for index in range(k)
    ]
    return [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]


def _draw(
    batch: Sequence[_Draw], benchmark: str, decoding: Decoding, format: PromptFormat, engine: Engine
) -> list[Sample]:
    requests = [Request(draw.prompt.prompt_ids, draw.seed) for draw in batch]
    completions = engine.generate(requests, decoding, format.stop)
    return _graded(batch, completions, benchmark, format)


def _graded(
    batch: Sequence[_Draw], completions: Sequence[Completion], benchmark: str, format: PromptFormat
) -> list[Sample]:
    grades = grade_many(
        [
            Response(draw.prompt.problem.gold, completion.text, completion.finish_reason, draw.prompt.thinking)
            for draw, completion in zip(batch, completions, strict=True)
        ],
        extract=format.extract,
    )
    return [
        Sample(
            benchmark=benchmark,
            problem_id=draw.prompt.problem.problem_id,
            k=draw.k,
            seed=draw.seed,
            prompt_ids=list(draw.prompt.prompt_ids),
            response_ids=completion.response_ids,
            sampler_logprobs=completion.logprobs,
            finish_reason=completion.finish_reason,
            text=completion.text,
            gold=draw.prompt.problem.gold,
            extracted=grade.extracted,
            verdict=grade.verdict,
            label=grade.label,
            judge=None,
        )
        for draw, completion, grade in zip(batch, completions, grades, strict=True)
    ]
