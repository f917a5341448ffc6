"""The rows of a leaderboard as they stand on the Hub. Anybody may have written them: what is read is checked for form,
bounded, and left out where it is no row."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.leaderboard import LEADERBOARD_SCHEMA
from erpd_hub.hub.client import Hub
from erpd_hub.results.rows import Row

COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_ROWS = 100_000
_MOST_BYTES = 2**28
"""Of a file's columns in memory."""
_BATCH = 1024
_NEEDED = (
    "run", "role", "checkpoint", "checkpoint_repo", "checkpoint_revision", "benchmark", "version", "k", "n",
    "details_repo", "details_folder", "details_revision",
)  # fmt: skip


class Published(NamedTuple):
    """A leaderboard at a commit."""

    revision: str
    rows: dict[str, list[Row]]
    """By file."""
    unread: dict[str, str]
    """What is wrong with files that have no rows to read."""


def published_rows(hub: Hub, repo_id: str) -> Published:
    """The rows on a leaderboard's main.

    Raises:
        ArtifactError: there is no leaderboard.
    """
    head = hub.resolve("dataset", repo_id)
    if head is None:
        raise ArtifactError(
            f"{repo_id}: expected a leaderboard, got no such dataset; a run with an evaluation makes it"
        )
    names = sorted(n for n in hub.tree("dataset", repo_id, head) if n.startswith("data/") and n.endswith(".parquet"))
    found = Published(head, {}, {})
    for name in names:
        try:
            found.rows[name] = rows_of(hub, repo_id, head, name)
        except ArtifactError as error:
            found.unread[name] = str(error)
    return found


def rows_of(hub: Hub, repo_id: str, revision: str | None, name: str) -> list[Row]:
    """The rows of one file at a commit, without columns that no leaderboard has; empty where there is no such file.

    Raises:
        ArtifactError: it is no parquet, too large, or has other types in its columns.
    """
    import pyarrow as pa

    path = hub.file("dataset", repo_id, revision, name) if revision else None
    if path is None:
        return []
    try:
        return _read(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{repo_id}/{name}: expected a leaderboard's parquet file, got {said}") from None


def _read(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Row] = []
    with pq.ParquetFile(path) as file:
        if file.metadata.num_rows > _MOST_ROWS:
            raise ValueError(f"{file.metadata.num_rows} rows")
        fields = [field for field in LEADERBOARD_SCHEMA if field.name in file.schema_arrow.names]
        held = 0
        for batch in file.iter_batches(batch_size=_BATCH, columns=[field.name for field in fields]):
            held += batch.nbytes
            if held > _MOST_BYTES:
                raise ValueError(f"more than {_MOST_BYTES} bytes of rows")
            table = pa.Table.from_batches([batch]).select([field.name for field in fields]).cast(pa.schema(fields))
            table.validate(full=True)
            rows += table.to_pylist()
    return rows


def odd_row(row: Mapping[str, Any]) -> str | None:
    """Why a row cannot be one that this package has written; None where it can."""
    missing = [name for name in _NEEDED if row.get(name) is None]
    if missing:
        return f"{missing[0]}: expected a value, got none"
    for name in ("details_revision", "probe_revision"):
        if row.get(name) is not None and not COMMIT.fullmatch(str(row[name])):
            return f"{name}: expected a commit of 40 hex digits, got {row[name]!r}"
    for name in ("interval", "interval_judged"):
        ends = row.get(name)
        if ends is not None and (len(ends) != 2 or None in ends):
            return f"{name}: expected two ends, got {ends}"
    for name in ("harness", "taken_over_otherwise"):
        if not _is_object(row.get(name)):
            return f"{name}: expected a JSON object, got {row[name]!r}"
    return None


def shown_rows(published: Published) -> tuple[list[Row], list[str]]:
    """The rows that can be shown, and a line for each file and row that cannot."""
    rows: list[Row] = []
    notes = list(published.unread.values())
    for name, found in published.rows.items():
        for number, row in enumerate(found):
            problem = odd_row(row)
            if problem is None:
                rows.append(complete(row) | ({"pinned": True} if row.get("pinned") is None else {}))
            else:
                notes.append(f"{name}, row {number}: left out: {problem}")
    return rows, notes


def complete(row: Row) -> Row:
    """A row of an earlier schema, with nulls for what it lacks."""
    return {name: row.get(name) for name in LEADERBOARD_SCHEMA.names}


def _is_object(text: str | None) -> bool:
    """Whether a cell holds a JSON object, if anything."""
    try:
        return not text or isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
