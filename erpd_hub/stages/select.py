"""The best of several checkpoints by a race on the validation benchmark (`erpd_hub.selection`), with its own score.

The samples of the race are kept by candidate and look under `samples/`, those that the winner's score rests on under
`samples/final`; `selection.json` has every look. Finished draws lie in the output folder, so a killed race goes over
them again without an engine and comes to the same decisions.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from erpd_hub.artifacts import LINEAGE, read_lineage, write_json
from erpd_hub.checkpoint_role import role_of
from erpd_hub.config import SelectConfig
from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.benchmarks import check_state, get_benchmark, load_problems, problems_hash
from erpd_hub.evaluation.details import conceal_folder, reveal
from erpd_hub.evaluation.paired import labels_by_problem
from erpd_hub.evaluation.statistics import summarise
from erpd_hub.prompts import Problem
from erpd_hub.references import PathRef, parse_reference
from erpd_hub.samples import read_light
from erpd_hub.selection import Drawn, Race, Rules, final_seed, race
from erpd_hub.stage_context import StageContext, StageResult
from erpd_hub.stages.unlearned import copy_checkpoint

FORMAT = "erpd-hub/selection/v1"

logger = logging.getLogger(__name__)

DrawInto = Callable[[Path, Path, int, int, StageContext], None]
"""(checkpoint, out, k_from, k_to, context): writes the samples into `out`."""


def run(
    config: SelectConfig,
    out: Path,
    *,
    context: StageContext,
    candidates: tuple[Path, ...],
    benchmarks: Mapping[str, Path | None] | None = None,
) -> StageResult:
    """Race the candidates, copy the winner, and sample it afresh.

    Args:
        benchmarks: Folder of the benchmark's Hub dataset, by its name; a generated benchmark needs none.

    Raises:
        ArtifactError: a candidate has no weights, or the dataset is not as the benchmark says.
        StageError: the prompts do not fit a model's context, or nothing could be graded.
    """
    for folder in candidates:
        if not any(folder.glob("*.safetensors")):
            raise ArtifactError(f"candidates: expected checkpoints, got no weights in {folder.name}; name saved steps")
    benchmark = get_benchmark(config.benchmark, config.definitions)
    every = load_problems(benchmark, (benchmarks or {}).get(config.benchmark))
    check_state(benchmark, every)
    problems = every[: config.limit]
    draw_into = _sampling(config, problems)
    found = race(len(candidates), _drawing(draw_into, candidates, out, context), _rules(config))
    logger.info("select: candidate %d of %d, %s", found.winner, len(candidates), found.stopped)
    final_k = config.final_k or benchmark.k
    fresh = replace(context, seed=final_seed(context.seed), work=context.work / "final")
    draw_into(candidates[found.winner], out / "samples" / "final", 0, final_k, fresh)
    copy_checkpoint(candidates[found.winner], out)
    rows = list(reveal(read_light(out / "samples" / "final"), problems))
    report = _report(found, len(candidates)) | {
        "benchmark": config.benchmark,
        "benchmark_version": benchmark.version,
        "problems_sha256": problems_hash(problems),
        "final_seed": fresh.seed,
        "final": summarise(rows),
    }
    write_json(out / "selection.json", json.dumps({"format": FORMAT, **report}, indent=2) + "\n")
    for folder in (path.parent for path in (out / "samples").rglob("data")):
        conceal_folder(folder, benchmark, problems)
    tokens = found.tokens + sum(row["length"] or 0 for row in rows)
    return StageResult(_metrics(report, config, candidates[found.winner]) | {"response_tokens": tokens})


def _rules(config: SelectConfig) -> Rules:
    return Rules(**{name: getattr(config, name) for name in Rules.__dataclass_fields__})


def _sampling(config: SelectConfig, problems: list[Problem]) -> DrawInto:
    benchmark = get_benchmark(config.benchmark, config.definitions)

    def draw_into(checkpoint: Path, out: Path, k_from: int, k_to: int, context: StageContext) -> None:
        from erpd_hub.sampling.sampler import Sampling, sample_problems

        context.work.mkdir(parents=True, exist_ok=True)
        sampling = Sampling(
            benchmark=config.benchmark,
            k=k_to,
            k_from=k_from,
            checkpoint=checkpoint,
            decoding=config.decoding or benchmark.decoding,
            format=benchmark.format,
            engine=config.engine,
        )
        sample_problems(problems, sampling, out=out, context=context)

    return draw_into


def _drawing(
    draw_into: DrawInto, candidates: tuple[Path, ...], out: Path, context: StageContext
) -> Callable[[int, int, int], Drawn]:
    """What the race asks for samples; those of a call before a kill are there."""

    def draw(index: int, k_from: int, k_to: int) -> Drawn:
        name = f"candidate-{index}/k-{k_from}-to-{k_to - 1}"
        draw_into(candidates[index], out / "samples" / name, k_from, k_to, replace(context, work=context.work / name))
        rows = list(read_light(out / "samples" / name))
        logger.info("select: candidate %d has samples %d to %d of %d problems", index, k_from, k_to - 1,
                    len({row["problem_id"] for row in rows}))  # fmt: skip
        return Drawn(labels_by_problem(rows), sum(row["length"] or 0 for row in rows))

    return draw


def _report(found: Race, among: int) -> dict[str, Any]:
    """What became of the race; candidates go by their place among the step's inputs."""
    return {
        "winner": found.winner,
        "among": among,
        "tried": found.tried,
        "stopped": found.stopped,
        "race_tokens": found.tokens,
        "looks": [*found.looks],
    }


def _metrics(report: dict[str, Any], config: SelectConfig, winner: Path) -> dict[str, Any]:
    """For the record and the card: the score is that of the fresh samples alone."""
    record = read_lineage(winner / LINEAGE) if (winner / LINEAGE).is_file() else None
    names = [_public(text) for text in config.candidates]
    return {
        **{name: value for name, value in report.items() if name != "final"},
        "chosen": names[report["winner"]],
        "candidates": names,
        "role": role_of(record),
        "winner_step": record.saved_step if record else None,
        **report["final"],
    }


def _public(text: str) -> str:
    """A reference without a local path."""
    return "(local)" if isinstance(parse_reference(text), PathRef) else text
