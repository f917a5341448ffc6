"""Token columns of shards as flat arrays, block by block: what scoring and signals read and write.

An Arrow list column is one buffer of values and one of offsets. It stays that here (int32 ids, float32 nats), since
Python lists of the same tokens are eight times as large and slow to make.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

BLOCK_VALUES = 1 << 22
"""Token values of a block, 16 MB of a column: large enough that batches of like length can be cut from it, and as many
tokens as a shard of rollouts has."""
_READ_ROWS = 64
"""Rows decoded at a time: at 81,920 tokens each, 20 MB."""
_READ_BUFFER = 1 << 20
"""Bytes read from a file at a time."""


class ShardReader:
    """Some columns of one shard, read forward and never held as a whole, however its row groups are cut."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        # Without a buffer size a row group's columns would be read whole: of an import it may be the whole dataset.
        self._file = pq.ParquetFile(path, buffer_size=_READ_BUFFER, pre_buffer=False)
        self.schema = pa.schema([self._file.schema_arrow.field(column) for column in columns])
        self._batches = self._file.iter_batches(batch_size=_READ_ROWS, columns=columns)
        self._rest = pa.Table.from_batches([], self.schema)

    def take(self, rows: int) -> pa.Table:
        """The next rows; fewer at the end of the shard."""
        parts, missing = [self._rest.slice(0, rows)], rows - len(self._rest)
        self._rest = self._rest.slice(rows)
        while missing > 0 and (batch := next(self._batches, None)) is not None:
            table = pa.Table.from_batches([batch]).select(self.schema.names)
            parts.append(table.slice(0, missing))
            self._rest = table.slice(missing)
            missing -= len(table)
        return pa.concat_tables(parts)

    def blocks(self, max_values: int = BLOCK_VALUES) -> Iterator[pa.Table]:
        """Tables of consecutive rows that hold about `max_values` token values each."""
        parts: list[pa.Table] = []
        values = 0
        while len(table := self.take(_READ_ROWS)):
            parts.append(table)
            values += sum(len(flat_values(column)) for column in table.columns if pa.types.is_list(column.type))
            if values >= max_values:
                yield pa.concat_tables(parts)
                parts, values = [], 0
        if parts:
            yield pa.concat_tables(parts)


def flat_values(column: pa.ChunkedArray) -> np.ndarray:
    """All values of a list column one after the other, as the array of its Arrow buffer."""
    flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks], type=column.type.value_type)
    return flat.to_numpy()


def row_arrays(column: pa.ChunkedArray) -> list[np.ndarray | None]:
    """The rows of a list column as views of one array; None where a row is null."""
    lengths = pc.list_value_length(column).to_pylist()
    ends = np.cumsum([length or 0 for length in lengths])
    flat = flat_values(column)
    return [None if length is None else flat[end - length : end] for length, end in zip(lengths, ends, strict=True)]


def list_column(rows: Sequence[np.ndarray], field: pa.Field) -> pa.ListArray:
    """A list column from one array for each row."""
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    value_type = field.type.value_type
    flat = np.concatenate([np.empty(0, value_type.to_pandas_dtype()), *rows])
    return pa.ListArray.from_arrays(offsets, pa.array(flat, value_type))


def row_lengths(column: pa.ChunkedArray) -> np.ndarray:
    """(M,) values in each row of a list column, 0 for a null."""
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy()
