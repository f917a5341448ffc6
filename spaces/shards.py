"""Parquet shards of artifacts, read through ranges of the remote files: of a dataset larger than memory only the shown
columns and row groups travel, and none that is larger than LARGEST_GROUP.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import HfApi, HfFileSystem

from places import Place, Row
from reading import UNREADABLE, NotNowError, Rows, TooLargeError, kept, reason

INDEX_COLUMNS = ("problem_id", "k", "label")
OPTIONAL = ("num_tokens",)
"""Columns that only artifacts have in which they hold something."""
_TEXTS = ("problem_id", "text", "gold", "extracted", "verdict", "finish_reason", "judge")
_IDS, _LOGPROBS = ("prompt_ids", "response_ids"), ("numerator", "denominator", "old", "signal")
TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(_TEXTS, pa.string()), "k": pa.int32(), "label": pa.int8(), "num_tokens": pa.int32(),
    **dict.fromkeys(_IDS, pa.list_(pa.int32())), **dict.fromkeys(_LOGPROBS, pa.list_(pa.float32())),
}  # fmt: skip
"""As the published schemas have them; a shard with a column that is none of it is not readable."""
READ_AHEAD = 2**16
"""Bytes read beyond what was asked for: as much as the index columns of a row group take."""
LARGEST_GROUP = 2**29
"""Bytes of a row group's columns, as its file says; shards of ours stay a tenth below."""
MOST_SAMPLES = 4_000_000
"""Of an index: the samples beyond are not looked at, and that is said."""


@dataclass(frozen=True)
class Index:
    """All samples of an artifact without their texts: INDEX_COLUMNS, and which shard and row group holds each."""

    table: pa.Table
    shards: tuple[str, ...]
    missing: tuple[str, ...] = ()


class Shards:
    """The parquet files of artifacts at one endpoint."""

    def __init__(self, api: HfApi) -> None:
        self.api = api
        self._files = HfFileSystem(endpoint=api.endpoint, token=api.token)
        self.index: Callable[[Place], Index] = kept(16, self._index)

    def names(self, place: Place, folder: str) -> tuple[list[str], list[str]]:
        """The shards in a folder of the repository, and what is missing."""
        try:
            tree = self.api.list_repo_tree(place.repo_id, folder, repo_type=place.repo_type, revision=place.revision)
            found = sorted(item.path for item in tree if item.path.endswith(".parquet"))
        except UNREADABLE as error:
            return [], [f"{place.repo_type} {place}: {reason(error)}"]
        return found, [] if found else [f"{place.repo_type} {place}: no {folder}/*.parquet in it"]

    def groups(
        self,
        place: Place,
        shard: str,
        missing: list[str],
        columns: Sequence[str] | None = None,
        groups: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, pa.Table]]:
        """Row groups of a remote shard by number. What cannot be read is named in `missing`, and ends the shard."""
        try:
            path = f"{place.repo_path}@{place.revision or 'main'}/{shard}"
            with self._files.open(path, "rb", block_size=READ_AHEAD) as stream:
                file = pq.ParquetFile(stream)
                there = file.schema_arrow.names
                if absent := [name for name in columns or () if name not in (*there, *OPTIONAL)]:
                    missing.append(f"{place.repo_type} {place}, {shard}: no column {', '.join(absent)}")
                present = [name for name in columns or there if name in there]
                for group in range(file.num_row_groups) if groups is None else groups:
                    _refuse_large(file.metadata.row_group(group), present)
                    yield group, _typed(file.read_row_group(group, columns=present))
        except UNREADABLE as error:
            missing.append(f"{place.repo_type} {place}, {shard}: {reason(error)}")

    def rows(self, place: Place, wanted: pa.Table, columns: Sequence[str], *, lengths: Sequence[str] = ()) -> Rows:
        """The rows of an index, with these columns, by k; of `lengths`, which are lists, only how long they are. Only
        the row groups that hold the rows are read."""
        index = self.index(place)
        keys = set(zip(wanted["problem_id"].to_pylist(), wanted["k"].to_pylist(), strict=True))
        problems = pa.array(sorted({problem for problem, _ in keys if problem is not None}), pa.string())
        rows: list[Row] = []
        missing: list[str] = []
        for number in sorted(set(wanted["shard"].to_pylist())):
            held = wanted.filter(pc.equal(wanted["shard"], number))["group"]
            for _, table in self.groups(place, index.shards[number], missing, columns, sorted(set(held.to_pylist()))):
                found = _measured(table.filter(pc.is_in(table["problem_id"], problems)), lengths)
                rows += [dict.fromkeys(columns) | row for row in found.to_pylist()]
        chosen = [row for row in rows if (row["problem_id"], row["k"]) in keys]
        return Rows(sorted(chosen, key=lambda row: row["k"] or 0), missing)

    def _index(self, place: Place) -> Index:
        shards, missing = self.names(place, place.path("data"))
        placed = (
            _placed(table, number, group)
            for number, shard in enumerate(shards)
            for group, table in self.groups(place, shard, missing, INDEX_COLUMNS)
        )
        tables: list[pa.Table] = []
        count = 0
        beyond: list[str] = []
        for table in placed:
            count += table.num_rows
            if count > MOST_SAMPLES:
                beyond = [f"{place.repo_type} {place}: more than {MOST_SAMPLES:,} samples, too many to list"]
                break
            tables.append(table)
        table = pa.concat_tables(tables, promote_options="permissive") if tables else _empty_index()
        index = Index(table, tuple(shards), tuple(dict.fromkeys([*missing, *beyond])))
        if missing:
            raise NotNowError(index)
        return index


def _refuse_large(group: pq.RowGroupMetaData, columns: Sequence[str]) -> None:
    """Raises TooLargeError: these columns of a row group say that they take more than LARGEST_GROUP; a value of a few
    bits in the file takes up to 8 bytes in memory."""
    chunks = (group.column(number) for number in range(group.num_columns))
    sizes = (
        max(chunk.total_uncompressed_size, 8 * chunk.num_values)
        for chunk in chunks
        if chunk.path_in_schema.partition(".")[0] in columns
    )
    if sum(sizes) > LARGEST_GROUP:
        raise TooLargeError("row group")


def _typed(table: pa.Table) -> pa.Table:
    """Raises ArrowException: a column is not what the published schemas say."""
    for number, name in enumerate(table.column_names):
        if name in TYPES:
            table = table.set_column(number, name, table[name].cast(TYPES[name]))
    return table


def _measured(table: pa.Table, lengths: Sequence[str]) -> pa.Table:
    for number, name in enumerate(table.column_names):
        if name in lengths:
            table = table.set_column(number, name, pc.list_value_length(table[name]))
    return table


def _placed(table: pa.Table, shard: int, group: int) -> pa.Table:
    """The index columns of a row group, null where it lacks one, and where it is."""
    columns = {
        name: table[name] if name in table.column_names else pa.nulls(table.num_rows, TYPES[name])
        for name in INDEX_COLUMNS
    }
    at = {"shard": shard, "group": group}
    return pa.table(columns | {name: pa.array([value] * table.num_rows, pa.int32()) for name, value in at.items()})


def _empty_index() -> pa.Table:
    return pa.table({name: pa.nulls(0, TYPES.get(name, pa.int32())) for name in (*INDEX_COLUMNS, "shard", "group")})
