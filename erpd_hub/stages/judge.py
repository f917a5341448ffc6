"""Stage `judge`: details with a language model's opinion on the answers that the rule turned down.

Rows stay as they are but for their `judge` column, so the score of the rule alone stands beside the score with the
judge. `judge/` has every reply, every flip and what the judge made of injected answers. What was asked before, by this
artifact before a kill or by another under the same judge, is not asked again.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erpd_hub.artifacts import LINEAGE, payload_files, read_lineage, write_json
from erpd_hub.config.judge import JudgeConfig
from erpd_hub.evaluation.benchmarks import get_benchmark, load_problems
from erpd_hub.evaluation.details import reveal
from erpd_hub.evaluation.judge.journal import Journal, shared_name
from erpd_hub.evaluation.judge.opinion import Opinion, without_gold
from erpd_hub.evaluation.judge.prompt import PROMPT_VERSION, SYSTEM
from erpd_hub.evaluation.leaderboard import judged_figures
from erpd_hub.evaluation.statistics import summarise
from erpd_hub.fields import recorded
from erpd_hub.home import home
from erpd_hub.prompts import Problem
from erpd_hub.samples import read_light, shard_paths, write_tables
from erpd_hub.stage_context import StageContext, StageResult

logger = logging.getLogger(__name__)


def run(
    config: JudgeConfig,
    out: Path,
    *,
    context: StageContext,
    details: Path,
    benchmarks: Mapping[str, Path | None] | None = None,
) -> StageResult:
    """Ask, write the rows with the rulings, and summarise both ways.

    Raises:
        ConfigError: the judge's key cannot stand in a header.
        StageError: a cap is reached, or the endpoint does not answer; what is judged is kept.
    """
    benchmark = get_benchmark(config.benchmark, config.definitions)
    problems = load_problems(benchmark, (benchmarks or {}).get(benchmark.name))
    rows = list(reveal(read_light(details), problems))
    opinion = Opinion.on(rows, {p.problem_id: p.problem for p in problems}, config.judge, seed=context.seed)
    journal = Journal(context.work / "judge.jsonl", home() / "cache" / "judge" / shared_name(config.judge))
    opinion.ask(journal)
    _write_rows(opinion, rows, details, out)
    _write_opinion(opinion, out / "judge", concealed=benchmark.share == "ids")
    report = opinion.report(journal)
    _warn(report, benchmark.name)
    return StageResult(metrics=_metrics(details, out, problems, report))


def _write_rows(opinion: Opinion, rows: list[dict[str, Any]], details: Path, out: Path) -> None:
    """The shards with their `judge` column, and whatever else is in the folder, as they are."""
    pending = iter(rows)
    for path in shard_paths(details):
        table = pq.read_table(path)
        cells = [opinion.cell(row) for row in islice(pending, len(table))]
        index = table.schema.get_field_index("judge")
        table = table.set_column(index, table.schema.field(index), pa.array(cells, pa.string()))
        write_tables(out / "data" / path.name, [table], table.schema)
    for name in payload_files(details):
        if not name.startswith("data/"):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(details / name, out / name)


def _write_opinion(opinion: Opinion, folder: Path, *, concealed: bool) -> None:
    """Replies and flips line by line, and how they were asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, entries in (("replies", opinion.replies()), ("flips", opinion.flips())):
        kept = [without_gold(entry) if concealed else entry for entry in entries]
        write_json(folder / f"{name}.jsonl", "".join(json.dumps(entry) + "\n" for entry in kept))
    asked = {**recorded(opinion.settings), "prompt_version": PROMPT_VERSION, "system": SYSTEM}
    write_json(folder / "judge.json", json.dumps(asked, indent=2))


def _metrics(details: Path, out: Path, problems: list[Problem], report: dict[str, Any]) -> dict[str, Any]:
    """The figures of the rule alone under their usual names, and those with the judge beside them."""
    record = read_lineage(details / LINEAGE) if (details / LINEAGE).is_file() else None
    rows = list(reveal(read_light(out), problems))
    return {**(record.metrics if record else {}), **summarise(rows), **judged_figures(rows), "judge": report}


def _warn(report: dict[str, Any], where: str) -> None:
    if report["canaries_alarm"]:
        logger.warning(
            "%s: the judge %s: %s: its score cannot be trusted", where, report["model"], report["canaries_problem"]
        )
    if report["unjudged"]:
        logger.warning(
            "%s: the judge %s gave no verdict on %d of %d samples, where the rule's stands: %s", where, report["model"],
            report["unjudged"], report["asked"], report["unjudged_reasons"],
        )  # fmt: skip
