"""Reading published artifacts: the leaderboard, samples, records, curves and signals.

Knows nothing of Gradio and nothing of `erpd_hub`, only the published names of columns and files. Parquet is read
through ranges of the remote file, so that of a details dataset larger than memory only the shown columns and row
groups travel. What is missing (a dataset, a column, a shard) is said in `missing`, and everything else is still shown.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import HfApi, HfFileSystem, get_session
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from places import Place, Row, inputs_of, is_record

LEADERBOARD = "erpd-leaderboard"
INDEX_COLUMNS = ("problem_id", "k", "label", "verdict")
SAMPLE_COLUMNS = ("problem_id", "k", "text", "gold", "extracted", "verdict", "label", "finish_reason", "judge",
                  "num_tokens", "response_ids", "prompt_ids")  # fmt: skip
READ_AHEAD = 2**16
"""Bytes read beyond what was asked for: as much as the index columns of a row group take."""
LARGEST_RECORD = 16 * 2**20
"""Bytes of a JSON file that is read; nothing that a run publishes comes near."""

TRANSPORT_ERROR: type[Exception] = sys.modules[type(get_session()).__module__.partition(".")[0]].TransportError
"""Of httpx under huggingface_hub 1.x, of httpx2 under 2.x."""

UNREADABLE = (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError, pa.ArrowException, TRANSPORT_ERROR)


@dataclass(frozen=True)
class Rows:
    """Rows, and one sentence for each thing that was not there."""

    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Index:
    """All samples of an artifact without their texts: INDEX_COLUMNS, and which shard and row group holds each."""

    table: pa.Table
    shards: tuple[str, ...]
    missing: tuple[str, ...] = ()


class NotNowError(Exception):
    """Something could not be read, now; `instead` is what there is of it."""

    def __init__(self, instead: Any) -> None:
        super().__init__("not readable now")
        self.instead = instead


def _kept(count: int, read: Callable[..., Any]) -> Callable[..., Any]:
    """`read` with its last `count` results kept, but for what could not be read: the next time it may be."""
    cached = lru_cache(count)(read)

    def reading(*asked: object) -> Any:
        try:
            return cached(*asked)
        except NotNowError as error:
            return error.instead

    return reading


class Source:
    """What the pages read: one namespace at one endpoint. What is addressed by a commit is kept once read."""

    def __init__(self, api: HfApi, namespace: str, run: str | None = None) -> None:
        self.api = api
        self.namespace = namespace
        self.run = run
        self._files = HfFileSystem(endpoint=api.endpoint, token=api.token)
        self.index: Callable[[Place], Index] = _kept(16, self._index)
        self.json: Callable[[Place, str], list[Row]] = _kept(4096, partial(self._lines, whole=True))
        self.lines: Callable[[Place, str], list[Row]] = _kept(256, self._lines)

    @classmethod
    def from_environment(cls) -> "Source":
        """The namespace set, or the owner of the Space it runs in; endpoint and token as for the Hub's client."""
        owner = os.environ.get("SPACE_AUTHOR_NAME") or "local"
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ.get("HF_TOKEN"))
        return cls(api, os.environ.get("ERPD_SPACE_NAMESPACE") or owner, os.environ.get("ERPD_SPACE_RUN") or None)

    def leaderboard(self) -> Rows:
        """All published scores, or those of one run, in the order of their files."""
        repo_id = f"{self.namespace}/{LEADERBOARD}"
        try:
            commit = self.api.repo_info(repo_id, repo_type="dataset").sha
        except UNREADABLE as error:
            return Rows(missing=[f"dataset {repo_id}: {_reason(error)}"])
        place = Place("dataset", repo_id, commit)
        shards, missing = self._shards(place, "data")
        rows: list[Row] = []
        for shard in shards:
            for _, table in self._groups(place, shard, missing):
                rows += table.to_pylist()
        chosen = [row for row in rows if self.run in (None, row.get("run"))]
        if rows and not chosen:
            missing.append(f"the leaderboard of {self.namespace} has no row of the run {self.run}")
        return Rows(chosen, missing)

    def samples(self, place: Place, problem_id: str) -> Rows:
        """All samples of one problem by k, with their texts; only the row groups that hold them are read."""
        index = self.index(place)
        wanted = index.table.filter(pc.equal(index.table["problem_id"], problem_id))
        return self._rows(place, wanted, index.shards, SAMPLE_COLUMNS)

    def signal_row(self, place: Place, problem_id: str, k: int) -> Rows:
        """One sample's log-probs and signal, one number for each response token."""
        index = self.index(place)
        of_problem = pc.and_(pc.equal(index.table["problem_id"], problem_id), pc.equal(index.table["k"], k))
        columns = ("problem_id", "k", "label", "numerator", "denominator", "old", "signal")
        return self._rows(place, index.table.filter(of_problem), index.shards, columns)

    def row_groups(self, place: Place, columns: Sequence[str]) -> Iterator[pa.Table]:
        """An artifact's row groups with just these columns, one at a time, so that a reader may stop early."""
        shards, missing = self._shards(place, place.path("data"))
        for shard in shards:
            for _, table in self._groups(place, shard, missing, columns):
                yield table

    def datasets(self, kind: str) -> list[tuple[str, str]]:
        """(dataset, commit of main) of what a stage made in the namespace, or in the one run, newest first."""
        tags = [f"erpd-stage:{kind}", *([f"erpd-run:{self.run}"] if self.run else [])]
        found = self.api.list_datasets(author=self.namespace, filter=tags, sort="last_modified")
        return [(item.id, str(item.sha)) for item in found]

    def record(self, place: Place) -> Row | None:
        """An artifact's lineage record; None where there is none, or none that tells what the pages show."""
        found = next(iter(self.json(place, "lineage.json")), None)
        return found if found is not None and is_record(found) else None

    def records(self, places: Sequence[Place]) -> list[Row | None]:
        """Several records at once."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self.record, places))

    def closure(self, places: Sequence[Place], most: int) -> dict[Place, Row | None]:
        """These artifacts and all that they come from: their records, None for what has none. Stops beyond `most`."""
        found: dict[Place, Row | None] = {}
        while pending := [place for place in dict.fromkeys(places) if place not in found][: most + 1 - len(found)]:
            found |= zip(pending, self.records(pending), strict=True)
            places = [above for place in pending for _, above in inputs_of(found[place]) if above is not None]
        return found

    def local_file(self, place: Place, name: str) -> Path | None:
        """A small file of an artifact in the client's cache; None where it is not there."""
        try:
            return self._download(place, name)
        except UNREADABLE:
            return None

    def link(self, place: Place) -> str:
        """The artifact's page."""
        prefix = {"model": "", "dataset": "datasets/", "space": "spaces/"}[place.repo_type]
        return f"{self.api.endpoint}/{prefix}{place.repo_id}/tree/{place.revision or 'main'}/{place.folder}".rstrip("/")

    def _download(self, place: Place, name: str) -> Path:
        return Path(self.api.hf_hub_download(place.repo_id, place.path(name), repo_type=place.repo_type,
                                             revision=place.revision))  # fmt: skip

    def _lines(self, place: Place, name: str, *, whole: bool = False) -> list[Row]:
        """The objects of a JSON-lines file, or of a file that is one; none where it is not there or is no JSON."""
        try:
            path = self._download(place, name)
        except UNREADABLE as error:
            if _status(error) == 404:
                return []
            raise NotNowError([]) from error
        if path.stat().st_size > LARGEST_RECORD:
            return []
        try:
            text = path.read_text("utf-8")
            rows = [json.loads(part) for part in ([text] if whole else text.splitlines()) if part.strip()]
        except (ValueError, RecursionError):
            return []
        return [row for row in rows if isinstance(row, dict)]

    def _index(self, place: Place) -> Index:
        shards, missing = self._shards(place, place.path("data"))
        tables = []
        for number, shard in enumerate(shards):
            for group, table in self._groups(place, shard, missing, INDEX_COLUMNS):
                at = {"shard": number, "group": group}
                tables.append(_with_constants(_with_columns(table, INDEX_COLUMNS), at))
        table = pa.concat_tables(tables, promote_options="permissive") if tables else _empty_index()
        index = Index(table, tuple(shards), tuple(missing))
        if missing:
            raise NotNowError(index)
        return index

    def _rows(self, place: Place, wanted: pa.Table, shards: Sequence[str], columns: Sequence[str]) -> Rows:
        keys = set(zip(wanted["problem_id"].to_pylist(), wanted["k"].to_pylist(), strict=True))
        problems = pa.array(sorted({problem for problem, _ in keys}), pa.string())
        rows: list[Row] = []
        missing: list[str] = []
        for number in sorted(set(wanted["shard"].to_pylist())):
            held = wanted.filter(pc.equal(wanted["shard"], number))["group"]
            groups = sorted(set(held.to_pylist()))
            for _, table in self._groups(place, shards[number], missing, columns, groups):
                found = table.filter(pc.is_in(table["problem_id"], problems))
                rows += [dict.fromkeys(columns) | row for row in found.to_pylist()]
        chosen = [row for row in rows if (row["problem_id"], row["k"]) in keys]
        return Rows(sorted(chosen, key=lambda row: row["k"] or 0), missing)

    def _shards(self, place: Place, folder: str) -> tuple[list[str], list[str]]:
        try:
            tree = self.api.list_repo_tree(place.repo_id, folder, repo_type=place.repo_type, revision=place.revision)
            names = sorted(item.path for item in tree if item.path.endswith(".parquet"))
        except UNREADABLE as error:
            return [], [f"{place.repo_type} {place}: {_reason(error)}"]
        return names, [] if names else [f"{place.repo_type} {place}: no {folder}/*.parquet in it"]

    def _groups(
        self,
        place: Place,
        shard: str,
        missing: list[str],
        columns: Sequence[str] | None = None,
        groups: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, pa.Table]]:
        """Row groups of a remote shard by number. What cannot be read is named in `missing`, and ends the shard."""
        prefix = {"model": "", "dataset": "datasets/"}[place.repo_type]
        try:
            path = f"{prefix}{place.repo_id}@{place.revision or 'main'}/{shard}"
            with self._files.open(path, "rb", block_size=READ_AHEAD) as stream:
                file = pq.ParquetFile(stream)
                present = [name for name in columns or file.schema_arrow.names if name in file.schema_arrow.names]
                for group in range(file.num_row_groups) if groups is None else groups:
                    yield group, file.read_row_group(group, columns=present)
        except UNREADABLE as error:
            missing.append(f"{place.repo_type} {place}, {shard}: {_reason(error)}")


def _with_columns(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows))
    return table.select(list(columns))


def _with_constants(table: pa.Table, values: dict[str, int]) -> pa.Table:
    for name, value in values.items():
        table = table.append_column(name, pa.array([value] * table.num_rows, pa.int32()))
    return table


def _empty_index() -> pa.Table:
    return pa.table({name: pa.nulls(0) for name in (*INDEX_COLUMNS, "shard", "group")})


def _reason(error: Exception) -> str:
    """Why something cannot be read, without the endpoint's address."""
    if isinstance(error, pa.ArrowException):
        return "not a readable parquet file"
    status = _status(error)
    reasons = {401: "not there, or not readable without a token", 403: "this token may not read it", 404: "not found"}
    return reasons.get(status, f"the Hub answered {status}") if status else "the Hub does not answer"


def _status(error: Exception) -> int | None:
    """What the Hub answered, where it did."""
    return getattr(getattr(error, "response", None), "status_code", None)
