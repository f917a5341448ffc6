"""The raw token signal of stage 2: numerator minus denominator on the rollouts' own tokens, with old beside them.

A pure join, shard by shard: those of log-probs mirror those of the rollouts, which is checked row by row. Mask,
whitening and clip belong to `distill`, so an ablation of those scores nothing again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from erpd_hub.artifacts import digest_files, payload_files
from erpd_hub.config import SignalConfig
from erpd_hub.errors import ArtifactError
from erpd_hub.stages import StageContext, StageResult
from erpd_hub.stages.score import ScoreInfo, check_rollouts, read_score_info

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from erpd_hub.columns import ShardReader


def run(
    config: SignalConfig,
    out: Path,
    *,
    context: StageContext,
    rollouts: Path,
    old: Path,
    numerator: Path | None = None,
    denominator: Path | None = None,
) -> StageResult:
    """Write SIGNAL_SCHEMA shards, one for each of the rollouts, and `signal.json`.

    Args:
        numerator, denominator, old: Log-probs folders made from these rollouts; None drops a term.

    Raises:
        ArtifactError: the sides were scored differently, or on other rollouts.
    """
    from erpd_hub.samples import SIGNAL_SCHEMA, shard_paths, write_tables
    from erpd_hub.signals import describe_signal

    sides = {"numerator": numerator, "denominator": denominator, "old": old}
    infos = {name: read_score_info(path) for name, path in sides.items() if path is not None}
    info = _common_score_info(infos, digest_files(payload_files(rollouts)))
    for shard in shard_paths(rollouts):
        path = out / "data" / shard.name
        if not path.exists():
            write_tables(path, _join(shard, sides), SIGNAL_SCHEMA)
    (out / "signal.json").write_text(info.to_json())
    return StageResult(describe_signal(_Tokens(out)) | {"strategy": config.strategy})


def _common_score_info(infos: dict[str, ScoreInfo], rollouts_digest: str) -> ScoreInfo:
    """How all sides were scored.

    Raises:
        ArtifactError: one was scored on other rollouts, or they differ in dtype, temperature or chat template.
    """
    for name, info in infos.items():
        check_rollouts(name, info, rollouts_digest)
    expected = infos["old"]
    for name, info in infos.items():
        for field in ScoreInfo._fields:
            if getattr(info, field) != getattr(expected, field):
                raise ArtifactError(
                    f"{name}: expected {field} {getattr(expected, field)} as in old, got {getattr(info, field)}; "
                    "score all checkpoints alike, their difference is the signal"
                )
    return expected


def _join(shard: Path, sides: dict[str, Path | None]) -> "Iterator[pa.Table]":
    """One shard of the rollouts with the same rows of each side, block by block.

    Raises:
        ArtifactError: a side's shard holds other rows, or rows of other lengths.
    """
    from erpd_hub.columns import ShardReader

    readers = {name: _open_side(name, path / "data" / shard.name) for name, path in sides.items() if path is not None}
    for samples in ShardReader(shard, ["problem_id", "k", "label", "response_ids"]).blocks():
        taken = {name: reader.take(len(samples)) for name, reader in readers.items()}
        for name, table in taken.items():
            _check_rows(f"{name}: {shard.name}", samples, table)
        yield _joined(samples, {name: table["logprobs"] for name, table in taken.items()})


def _open_side(name: str, path: Path) -> "ShardReader":
    from erpd_hub.columns import ShardReader

    if not path.is_file():
        raise ArtifactError(f"{name}: expected the shard {path.name} of the rollouts, got none; score these rollouts")
    return ShardReader(path, ["problem_id", "k", "logprobs"])


def _check_rows(where: str, samples: "pa.Table", side: "pa.Table") -> None:
    from erpd_hub.columns import row_lengths

    same_rows = samples.select(["problem_id", "k"]).equals(side.select(["problem_id", "k"]))
    if not same_rows or (row_lengths(samples["response_ids"]) != row_lengths(side["logprobs"])).any():
        raise ArtifactError(
            f"{where}: expected the samples of the rollouts, with a value for each response token, got others; score "
            "these rollouts"
        )


def _joined(samples: "pa.Table", logprobs: "dict[str, pa.ChunkedArray]") -> "pa.Table":
    """Rows of SIGNAL_SCHEMA."""
    import numpy as np
    import pyarrow as pa
    import torch

    from erpd_hub.columns import flat_values, row_lengths
    from erpd_hub.samples import SIGNAL_SCHEMA
    from erpd_hub.signals import raw_signal

    flat = {name: torch.from_numpy(flat_values(column).copy()) for name, column in logprobs.items()}
    signal = raw_signal(flat.get("numerator"), flat.get("denominator")).numpy()
    offsets = np.concatenate([[0], row_lengths(samples["response_ids"]).cumsum()]).astype(np.int32)
    columns = {
        **{name: samples[name] for name in ("problem_id", "k", "label")},
        **{name: pa.nulls(len(samples), pa.list_(pa.float32())) for name in ("numerator", "denominator")},
        **logprobs,
        "signal": pa.ListArray.from_arrays(offsets, signal),
    }
    return pa.Table.from_arrays([columns[name] for name in SIGNAL_SCHEMA.names], schema=SIGNAL_SCHEMA)


@dataclass(frozen=True)
class _Tokens:
    """The tokens of a signal folder, block by block and as often as asked for: values and their response's label."""

    folder: Path

    def __iter__(self) -> "Iterator[tuple[np.ndarray, np.ndarray]]":
        import numpy as np

        from erpd_hub.columns import ShardReader, flat_values, row_lengths
        from erpd_hub.samples import shard_paths

        for shard in shard_paths(self.folder):
            for block in ShardReader(shard, ["label", "signal"]).blocks():
                labels = block["label"].cast("float32").to_numpy()  # a null becomes NaN
                yield flat_values(block["signal"]), np.repeat(labels, row_lengths(block["signal"]))
