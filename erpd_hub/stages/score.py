"""Token log-probs of one checkpoint on one rollouts artifact: old, numerator, denominator and reference all come from
here, from one code path, so that what two of them differ by is the policies and not the arithmetic.

Shards mirror those of the rollouts, row by row.
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from erpd_hub.artifacts import digest_files, payload_files
from erpd_hub.config import ScoreConfig
from erpd_hub.errors import ArtifactError
from erpd_hub.stages import StageContext, StageResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


class ScoreInfo(NamedTuple):
    """`score.json`: what two scorings must share to be compared. `signal.json` passes it on."""

    dtype: str
    logprob_temperature: float
    chat_template_hash: str
    rollouts_digest: str
    """Of the rollouts artifact that was scored."""

    def to_json(self) -> str:
        return json.dumps(self._asdict(), indent=2, sort_keys=True) + "\n"


def run(config: ScoreConfig, out: Path, *, context: StageContext, rollouts: Path, checkpoint: Path) -> StageResult:
    """Write LOGPROB_SCHEMA shards and `score.json`.

    Raises:
        ArtifactError: the rollouts hold no token ids.
    """
    import pyarrow.parquet as pq

    from erpd_hub.models import chat_template_hash, load_model, load_tokenizer
    from erpd_hub.samples import LOGPROB_SCHEMA, shard_paths, write_rows

    model = None
    for shard in shard_paths(rollouts):
        path = out / "data" / shard.name
        if path.exists():
            continue
        model = model or load_model(checkpoint, config.dtype)
        rows = pq.read_table(shard, columns=["problem_id", "k", "prompt_ids", "response_ids"]).to_pylist()
        write_rows(path, _score(model, rows, config), LOGPROB_SCHEMA)
        logger.info("scored %s", shard.name)
    info = ScoreInfo(
        dtype=config.dtype,
        logprob_temperature=config.logprob_temperature,
        chat_template_hash=chat_template_hash(load_tokenizer(checkpoint)),
        rollouts_digest=digest_files(payload_files(rollouts)),
    )
    (out / "score.json").write_text(info.to_json())
    return StageResult(_metrics(out, rollouts, config.logprob_temperature))


def read_score_info(folder: Path, made_by: Literal["score", "signal"] = "score") -> ScoreInfo:
    """`score.json` of a log-probs folder, or `signal.json` of a signal.

    Raises:
        ArtifactError: the folder has none, or one with other fields.
    """
    path = folder / f"{made_by}.json"
    if not path.is_file():
        raise ArtifactError(f"{folder}: expected {path.name} in it, got none; make it with `{made_by}`")
    fields = json.loads(path.read_text())
    if fields.keys() != set(ScoreInfo._fields):
        raise ArtifactError(
            f"{path}: expected the fields {sorted(ScoreInfo._fields)}, got {sorted(fields)}; make it again with "
            f"`{made_by}`"
        )
    return ScoreInfo(**fields)


def check_rollouts(role: str, info: ScoreInfo, rollouts_digest: str) -> None:
    """Refuse log-probs of other samples: joined row by row, they would crash nothing.

    Raises:
        ArtifactError: `info` is of other rollouts.
    """
    if info.rollouts_digest != rollouts_digest:
        raise ArtifactError(
            f"{role}: expected log-probs of the rollouts {rollouts_digest[:12]}, got some that were scored on other "
            f"rollouts, {info.rollouts_digest[:12]}; score these rollouts"
        )


def _score(model: "PreTrainedModel", rows: list[dict[str, Any]], config: ScoreConfig) -> list[dict[str, Any]]:
    """The rows' log-probs in their order, computed in micro-batches of like length."""
    import torch

    from erpd_hub.logprobs import make_batch, response_logprobs
    from erpd_hub.training.data import token_budget_batches

    if any(not row["prompt_ids"] or row["response_ids"] is None for row in rows):
        raise ArtifactError("rollouts: expected prompt and response token ids in each row; text alone is not scored")
    logprobs: list[list[float]] = [[] for _ in rows]
    chosen = [index for index, row in enumerate(rows) if row["response_ids"]]
    lengths = [len(rows[index]["prompt_ids"]) + len(rows[index]["response_ids"]) for index in chosen]
    for batch in token_budget_batches(lengths, config.micro_batch_tokens):
        indices = [chosen[place] for place in batch]
        tokens = make_batch(
            [rows[i]["prompt_ids"] for i in indices], [rows[i]["response_ids"] for i in indices], model.device
        )
        with torch.inference_mode():
            scored = response_logprobs(model, tokens, temperature=config.logprob_temperature).logprobs.tolist()
        for index, values in zip(indices, scored, strict=True):
            logprobs[index] = values[: len(rows[index]["response_ids"])]
    return [
        {"problem_id": row["problem_id"], "k": row["k"], "logprobs": values}
        for row, values in zip(rows, logprobs, strict=True)
    ]


def _metrics(out: Path, rollouts: Path, temperature: float) -> dict[str, Any]:
    """Mean log-prob, and |difference| to the sampler's own where those are at the same temperature and uncut.

    For the checkpoint that sampled it is the mismatch of the two code paths; for any other, how far apart they are.
    """
    import numpy as np

    from erpd_hub.samples import read_rows
    from erpd_hub.training.data import sampled_exactly

    comparable = sampled_exactly(rollouts, temperature)
    total, tokens, differences = 0.0, 0, []
    for scored, sample in zip(read_rows(out), read_rows(rollouts), strict=True):
        values = np.asarray(scored["logprobs"], dtype=np.float64)
        total, tokens = total + values.sum(), tokens + len(values)
        if comparable and sample["sampler_logprobs"] is not None:
            differences.append(np.abs(values - np.asarray(sample["sampler_logprobs"])))
    metrics: dict[str, Any] = {"mean_logprob": float(total) / max(tokens, 1), "response_tokens": tokens}
    if differences:
        joined = np.concatenate(differences)
        metrics |= {"sampler_difference_mean": float(joined.mean()), "sampler_difference_max": float(joined.max())}
    return metrics
