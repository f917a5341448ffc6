"""K graded responses to each problem, shard by shard: what rollouts, probes and evaluation details are made of.

The plan is a function of the problems and the config alone. A reproducible engine draws it batch by batch, and a batch
is a shard: a killed run keeps its finished shards and draws the unfinished one again whole, so it ends in the same
bytes. Any other engine draws everything at once into a journal (`sampling.collect`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from erpd_hub.config import Decoding, EngineConfig, PromptFormat, ServerEngine, TransformersEngine
from erpd_hub.errors import StageError
from erpd_hub.prompts import Problem
from erpd_hub.rewards import Reward
from erpd_hub.samples import Sample, shard_path, write_rows
from erpd_hub.sampling.collect import collect
from erpd_hub.sampling.draws import Draw, Prompt
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
    response_limit,
)
from erpd_hub.sampling.progress import Progress
from erpd_hub.sampling.shard_grades import grade_again, note_grader
from erpd_hub.sampling.stopping import context_tokens
from erpd_hub.sampling.stored import TakenOver
from erpd_hub.stage_context import StageContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sampling:
    """What is drawn of a list of problems, by what, and how it is graded."""

    benchmark: str
    """Name in the rows and in the seeds: the benchmark, or the prompts' source."""
    k: int
    checkpoint: Path
    """Not looked at for an endpoint."""
    decoding: Decoding
    format: PromptFormat
    engine: EngineConfig
    k_from: int = 0
    """Samples k_from ... k - 1 only: those before are elsewhere."""
    endpoint: str | None = None
    """The model's name where the engine is sent messages instead of a checkpoint's token ids."""
    max_sequence_tokens: int | None = None
    """Of prompt and response together."""
    extended: Path | None = None
    """Folder of the samples drawn under `decoding`, of which those that ended by length go on to `extend_to`."""
    extend_to: int | None = None
    """New tokens."""
    taken_over: Path | None = None
    """Folder of the same samples for another k, of which nothing is drawn again that has not failed."""
    needs_ids: bool = True
    """Refuse an engine that returns no token ids."""
    record_errors: bool = False
    """A sample that fails for good becomes an ungradable row instead of stopping the stage."""
    reward: Reward | None = None
    """Says what a response is worth; None compares it with the gold answer."""

    @property
    def limit(self) -> int:
        """Tokens of the longest response, after an extension."""
        if self.extended is None or self.extend_to is None:
            return self.decoding.max_new_tokens
        return self.extend_to


class Drawn(NamedTuple):
    """What there is to say of samples besides the samples."""

    how: dict[str, Any]
    """As JSON: decoding, engine, k; `seeds_sent` false where a server took none; of an extension `extend_to` and how
    many were `continued`; how many were `taken_over`."""
    limits: Mapping[str, int]
    """Tokens that a response to each problem may have."""


def sample_problems(problems: Sequence[Problem], sampling: Sampling, *, out: Path, context: StageContext) -> Drawn:
    """Draw and grade k responses to each problem into `out/data/train-*.parquet` (SAMPLE_SCHEMA).

    Raises:
        StageError: prompts that are empty, or too long for the model's context with their response; samples that the
            engine could not draw, or a signal to stop: what is finished is kept.
    """
    tokenizer = _tokenizer(sampling)
    prompts = _prompts(problems, sampling, tokenizer)
    job = _job(prompts, sampling, out, context)

    def opened() -> Engine:
        return _open(job, sampling, tokenizer)

    if isinstance(sampling.engine, TransformersEngine):
        draw_batches(job, opened, sampling.engine.batch_tokens)
    else:
        collect(job, opened)
    limits = {p.problem.problem_id: response_limit(p, sampling.limit, sampling.max_sequence_tokens) for p in prompts}
    return Drawn(_how(job, sampling), limits)


def _tokenizer(sampling: Sampling) -> "PreTrainedTokenizerBase | None":
    """The policy's; an endpoint has its own."""
    if sampling.endpoint is not None:
        return None
    from erpd_hub.models import load_tokenizer

    return load_tokenizer(sampling.checkpoint)


def _prompts(
    problems: Sequence[Problem], sampling: Sampling, tokenizer: "PreTrainedTokenizerBase | None"
) -> list[Prompt]:
    """Raises StageError: they do not fit."""
    if tokenizer is None:
        return message_prompts(problems, sampling.format)
    prompts = render_prompts(problems, sampling.format, tokenizer)
    refuse_unfit(prompts, sampling.limit, context_tokens(sampling.checkpoint), sampling.max_sequence_tokens)
    return prompts


def _job(prompts: Sequence[Prompt], sampling: Sampling, out: Path, context: StageContext) -> Job:
    extended, sequence = sampling.extended, sampling.max_sequence_tokens
    return Job(
        draws=_distinct(all_draws(prompts, sampling.benchmark, sampling.k, context.seed, k_from=sampling.k_from)),
        benchmark=sampling.benchmark,
        decoding=sampling.decoding.model_copy(update={"max_new_tokens": sampling.limit}),
        format=sampling.format,
        earlier=Earlier(extended, sampling.decoding.max_new_tokens, sequence) if extended else None,
        out=out,
        context=context,
        reward=sampling.reward,
        taken_over=TakenOver(sampling.taken_over) if sampling.taken_over else None,
        max_sequence_tokens=sequence,
        record_errors=sampling.record_errors,
    )


def _open(job: Job, sampling: Sampling, tokenizer: "PreTrainedTokenizerBase | None") -> Engine:
    """The engine; only where something is missing."""
    engine, tolerant = sampling.engine, sampling.record_errors
    if tokenizer is None:
        assert isinstance(engine, ServerEngine) and sampling.endpoint, "the config has refused any other"
        return open_endpoint(engine, sampling.endpoint, sampling.format, tolerant=tolerant)
    return open_engine(
        engine,
        sampling.checkpoint,
        tokenizer,
        longest=max(job.room(draw) for draw in job.draws),
        needs_ids=sampling.needs_ids,
        scratch=job.context.work / f"engine-{job.context.replica}",
        tolerant=tolerant,
    )


def _how(job: Job, sampling: Sampling) -> dict[str, Any]:
    how: dict[str, Any] = {
        "decoding": sampling.decoding.model_dump(), "engine": describe_engine(sampling.engine), "k": sampling.k
    }  # fmt: skip
    if job.unseeded.exists():
        how["seeds_sent"] = False
    if (taken := job.taken_over) is not None:
        how["taken_over"] = sum(draw in taken for draw in job.draws)
    if job.earlier is not None:
        how |= {"extend_to": sampling.extend_to, "continued": len(job.open_draws)}
    return how


def _distinct(draws: list[Draw]) -> list[Draw]:
    """Raises StageError: two samples with one seed, which would be one sample twice."""
    if len({draw.seed for draw in draws}) < len(draws):
        raise StageError("sampling: expected a seed of its own for each sample, got one twice; problem ids must differ")
    return draws


def draw_batches(job: Job, opened: Callable[[], Engine], batch_tokens: int) -> None:
    """Draw the plan with a reproducible engine, this replica's share of its shards; finished shards are kept, with the
    verdicts of today's grader."""
    batches = list(_batches(job, batch_tokens))
    mine = [
        (index, batch) for index, batch in enumerate(batches) if index % job.context.replicas == job.context.replica
    ]
    missing = [(index, draws) for index, draws in mine if not grade_again(job, index, draws)]
    to_draw = sum(len(draws) for _, draws in missing if job.is_open(draws[0]))
    progress = job.progress(to_draw, sum(len(draws) for _, draws in mine) - to_draw)
    engine: Engine | None = None
    for index, draws in missing:
        if not job.is_open(draws[0]):
            write_rows(shard_path(job.out, index), job.kept_rows(draws), job.schema())
        else:
            engine = engine or opened()
            write_rows(shard_path(job.out, index), _draw(job, draws, engine, progress), job.schema())
            progress.log()
        note_grader(job, index)
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
