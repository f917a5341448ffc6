"""K graded responses to each problem, shard by shard: what rollouts, probes and evaluation details are made of.

The plan is a function of the problems and the config alone. A reproducible engine draws it batch by batch, and a batch
is a shard: a killed run keeps its finished shards and draws the unfinished one again whole, so it ends in the same
bytes. Any other engine draws everything at once into a journal (`sampling.collect`).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from erpd_hub.config import Decoding, EngineConfig, PromptFormat, TransformersEngine
from erpd_hub.models import load_tokenizer
from erpd_hub.prompts import Problem
from erpd_hub.rewards import RewardFunction
from erpd_hub.samples import SAMPLE_SCHEMA, Sample, shard_path, write_rows
from erpd_hub.sampling.collect import collect
from erpd_hub.sampling.engine import Engine
from erpd_hub.sampling.engines import describe_engine, open_engine
from erpd_hub.sampling.job import Job
from erpd_hub.sampling.plan import (
    Draw,
    Earlier,
    all_draws,
    chunked,
    cut_batches,
    refuse_unfit,
    render_prompts,
    request_of,
)
from erpd_hub.sampling.rows import Progress
from erpd_hub.sampling.stopping import context_tokens
from erpd_hub.stages import StageContext


def sample_problems(
    problems: Sequence[Problem],
    *,
    benchmark: str,
    k: int,
    checkpoint: Path,
    decoding: Decoding,
    format: PromptFormat,
    engine: EngineConfig,
    out: Path,
    context: StageContext,
    extended: Path | None = None,
    extend_to: int | None = None,
    needs_ids: bool = True,
    reward: RewardFunction | None = None,
    k_from: int = 0,
) -> dict[str, Any]:
    """Draw and grade k responses to each problem into `out/data/train-*.parquet` (SAMPLE_SCHEMA).

    Args:
        extended: Folder of the samples drawn under `decoding`, of which those that ended by length go on to
            `extend_to` new tokens.
        needs_ids: Refuse an engine that returns no token ids.
        reward: Says what a response is worth; None compares it with the gold answer.
        k_from: Draw samples k_from ... k - 1 only: those before are elsewhere.

    Returns:
        How they were drawn: decoding, engine, k and, of an extension, `extend_to` and how many were `continued`.

    Raises:
        StageError: prompts that are empty, or too long for the model's context with their response; samples that the
            engine could not draw, or a signal to stop: what is finished is kept.
    """
    tokenizer = load_tokenizer(checkpoint)
    prompts = render_prompts(problems, format, tokenizer)
    limit = decoding.max_new_tokens if extended is None or extend_to is None else extend_to
    refuse_unfit(prompts, limit, context_tokens(checkpoint))
    job = Job(
        draws=all_draws(prompts, benchmark, k, context.seed, k_from=k_from),
        benchmark=benchmark,
        decoding=decoding.model_copy(update={"max_new_tokens": limit}),
        format=format,
        earlier=Earlier(extended, decoding.max_new_tokens) if extended else None,
        out=out,
        context=context,
        reward=reward,
    )
    longest = max(len(prompt.prompt_ids) for prompt in prompts) + limit

    def opened() -> Engine:
        scratch = context.work / f"engine-{context.replica}"
        return open_engine(engine, checkpoint, tokenizer, longest=longest, needs_ids=needs_ids, scratch=scratch)

    if isinstance(engine, TransformersEngine):
        draw_batches(job, opened, engine.batch_tokens)
    else:
        collect(job, opened)
    how = {"decoding": decoding.model_dump(), "engine": describe_engine(engine), "k": k}
    return how if extended is None else how | {"extend_to": extend_to, "continued": len(job.open_draws)}


def draw_batches(job: Job, opened: Callable[[], Engine], batch_tokens: int) -> None:
    """Draw the plan with a reproducible engine, this replica's share of its shards; finished shards are kept."""
    batches = list(_batches(job, batch_tokens))
    mine = [
        (index, batch)
        for index, batch in enumerate(batches)
        if index % job.context.replicas == job.context.replica and not shard_path(job.out, index).exists()
    ]
    progress = Progress(sum(len(draws) for _, draws in mine))
    engine: Engine | None = None
    for index, draws in mine:
        if job.earlier and not job.earlier.is_open(draws[0]):
            write_rows(shard_path(job.out, index), [job.earlier.row(draw) for draw in draws], SAMPLE_SCHEMA)
            progress.total -= len(draws)
            continue
        engine = engine or opened()
        write_rows(shard_path(job.out, index), _draw(job, draws, engine, progress), SAMPLE_SCHEMA)
        progress.log(now=True)
    if engine is not None:
        engine.close()


def _batches(job: Job, batch_tokens: int) -> Iterable[list[Draw]]:
    """The shards: samples taken over as they are, then what is drawn together, by length."""
    if job.earlier is not None:
        kept = [draw for draw in job.draws if not job.earlier.is_open(draw)]
        lengths = [job.earlier.num_tokens(draw) for draw in kept]
        yield from ([kept[index] for index in part] for part in chunked(lengths))
    draws = job.open_draws
    lengths = [len(draw.prompt.prompt_ids) + job.decoding.max_new_tokens for draw in draws]
    yield from ([draws[index] for index in part] for part in cut_batches(lengths, batch_tokens))


def _draw(job: Job, draws: Sequence[Draw], engine: Engine, progress: Progress) -> list[Sample]:
    requests = [request_of(draw, job.earlier) for draw in draws]
    completions = dict(engine.generate(requests, job.decoding, job.format.stop))
    pairs = [(draw, completions[index]) for index, draw in enumerate(draws)]
    grades = job.grade(pairs)
    for request, (_, completion) in zip(requests, pairs, strict=True):
        progress.drawn(len(completion.response_ids or ()) - len(request.response_ids))
    progress.add_grades(grades)
    return [job.row(draw, completion, grade) for (draw, completion), grade in zip(pairs, grades, strict=True)]
