"""Whether labels follow from verdicts, and a judge's rulings and canaries from the replies that the details keep."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from erpd_hub.artifacts import LineageRecord
from erpd_hub.evaluation.judge.check import misreported, unfounded
from erpd_hub.samples import shard_paths

_READ = ("benchmark", "problem_id", "k", "finish_reason", "gold", "extracted", "verdict", "label", "judge")
_CONCEALED = "problem_sha256"
_LABELS = {"correct": 1, "ungradable": None}
_SHOWN = 3
"""Of the same kind of problem; the rest is counted."""


def sample_problems(folder: Path, record: LineageRecord) -> list[str]:
    """What is wrong with the verdicts in details, as messages."""
    rows = list(_rows(folder))
    found = _first([_label_problem(row) for row in rows if row["label"] != _LABELS.get(row["verdict"], 0)])
    judge = record.metrics.get("judge")
    if judge is None:
        return found
    return found + _first(unfounded(rows, folder)) + misreported(judge, folder)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in shard_paths(folder):
        names = pq.read_schema(path).names
        yield from pq.read_table(path, columns=[n for n in (*_READ, _CONCEALED) if n in names]).to_pylist()


def _label_problem(row: dict[str, Any]) -> str:
    return f"{row['problem_id']} {row['k']}: label {row['label']} on the verdict {row['verdict']}"


def _first(problems: list[str]) -> list[str]:
    rest = len(problems) - _SHOWN
    return problems[:_SHOWN] + ([f"and {rest} more like these"] if rest > 0 else [])
