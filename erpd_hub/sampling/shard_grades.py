"""Which grader the finished shards of a reproducible engine have had.

A grader is no part of a fingerprint, so a run that goes on may find shards that another version has graded; they are
graded again, so that no artifact mixes two. What a reward or tests have said of a response stays.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from erpd_hub.evaluation.harness import math_grader
from erpd_hub.samples import shard_path, write_rows
from erpd_hub.sampling.draws import Draw
from erpd_hub.sampling.job import Job
from erpd_hub.sampling.rows import regraded
from erpd_hub.sampling.stored import revealed


def grade_again(job: Job, index: int, draws: Sequence[Draw]) -> bool:
    """Compare a finished shard with the golds afresh where another grader did, or where nobody knows which; returns
    whether there is such a shard."""
    path, mark = shard_path(job.out, index), _mark(job, index)
    if not path.exists():
        return False
    if job.reward is not None or (mark.is_file() and mark.read_text() == _today()):
        return True
    rows = [revealed(row, draw) for row, draw in zip(pq.read_table(path).to_pylist(), draws, strict=True)]
    again = regraded(draws, rows, job.format)
    if again != rows:
        write_rows(path, again, job.schema())
    note_grader(job, index)
    return True


def note_grader(job: Job, index: int) -> None:
    """Remember that a shard, now written, has the verdicts of today's grader."""
    mark = _mark(job, index)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(_today())


def _mark(job: Job, index: int) -> Path:
    return job.context.work / "graded" / f"{index:05d}.json"


def _today() -> str:
    return json.dumps(math_grader())
