"""The raw token signal of stage 2: numerator minus denominator on the rollouts' own tokens, with old beside them.

A pure join. Mask, whitening and clip belong to `distill`, so an ablation of those scores nothing again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erpd_hub.artifacts import digest_files, payload_files
from erpd_hub.config import SignalConfig
from erpd_hub.errors import ArtifactError
from erpd_hub.stages import StageContext, StageResult
from erpd_hub.stages.score import ScoreInfo, check_rollouts, read_score_info

if TYPE_CHECKING:
    from torch import Tensor

    from erpd_hub.training.data import SampleKey


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
    import pyarrow.parquet as pq
    import torch

    from erpd_hub.samples import SIGNAL_SCHEMA, shard_paths, write_rows
    from erpd_hub.signals import describe_signal
    from erpd_hub.training.data import read_columns

    sides = {"numerator": numerator, "denominator": denominator, "old": old}
    infos = {name: read_score_info(path) for name, path in sides.items() if path is not None}
    info = _common_score_info(infos, digest_files(payload_files(rollouts)))
    columns = {
        name: None if path is None else read_columns(path, "logprobs")["logprobs"] for name, path in sides.items()
    }
    values, labels = [], []
    for shard in shard_paths(rollouts):
        samples = pq.read_table(shard, columns=["problem_id", "k", "label", "response_ids"]).to_pylist()
        rows = list(_join(samples, columns))
        write_rows(out / "data" / shard.name, rows, SIGNAL_SCHEMA)
        for row in rows:
            values += row["signal"]
            labels += [float("nan") if row["label"] is None else float(row["label"])] * len(row["signal"])
    (out / "signal.json").write_text(info.to_json())
    return StageResult(describe_signal(torch.tensor(values), torch.tensor(labels)) | {"strategy": config.strategy})


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


def _join(
    samples: list[dict[str, Any]], columns: dict[str, "dict[SampleKey, Tensor | None] | None"]
) -> Iterator[dict[str, Any]]:
    from erpd_hub.signals import raw_signal
    from erpd_hub.training.data import matching

    for sample in samples:
        key, length = (sample["problem_id"], sample["k"]), len(sample["response_ids"])
        sides = {
            name: None if values is None else matching(values, key, length, name) for name, values in columns.items()
        }
        signal = raw_signal(sides["numerator"], sides["denominator"])
        yield {
            "problem_id": sample["problem_id"],
            "k": sample["k"],
            "label": sample["label"],
            **{name: None if side is None else side.tolist() for name, side in sides.items()},
            "signal": signal.tolist(),
        }
