"""K graded responses to each problem, shard by shard: what rollouts, probes and evaluation details are made of.

The plan is a function of the problems and the config alone. A reproducible engine draws it batch by batch, and a batch
is a shard: a killed run keeps its finished shards and draws the unfinished one again whole, so it ends in the same
bytes. Any other engine draws everything at once into a journal (`sampling.collect`).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from erpd_hub.config import Decoding, EngineConfig, PromptFormat, ServerEngine, TransformersEngine
from erpd_hub.errors import StageError
from erpd_hub.prompts import Problem
from erpd_hub.rewards import Reward
from erpd_hub.samples import Sample, shard_path, write_rows
from erpd_hub.sampling.collect import collect
from erpd_hub.sampling.draws import Draw
from erpd_hub.sampling.engine import Engine
from erpd_hub.sampling.engines import describe_engine, open_endpoint, open_engine
from erpd_hub.sampling.job import Job
from erpd_hub.sampling.plan import (
    Earlier,
    all_draws,
    chunked,
    cut_batches,
    message_prompts,
    refuse_unfit,
    render_prompts,
)
from erpd_hub.sampling.progress import Progress
from erpd_hub.sampling.stopping import context_tokens
from erpd_hub.sampling.stored import TakenOver
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
    reward: Reward | None = None,
    k_from: int = 0,
    taken_over: Path | None = None,
    max_sequence_tokens: int | None = None,
    record_errors: bool = False,
    endpoint: str | None = None,
) -> dict[str, Any]:
    """Draw and grade k responses to each problem into `out/data/train-*.parquet` (SAMPLE_SCHEMA).

    Args:
        extended: Folder of the samples drawn under `decoding`, of which those that ended by length go on to
            `extend_to` new tokens.
        needs_ids: Refuse an engine that returns no token ids.
        reward: Says what a response is worth; None compares it with the gold answer.
        k_from: Draw samples k_from ... k - 1 only: those before are elsewhere.
        taken_over: Folder of the same samples for another k, of which nothing is drawn again that has not failed.
        max_sequence_tokens: Of prompt and response together.
        record_errors: A sample that fails for good becomes an ungradable row instead of stopping the stage.
        endpoint: The model's name where `engine` is sent messages instead of a checkpoint's token ids; `checkpoint`
            is then not looked at.

    Returns:
        How they were drawn: decoding, engine, k; of an extension `extend_to` and how many were `continued`; how many
        were `taken_over`.

    Raises:
        StageError: prompts that are empty, or too long for the model's context with their response; samples that the
            engine could not draw, or a signal to stop: what is finished is kept.
    """
    limit = decoding.max_new_tokens if extended is None or extend_to is None else extend_to
    if endpoint is None:
        from erpd_hub.models import load_tokenizer

        tokenizer = load_tokenizer(checkpoint)
        prompts = render_prompts(problems, format, tokenizer)
        refuse_unfit(prompts, limit, context_tokens(checkpoint), max_sequence_tokens)
    else:
        prompts = message_prompts(problems, format)
    job = Job(
        draws=_distinct(all_draws(prompts, benchmark, k, context.seed, k_from=k_from)),
        benchmark=benchmark,
        decoding=decoding.model_copy(update={"max_new_tokens": limit}),
        format=format,
        earlier=Earlier(extended, decoding.max_new_tokens, max_sequence_tokens) if extended else None,
        out=out,
        context=context,
        reward=reward,
        taken_over=TakenOver(taken_over) if taken_over else None,
        max_sequence_tokens=max_sequence_tokens,
        record_errors=record_errors,
    )

    def opened() -> Engine:
        if endpoint is not None:
            assert isinstance(engine, ServerEngine), "the config has refused any other"
            return open_endpoint(engine, endpoint, format, tolerant=record_errors)
        scratch = context.work / f"engine-{context.replica}"
        longest = max(job.room(draw) for draw in job.draws)
        return open_engine(
            engine, checkpoint, tokenizer, longest=longest, needs_ids=needs_ids, scratch=scratch, tolerant=record_errors
        )

    if isinstance(engine, TransformersEngine):
        draw_batches(job, opened, engine.batch_tokens)
    else:
        collect(job, opened)
    how = {"decoding": decoding.model_dump(), "engine": describe_engine(engine), "k": k}
    if taken_over is not None:
        how["taken_over"] = sum(draw in job.taken_over for draw in job.draws) if job.taken_over else 0
    return how if extended is None else how | {"extend_to": extend_to, "continued": len(job.open_draws)}


def _distinct(draws: list[Draw]) -> list[Draw]:
    """Raises StageError: two samples with one seed, which would be one sample twice."""
    if len({draw.seed for draw in draws}) < len(draws):
        raise StageError("sampling: expected a seed of its own for each sample, got one twice; problem ids must differ")
    return draws


def draw_batches(job: Job, opened: Callable[[], Engine], batch_tokens: int) -> None:
    """Draw the plan with a reproducible engine, this replica's share of its shards; finished shards are kept."""
    batches = list(_batches(job, batch_tokens))
    mine = [
        (index, batch) for index, batch in enumerate(batches) if index % job.context.replicas == job.context.replica
    ]
    missing = [(index, draws) for index, draws in mine if not shard_path(job.out, index).exists()]
    to_draw = sum(len(draws) for _, draws in missing if job.is_open(draws[0]))
    progress = job.progress(to_draw, sum(len(draws) for _, draws in mine) - to_draw)
    engine: Engine | None = None
    for index, draws in missing:
        if not job.is_open(draws[0]):
            write_rows(shard_path(job.out, index), job.kept_rows(draws), job.schema())
            continue
        engine = engine or opened()
        write_rows(shard_path(job.out, index), _draw(job, draws, engine, progress), job.schema())
        progress.log()
    if engine is not None:
        progress.log(now=True)
        engine.close()


def _batches(job: Job, batch_tokens: int) -> Iterable[list[Draw]]:
    """The shards: samples taken over as they are, then what is drawn together, by length."""
    kept = [draw for draw in job.draws if not job.is_open(draw)]
    yield from ([kept[index] for index in part] for part in chunked([job.kept_tokens(draw) for draw in kept]))
    draws = job.open_draws
    yield from ([draws[index] for index in part] for part in cut_batches([job.room(d) for d in draws], batch_tokens))


def _draw(job: Job, draws: Sequence[Draw], engine: Engine, progress: Progress) -> list[Sample]:
    requests = [job.request(draw) for draw in draws]
    completions = dict(engine.generate(requests, job.decoding, job.format.stop))
    pairs = [(draw, completions[index]) for index, draw in enumerate(draws)]
    grades = job.grade(pairs)
    for request, (_, completion) in zip(requests, pairs, strict=True):
        progress.drawn(len(completion.response_ids or ()) - len(request.response_ids))
    progress.add_grades(grades)
    return [job.row(draw, completion, grade) for (draw, completion), grade in zip(pairs, grades, strict=True)]
