"""Stage `evaluate`: AVG@K of one checkpoint on one benchmark, every sample kept.

An evaluation is a rollout on a benchmark: the same sampler, the same rows, the same resuming. The figures are computed
from the rows as written, so whoever has the rows can compute them again (`erpd_hub.evaluation.statistics`).
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erpd_hub import provenance
from erpd_hub.artifacts import LINEAGE, read_lineage
from erpd_hub.config import EvaluateConfig
from erpd_hub.config.benchmarks import LiveCodeBenchSource
from erpd_hub.evaluation.answers import Extract
from erpd_hub.evaluation.benchmarks import (
    Benchmark,
    check_state,
    get_benchmark,
    load_problems,
    problems_hash,
    state_of,
)
from erpd_hub.evaluation.code.protection import protection
from erpd_hub.evaluation.details import conceal_folder, reveal
from erpd_hub.evaluation.grading import check_golds
from erpd_hub.evaluation.harness import drawn_otherwise, harness
from erpd_hub.evaluation.statistics import response_length, summarise
from erpd_hub.prompts import Problem
from erpd_hub.references import EndpointRef, parse_reference
from erpd_hub.samples import read_columns, read_light
from erpd_hub.stage_context import StageContext, StageResult

if TYPE_CHECKING:
    from erpd_hub.rewards import Reward
    from erpd_hub.sampling.sampler import Drawn, Sampling

logger = logging.getLogger(__name__)

_TAKEN = ("taken_over", "extend_to", "continued", "seeds_sent")


def run(
    config: EvaluateConfig,
    out: Path,
    *,
    context: StageContext,
    checkpoints: tuple[Path, ...],
    benchmarks: Mapping[str, Path | None] | None = None,
    extended: Path | None = None,
    taken_over: Path | None = None,
) -> StageResult:
    """Sample, grade and summarise; the plan has left one checkpoint and one benchmark in the config.

    Args:
        benchmarks: Folder of the benchmark's Hub dataset, by its name; a generated benchmark needs none.
        extended: The same evaluation under the shorter limit; what ended by length goes on to `extend_to`.
        taken_over: The same evaluation with another K, or with samples that had failed; only the rest is drawn.

    Raises:
        ArtifactError: the dataset is not as the benchmark says.
        StageError: the prompts do not fit the model's context, or the problems are not those of a required state.
    """
    from erpd_hub.sampling.sampler import sample_problems

    (checkpoint,), (name,) = checkpoints, config.benchmarks
    benchmark, folder = get_benchmark(name, config.definitions), (benchmarks or {}).get(name)
    every = load_problems(benchmark, folder)
    check_state(benchmark, every, required=config.require_known_problems)
    problems = every[: config.limit]
    otherwise = _otherwise(taken_over, config, benchmark) if taken_over is not None else {}
    with _grader(benchmark, folder, every) as grader:
        sampling = _sampling(config, benchmark, checkpoint, extended, taken_over, grader)
        drawn = sample_problems(problems, sampling, out=out, context=context)
    if context.replicas > 1:
        return StageResult()
    metrics = {
        **_figures(out, problems, benchmark, config, drawn),
        **_about(benchmark, every, problems),
        **_settings(config, benchmark, drawn),
        **otherwise,
    }
    conceal_folder(out, benchmark, problems)
    return StageResult(metrics)


def _otherwise(taken_over: Path, config: EvaluateConfig, benchmark: Benchmark) -> dict[str, Any]:
    """How the samples of an earlier evaluation were made, where that differs from today's; said before any is drawn."""
    from erpd_hub.sampling.engines import describe_engine

    if not (taken_over / LINEAGE).is_file():
        return {}
    earlier = read_lineage(taken_over / LINEAGE)
    found = drawn_otherwise(earlier, describe_engine(config.engine), harness(benchmark), provenance.environment())
    unseeded = {"seeds_sent": False} if earlier.metrics.get("seeds_sent") is False else {}
    if not found:
        return unseeded
    logger.warning("%s: samples are taken over that were made otherwise than samples are made now: %s; evaluate under "
                   "another --name to draw all of them", benchmark.name, found)  # fmt: skip
    return {"taken_over_otherwise": found, **unseeded}


def _sampling(
    config: EvaluateConfig,
    benchmark: Benchmark,
    checkpoint: Path,
    extended: Path | None,
    taken_over: Path | None,
    grader: "Reward | None",
) -> "Sampling":
    from erpd_hub.sampling.sampler import Sampling

    reference = parse_reference(config.checkpoints[0])
    return Sampling(
        benchmark=benchmark.name,
        k=config.k or benchmark.k,
        checkpoint=checkpoint,
        endpoint=reference.model if isinstance(reference, EndpointRef) else None,
        decoding=config.decoding or benchmark.decoding,
        max_sequence_tokens=config.max_sequence_tokens,
        format=benchmark.format,
        engine=config.engine,
        extended=extended,
        extend_to=config.extend_to,
        taken_over=taken_over,
        needs_ids=extended is not None,
        reward=grader,
        record_errors=config.on_error == "record",
    )


@contextmanager
def _grader(benchmark: Benchmark, folder: Path | None, problems: list[Problem]) -> "Iterator[Reward | None]":
    """What grades programs; None compares answers."""
    if benchmark.grader == "math":
        yield None
        return
    from erpd_hub.evaluation.code.grader import UnitTests
    from erpd_hub.evaluation.code.livecodebench import load_tests
    from erpd_hub.programs import tests_of

    if isinstance(benchmark.source, LiveCodeBenchSource):
        assert folder is not None, "its problems are in a dataset"
        grader = UnitTests(load_tests(benchmark.source, folder))
    else:
        texts = {problem.problem_id: problem.problem for problem in problems}
        grader = UnitTests(lambda problem_id: tests_of(texts[problem_id]))
    with closing(grader):
        yield grader


def _figures(
    out: Path, problems: list[Problem], benchmark: Benchmark, config: EvaluateConfig, drawn: "Drawn"
) -> dict[str, Any]:
    """What the rows say: the score, and what to know of its samples before it is believed."""
    from erpd_hub.sampling.distinct import count_repeats, report_repeats

    temperature = (config.decoding or benchmark.decoding).temperature
    repeats = count_repeats(read_columns(out, "problem_id", "finish_reason", "text"))
    report_repeats(repeats, benchmark.name, temperature)
    rows = list(reveal(read_light(out), problems))
    return {
        **summarise(rows, votes=benchmark.grader == "math"),
        "errors": sum(row["finish_reason"] == "error" for row in rows),
        "duplicates": repeats.duplicates,
        "seeds_ignored": repeats.suspicious(temperature),
        "cut_short": sum(_is_cut_short(row, drawn.limits[row["problem_id"]]) for row in rows),
    }


def _is_cut_short(row: Mapping[str, Any], limit: int) -> bool:
    """Whether a server ended a sample by a limit of its own, below the one that was asked for."""
    counted = response_length(row) if row["finish_reason"] == "length" else None
    return counted is not None and counted < limit


def _about(benchmark: Benchmark, every: list[Problem], problems: list[Problem]) -> dict[str, Any]:
    """What was measured on: `problems` are those of `every` that the config's limit leaves."""
    return {
        "benchmark": benchmark.name,
        "benchmark_version": benchmark.version,
        "benchmark_definition": benchmark.definition_sha256,
        "problems_sha256": problems_hash(problems),
        "problems_state": state_of(benchmark, every),
        "share": benchmark.share,
        "licence": benchmark.licence,
        "harness": harness(benchmark),
        "bad_golds": _bad_golds(problems, benchmark.format.extract) if benchmark.grader == "math" else {},
        **({"sandbox": protection().text} if benchmark.grader == "code" else {}),
    }


def _settings(config: EvaluateConfig, benchmark: Benchmark, drawn: "Drawn") -> dict[str, Any]:
    """How the samples were drawn."""
    sequence = config.max_sequence_tokens
    return {
        "decoding": (config.decoding or benchmark.decoding).model_dump(mode="json"),
        "engine": drawn.how["engine"],
        "limit": config.limit,
        **{key: drawn.how[key] for key in _TAKEN if key in drawn.how},
        **({} if sequence is None else {"max_sequence_tokens": sequence}),
    }


def _bad_golds(problems: list[Problem], extract: Extract) -> dict[str, str]:
    """Problems whose gold the grader does not accept, with the reason: read their share of the score with care."""
    reasons = check_golds([problem.gold for problem in problems], extract=extract)
    return {p.problem_id: reason for p, reason in zip(problems, reasons, strict=True) if reason is not None}
