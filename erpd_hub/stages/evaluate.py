"""Stage `evaluate`: AVG@K of one checkpoint on one benchmark, every sample kept.

An evaluation is a rollout on a benchmark: the same sampler, the same rows, the same resuming. The figures are computed
from the rows as written, so whoever has the rows can compute them again (`erpd_hub.evaluation.statistics`).
"""

from collections.abc import Mapping
from pathlib import Path

from erpd_hub.config import EvaluateConfig
from erpd_hub.evaluation.answers import Extract
from erpd_hub.evaluation.benchmarks import get_benchmark, load_problems, problems_hash
from erpd_hub.evaluation.grading import check_golds
from erpd_hub.evaluation.statistics import summarise
from erpd_hub.prompts import Problem
from erpd_hub.samples import read_rows
from erpd_hub.stages import StageContext, StageResult


def run(
    config: EvaluateConfig,
    out: Path,
    *,
    context: StageContext,
    checkpoints: tuple[Path, ...],
    benchmarks: Mapping[str, Path | None] | None = None,
    extended: Path | None = None,
) -> StageResult:
    """Sample, grade and summarise; the plan has left one checkpoint and one benchmark in the config.

    Args:
        benchmarks: Folder of the benchmark's Hub dataset, by its name; a generated benchmark needs none.
        extended: The same evaluation under the shorter limit; what ended by length goes on to `extend_to`.

    Raises:
        ArtifactError: the dataset is not as the benchmark says.
        StageError: the prompts do not fit the model's context.
    """
    from erpd_hub.sampling.sampler import sample_problems
    from erpd_hub.stages.rollout import extension_metrics

    (checkpoint,), (name,) = checkpoints, config.benchmarks
    benchmark = get_benchmark(name)
    problems = load_problems(benchmark, (benchmarks or {}).get(name))[: config.limit]
    decoding = config.decoding or benchmark.decoding
    drawn = sample_problems(
        problems,
        benchmark=name,
        k=config.k or benchmark.k,
        checkpoint=checkpoint,
        decoding=decoding,
        format=benchmark.format,
        engine=config.engine,
        out=out,
        context=context,
        extended=extended,
        extend_to=config.extend_to,
        needs_ids=extended is not None,
    )
    if context.replicas > 1:
        return StageResult()
    return StageResult(
        metrics={
            **summarise(read_rows(out)),
            "benchmark": name,
            "benchmark_version": benchmark.version,
            "problems_sha256": problems_hash(problems),
            "decoding": decoding.model_dump(mode="json"),
            "engine": drawn["engine"],
            **extension_metrics(drawn),
            "limit": config.limit,
            "bad_golds": _bad_golds(problems, benchmark.format.extract),
        }
    )


def _bad_golds(problems: list[Problem], extract: Extract) -> dict[str, str]:
    """Problems whose gold the grader does not accept, with the reason: read their share of the score with care."""
    reasons = check_golds([problem.gold for problem in problems], extract=extract)
    return {p.problem_id: reason for p, reason in zip(problems, reasons, strict=True) if reason is not None}
