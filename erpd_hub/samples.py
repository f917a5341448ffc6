"""The sample row: one prompt, one response, how it was drawn and what it is worth.

Rollouts and evaluation details are the same rows (AVG@K *is* a rollout on a benchmark), append-only in their columns.
Token ids are the truth; text is for people and graders and is never re-tokenised.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

Verdict = Literal["correct", "wrong", "no_answer", "truncated", "timeout", "ungradable"]
FinishReason = Literal["stop", "length", "error"]

SAMPLE_SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),  # benchmark name, or the prompts' source
        ("problem_id", pa.string()),
        ("k", pa.int32()),  # index of the sample among those of its problem
        ("seed", pa.int64()),  # sample_seed(recipe seed, benchmark, problem_id, k)
        ("prompt_ids", pa.list_(pa.int32())),
        ("response_ids", pa.list_(pa.int32())),  # stop token included
        ("sampler_logprobs", pa.list_(pa.float32())),  # nats, the sampler's own: a diagnostic only; null where absent
        ("finish_reason", pa.string()),
        ("text", pa.string()),  # the response decoded, stop token or stop string left out
        ("gold", pa.string()),
        ("extracted", pa.string()),  # the answer the grader saw; null without one
        ("verdict", pa.string()),
        ("label", pa.int8()),  # 1 correct, 0 not, null where the gold or the harness failed
        ("judge", pa.string()),  # JSON of the judge's part; null where no judge was asked
    ]
)

EXTRA_COLUMNS = pa.schema(
    [
        ("num_tokens", pa.int32()),  # response tokens as a server counts them, where it gives no ids
        ("problem_sha256", pa.string()),  # of [problem_id, problem, gold], where prompt and gold are left out
    ]
)
"""Columns that only artifacts have in which they hold something."""

LOGPROB_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("k", pa.int32()),
        ("logprobs", pa.list_(pa.float32())),  # nats, one per response token
    ]
)

VALUE_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("k", pa.int32()),
        ("values", pa.list_(pa.float32())),  # of a critic, in units of the outcome: of the state before each token
    ]
)

NOISE_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("k", pa.int32()),
        ("logprobs", pa.list_(pa.float32())),  # nats, one per response token, as in LOGPROB_SCHEMA
        ("other_layout", pa.list_(pa.float32())),  # the same, with the sequences laid out otherwise in a batch
        ("other_dtype", pa.list_(pa.float32())),  # the same, computed in the other dtype, one sequence a row
    ]
)

SIGNAL_SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("k", pa.int32()),
        ("label", pa.int8()),
        ("numerator", pa.list_(pa.float32())),  # nats; null for `none`
        ("denominator", pa.list_(pa.float32())),  # nats; null for `none`
        ("old", pa.list_(pa.float32())),  # nats, of the policy that is distilled into
        ("signal", pa.list_(pa.float32())),  # numerator - denominator: raw, neither masked nor whitened
    ]
)


class Sample(TypedDict):
    """A row of SAMPLE_SCHEMA as Python values."""

    benchmark: str
    problem_id: str
    k: int
    seed: int
    prompt_ids: list[int] | None
    response_ids: list[int] | None
    sampler_logprobs: list[float] | None
    finish_reason: FinishReason
    text: str
    gold: str
    extracted: str | None
    verdict: Verdict
    label: int | None
    judge: str | None
    num_tokens: NotRequired[int | None]


def sample_schema(extras: Iterable[str] = ()) -> pa.Schema:
    """SAMPLE_SCHEMA with the named columns of EXTRA_COLUMNS after it, in their order."""
    named = set(extras)
    return pa.schema([*SAMPLE_SCHEMA, *(column for column in EXTRA_COLUMNS if column.name in named)])


def sample_seed(recipe_seed: int, benchmark: str, problem_id: str, k: int) -> int:
    """Seed of one sample, 63 bits; the number of samples drawn for the problem is no part of it."""
    key = f"{recipe_seed}\x1f{benchmark}\x1f{problem_id}\x1f{k}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def shard_path(folder: Path, index: int) -> Path:
    """`folder/data/train-00007.parquet`: what `load_dataset` finds without being told."""
    return folder / "data" / f"train-{index:05d}.parquet"


def shard_paths(folder: Path) -> list[Path]:
    return sorted((folder / "data").glob("train-*.parquet"))


def noise_paths(folder: Path) -> list[Path]:
    """Shards of the rows that were scored again; those of rollouts without such a row are not there."""
    return sorted((folder / "noise").glob("train-*.parquet"))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write one shard whole or not at all: the final name appears only over complete bytes."""
    write_tables(path, [pa.Table.from_pylist(rows, schema=schema)], schema)


def write_tables(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write one shard whole or not at all, a row group for each table, so that none but one is in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
    temporary.replace(path)


def read_rows(folder: Path) -> Iterator[dict]:
    """All rows of an artifact folder, in order of shard and row."""
    for path in shard_paths(folder):
        yield from pq.read_table(path).to_pylist()


_HEAVY = ("prompt_ids", "response_ids", "sampler_logprobs", "text")
"""Columns that grow with the responses."""
_BATCH = 64
"""Rows of Python objects at once, of columns that may be heavy."""


def read_columns(folder: Path, *names: str) -> Iterator[dict[str, Any]]:
    """Some columns of all rows, a few rows in memory at a time."""
    for path in shard_paths(folder):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH, columns=list(names)):
                yield from batch.to_pylist()


def read_light(folder: Path) -> Iterator[dict[str, Any]]:
    """Sample rows without prompt, response and text: their tokens are counted (`length`), and not held."""
    import pyarrow.compute as pc

    for path in shard_paths(folder):
        names = pq.read_schema(path).names
        rows = pq.read_table(path, columns=[name for name in names if name not in _HEAVY]).to_pylist()
        lengths = pc.list_value_length(pq.read_table(path, columns=["response_ids"])["response_ids"]).to_pylist()
        for row, length in zip(rows, lengths, strict=True):
            yield {**row, "length": row.get("num_tokens") if length is None else length}
