"""The raw token signal of stage 2: numerator minus denominator on the rollouts' own tokens, with old beside them.

A pure join, shard by shard: those of log-probs mirror those of the rollouts, which is checked row by row. The rows that
were scored again are joined in the same way, which gives the noise floor. Mask, whitening and clip belong to `distill`,
so an ablation of those scores nothing again.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erpd_hub.artifacts import digest_files, payload_files
from erpd_hub.config import SignalConfig
from erpd_hub.errors import ArtifactError, StageError
from erpd_hub.stage_context import StageContext, StageResult
from erpd_hub.stages.score import ScoreInfo, check_rollouts, read_score_info, write_score_info

if TYPE_CHECKING:
    import pyarrow as pa

    from erpd_hub.columns import ShardReader
    from erpd_hub.credit import Credited
    from erpd_hub.noise import Scored
    from erpd_hub.signal_statistics import SignalBlock

logger = logging.getLogger(__name__)


def run(
    config: SignalConfig,
    out: Path,
    *,
    context: StageContext,
    rollouts: Path,
    old: Path,
    numerator: Path | None = None,
    denominator: Path | None = None,
    gate: Path | None = None,
) -> StageResult:
    """Write SIGNAL_SCHEMA shards, one for each of the rollouts, and `signal.json`.

    Args:
        numerator, denominator, old: Log-probs folders made from these rollouts; None drops a term.
        gate: What decided on this strategy, with its reason.

    Raises:
        ArtifactError: the sides were scored differently, or on other rollouts.
        StageError: the signal is no more than noise, and `on_noise` is `refuse`.
    """
    from erpd_hub.credit import credit
    from erpd_hub.samples import SIGNAL_SCHEMA, shard_paths, write_tables
    from erpd_hub.signal_statistics import describe_signal

    sides = {"numerator": numerator, "denominator": denominator, "old": old}
    infos = {name: read_score_info(path) for name, path in sides.items() if path is not None}
    info = _common_score_info(infos, digest_files(payload_files(rollouts)))
    for shard in shard_paths(rollouts):
        path = out / "data" / shard.name
        if not path.exists():
            write_tables(path, _join(shard, sides), SIGNAL_SCHEMA)
    metrics = describe_signal(_Blocks(out)) | credit(_responses(out, rollouts)) | {"strategy": config.strategy}
    if gate is not None:
        metrics["strategy_reason"] = json.loads((gate / "gate.json").read_text())["reason"]
    compared = {name: side for name in _RAW if (side := sides[name]) is not None}
    noise = _noise_metrics(compared, info, metrics["std"])
    warning = _judged(config, info, metrics["std"], noise)
    write_score_info(out, "signal", info, {"noise": noise or None})
    return StageResult(metrics | noise | ({"warning": warning} if warning else {}))


_RAW = ("numerator", "denominator")
"""The sides that a signal is the difference of."""
_REMEDY = {"layout": " (scoring.layout: single serves every model)"}


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
                    f"score all checkpoints alike, their difference is the signal{_REMEDY.get(field, '')}"
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
class _Blocks:
    """The responses of a signal folder, block by block and as often as asked for."""

    folder: Path

    def __iter__(self) -> "Iterator[SignalBlock]":
        from erpd_hub.columns import ShardReader, flat_values, row_lengths
        from erpd_hub.samples import shard_paths
        from erpd_hub.signal_statistics import SignalBlock

        for shard in shard_paths(self.folder):
            for block in ShardReader(shard, ["problem_id", "k", "label", "signal"]).blocks():
                labels = block["label"].cast("float32").to_numpy()  # a null becomes NaN
                ids, ks = block["problem_id"].to_pylist(), block["k"].to_pylist()
                yield SignalBlock(flat_values(block["signal"]), row_lengths(block["signal"]), labels, ids, ks)


def _responses(folder: Path, rollouts: Path) -> "Iterator[Credited]":
    """The responses of a signal folder with their tokens; whoever takes them holds a block while he has one of it."""
    from erpd_hub.columns import ShardReader, row_arrays
    from erpd_hub.credit import Credited
    from erpd_hub.samples import shard_paths

    for shard in shard_paths(folder):
        tokens = ShardReader(rollouts / "data" / shard.name, ["response_ids"])
        for block in ShardReader(shard, ["problem_id", "label", "signal", "old"]).blocks():
            labels = block["label"].cast("float32").to_numpy()
            columns = tokens.take(len(block))["response_ids"], block["signal"], block["old"]
            yield from map(Credited, block["problem_id"].to_pylist(), labels, *map(row_arrays, columns))


# ------------------------------------------------------------------------------------------------- noise


def _noise_metrics(sides: Mapping[str, Path], info: ScoreInfo, deviation: float) -> dict[str, Any]:
    """Noise of the signal and its floor, over the rows that were scored again for every side; nothing without any."""
    from erpd_hub.noise import measure
    from erpd_hub.noise_floor import signal_to_noise

    noise = measure(_rescored(sides))
    if not noise.layout.tokens:
        return {}
    floor = noise.floor(info.dtype)
    return {
        "noise_floor": floor,
        "signal_to_noise": signal_to_noise(deviation, floor),
        "noise_layout": noise.layout.summary(),
        "noise_dtype": noise.dtype.summary(),
    }


def _rescored(sides: Mapping[str, Path]) -> "Iterator[dict[str, Scored]]":
    """The rows that were scored again, shard by shard, of each side those that the others have too."""
    import pyarrow.parquet as pq

    from erpd_hub.columns import flat_values
    from erpd_hub.noise import Scored
    from erpd_hub.samples import noise_paths

    for path in noise_paths(next(iter(sides.values()))):
        paths = {name: side / "noise" / path.name for name, side in sides.items()}
        if not all(path.is_file() for path in paths.values()):
            continue
        tables = {name: pq.read_table(path) for name, path in paths.items()}
        keys = {name: _keys(table) for name, table in tables.items()}
        common = set.intersection(*map(set, keys.values()))
        kept = {name: table.filter([key in common for key in keys[name]]) for name, table in tables.items()}
        yield {name: Scored(*(flat_values(table[column]) for column in Scored._fields)) for name, table in kept.items()}


def _keys(table: "pa.Table") -> list[tuple[str, int]]:
    return list(zip(table["problem_id"].to_pylist(), table["k"].to_pylist(), strict=True))


def _judged(config: SignalConfig, info: ScoreInfo, deviation: float, noise: Mapping[str, Any]) -> str | None:
    """A warning about a signal that does not stand above its noise floor.

    Raises:
        StageError: that is to be refused, or there is no floor to hold it against.
    """
    from erpd_hub.noise_floor import drowned, least_floor

    if config.on_noise == "ignore":
        return None
    if not noise:
        if config.on_noise == "refuse":
            raise StageError(
                "noise: expected responses that were scored again for numerator and denominator, got none; set "
                "scoring.noise_samples above 0, or on_noise: warn"
            )
        return None
    floor = noise["noise_floor"]
    if not drowned(deviation, floor, config.noise_ratio):
        return None
    remedy = "score in float32 (scoring.dtype), or take" if info.dtype == "bfloat16" else "take"
    message = (
        f"signal: expected a standard deviation of at least {config.noise_ratio:g} times the noise floor of its "
        f"scoring, {least_floor(floor):.3g} nats, got {deviation:.3g}; {remedy} checkpoints that are further apart"
    )
    if config.on_noise == "refuse":
        raise StageError(f"{message} (or set on_noise: warn)")
    logger.warning("%s", message)
    return message
