"""Leaderboard rows, computed from the samples of details artifacts: no score is taken from a record or typed in. Pure.

A row says what was measured (checkpoint, benchmark, version), the figures, and where every sample behind it is. It
holds no time, so the same details give the same bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erpd_hub.evaluation.statistics import summarise

LEADERBOARD_SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("role", pa.string()),  # base, teacher, unlearned, student, control, online
        ("checkpoint", pa.string()),  # reference as in the recipe
        ("checkpoint_repo", pa.string()),
        ("checkpoint_revision", pa.string()),
        ("step", pa.int32()),  # saved step; null where there are none
        ("benchmark", pa.string()),
        ("version", pa.int32()),  # of the benchmark
        ("selection", pa.bool_()),  # a gate or a selection of the run decided on it: in no headline mean
        ("avg", pa.float64()),  # AVG@K in [0, 1]; null without a graded sample
        ("stderr", pa.float64()),  # over problems
        ("stderr_sampling", pa.float64()),  # on these problems
        ("interval", pa.list_(pa.float64())),  # 95 %, bootstrap over problems
        ("k", pa.int32()),
        ("n", pa.int32()),  # problems
        ("coverage", pa.float64()),  # graded share of n * k
        ("mean_length", pa.float64()),  # tokens
        ("truncated", pa.float64()),  # share of samples, as the next
        ("no_answer", pa.float64()),
        ("kl_checkpoint_to_base", pa.float64()),  # nats per token by the probe; null without one
        ("entropy", pa.float64()),  # nats per token by the probe
        ("details_repo", pa.string()),
        ("details_folder", pa.string()),
        ("details_revision", pa.string()),
        ("fingerprint", pa.string()),  # of the details
    ]
)


@dataclass(frozen=True)
class DetailsRecord:
    """One details artifact: who was measured on what, where the samples are, and the samples."""

    run: str
    role: str
    checkpoint: str
    checkpoint_repo: str
    checkpoint_revision: str
    step: int | None
    benchmark: str
    version: int
    selection: bool
    details_repo: str
    details_folder: str
    details_revision: str
    fingerprint: str
    samples: Iterable[Mapping[str, Any]]
    """Rows of SAMPLE_SCHEMA."""


Checkpoint = tuple[str, str]
"""Repository and revision."""


def leaderboard_rows(
    details: Iterable[DetailsRecord], probes: Mapping[Checkpoint, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of LEADERBOARD_SCHEMA, in the order of `details`; `probes` are the metrics of probes by checkpoint."""
    return [_row(record, probes.get((record.checkpoint_repo, record.checkpoint_revision), {})) for record in details]


def leaderboard_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as one parquet file; the same rows give the same bytes."""
    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=LEADERBOARD_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def _row(record: DetailsRecord, probe: Mapping[str, Any]) -> dict[str, Any]:
    available = {**summarise(record.samples), **vars(record)}
    available |= {name: probe.get(name) for name in ("kl_checkpoint_to_base", "entropy")}
    return {name: available[name] for name in LEADERBOARD_SCHEMA.names}
