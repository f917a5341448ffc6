"""Details of benchmarks whose licence forbids copying their problems: ids and hashes in the place of prompts and golds.

`conceal_folder` is the last thing an evaluation does with its samples; `reveal` joins them with the benchmark's
problems again, for whoever displays, regrades or judges them and has the dataset. What identifies a problem's state is
one hash of id, text and gold: of the gold alone it would be a riddle with a thousand possible answers.
Responses stay as they are: they are the model's own text.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.benchmarks import Benchmark
from erpd_hub.prompts import Problem
from erpd_hub.samples import sample_schema, shard_paths, write_tables

HASH_COLUMN = "problem_sha256"
_SECRET = ("prompt_ids", "gold")

Row = dict[str, Any]


def problem_sha256(problem: Problem) -> str:
    """Of id, text and gold: the state of the problem that a sample is about."""
    told = json.dumps([problem.problem_id, problem.problem, problem.gold])
    return hashlib.sha256(told.encode()).hexdigest()


def is_concealed(row: Mapping[str, Any]) -> bool:
    """Whether a sample's prompt and gold were left out."""
    return row.get(HASH_COLUMN) is not None


def conceal_folder(folder: Path, benchmark: Benchmark, problems: Iterable[Problem]) -> None:
    """Conceal the samples of a folder, shard by shard, each whole or not at all; what is concealed stays so."""
    if benchmark.share == "full":
        return
    hashes = {problem.problem_id: problem_sha256(problem) for problem in problems}
    for path in shard_paths(folder):
        if HASH_COLUMN not in pq.read_schema(path).names:
            _conceal_shard(path, hashes)


def reveal(rows: Iterable[Mapping[str, Any]], problems: Iterable[Problem]) -> Iterator[Row]:
    """Samples with the gold again, of the problems they were drawn for; others pass as they are.

    Prompt ids stay null: they are the tokenizer's rendering of the problem in the benchmark's format.

    Raises:
        ArtifactError: a problem is missing, or is not in the state that the sample is about.
    """
    by_id = {problem.problem_id: problem for problem in problems}
    known = {name: problem_sha256(problem) for name, problem in by_id.items()}
    for row in rows:
        if not is_concealed(row):
            yield dict(row)
            continue
        name = row["problem_id"]
        if known.get(name) != row[HASH_COLUMN]:
            found = "another text or gold" if name in known else "no such problem"
            raise ArtifactError(
                f"details: expected problem {name} of {row['benchmark']} as it was sampled, got {found}; "
                "pull the dataset at the revision in the details' lineage"
            )
        yield {**row, "gold": by_id[name].gold, HASH_COLUMN: None}


def _conceal_shard(path: Path, hashes: Mapping[str, str]) -> None:
    """Rewrite a shard, a row group at a time as it was written."""
    file = pq.ParquetFile(path)
    schema = sample_schema([*file.schema_arrow.names, HASH_COLUMN])

    def tables() -> Iterator[pa.Table]:
        for index in range(file.num_row_groups):
            table = file.read_row_group(index)
            for name in _SECRET:
                place = table.schema.get_field_index(name)
                field = schema.field(name)
                table = table.set_column(place, field, pa.nulls(len(table), field.type))
            told = pa.array([hashes[name] for name in table["problem_id"].to_pylist()], pa.string())
            yield table.append_column(HASH_COLUMN, told).select(schema.names)

    write_tables(path, tables(), schema)
