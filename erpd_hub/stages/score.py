"""Token log-probs of one checkpoint on one rollouts artifact: old, numerator, denominator and reference all come from
here, from one code path, so that what two of them differ by is the policies and not the arithmetic.

Shards mirror those of the rollouts, row by row. They are read, scored and written block by block, so memory does not
grow with the dataset; a shard that is there is kept, so a killed run scores at most one again.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from erpd_hub.artifacts import digest_files, payload_files, write_json
from erpd_hub.config import ScoreConfig
from erpd_hub.errors import ArtifactError
from erpd_hub.stages import StageContext, StageResult

if TYPE_CHECKING:
    import numpy as np
    from pyarrow import ChunkedArray
    from torch import Tensor

logger = logging.getLogger(__name__)

_LAYOUT = "layout.json"
"""In the work directory."""


class ScoreInfo(NamedTuple):
    """`score.json`: what two scorings must share to be compared. `signal.json` passes it on."""

    dtype: str
    logprob_temperature: float
    attn_implementation: str
    layout: str
    """How sequences lay in a batch: of `auto` what the probe on the checkpoint found exact."""
    chat_template_hash: str
    rollouts_digest: str
    """Of the rollouts artifact that was scored."""

    def to_json(self) -> str:
        return json.dumps(self._asdict(), indent=2, sort_keys=True) + "\n"


def run(config: ScoreConfig, out: Path, *, context: StageContext, rollouts: Path, checkpoint: Path) -> StageResult:
    """Write LOGPROB_SCHEMA shards and `score.json`; of several replicas each writes its shards, every n-th.

    Raises:
        ArtifactError: the rollouts hold no shards, or no token ids.
    """
    from erpd_hub.samples import shard_paths

    shards = shard_paths(rollouts)
    if not shards:
        raise ArtifactError("rollouts: expected data/train-*.parquet in it, got none")
    mine = shards[context.replica :: context.replicas]
    if pending := [shard for shard in mine if not (out / "data" / shard.name).exists()]:
        _score_shards(pending, out, config, checkpoint, context.work)
    if context.replicas > 1:
        return StageResult()
    from erpd_hub.models import chat_template_hash, load_tokenizer

    info = ScoreInfo(
        dtype=config.dtype,
        logprob_temperature=config.logprob_temperature,
        attn_implementation=config.attn_implementation,
        layout=_read_layout(context.work),
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


def _score_shards(shards: list[Path], out: Path, config: ScoreConfig, checkpoint: Path, work: Path) -> None:
    scorer = Scorer(checkpoint, config)
    _keep_layout(work, scorer.layout)
    for shard in shards:
        score_shard(scorer, shard, out / "data" / shard.name)
        logger.info("scored %s", shard.name)


def score_shard(scorer: "Scorer", shard: Path, out: Path) -> None:
    """Write the log-probs of one shard of rollouts, block by block."""
    import pyarrow as pa

    from erpd_hub.columns import ShardReader, list_column
    from erpd_hub.samples import LOGPROB_SCHEMA, write_tables

    def scored(block: pa.Table) -> pa.Table:
        values = list_column(scorer.logprobs(block["prompt_ids"], block["response_ids"]), LOGPROB_SCHEMA.field(2))
        return pa.Table.from_arrays([block["problem_id"], block["k"], values], schema=LOGPROB_SCHEMA)

    blocks = ShardReader(shard, ["problem_id", "k", "prompt_ids", "response_ids"]).blocks()
    write_tables(out, map(scored, blocks), LOGPROB_SCHEMA)


class Scorer:
    """A checkpoint ready to score: the one code path of old, numerator, denominator and reference."""

    def __init__(self, checkpoint: Path, config: ScoreConfig) -> None:
        from erpd_hub.layout import exact_layout
        from erpd_hub.logprobs import install_logprob_forward
        from erpd_hub.models import load_model

        self.config = config
        self.model = load_model(checkpoint, attn_implementation=config.attn_implementation)
        install_logprob_forward(self.model, config.dtype)
        self.layout = exact_layout(self.model, config.layout, dtype=config.dtype)

    def logprobs(self, prompt_ids: "ChunkedArray", response_ids: "ChunkedArray") -> list["np.ndarray"]:
        """float32 nats of every response token, in the order of the rows, computed in batches of like length.

        Raises:
            ArtifactError: a row without token ids.
        """
        import numpy as np

        from erpd_hub.columns import row_arrays

        prompts = [ids for ids in row_arrays(prompt_ids) if ids is not None and len(ids)]
        responses = [ids for ids in row_arrays(response_ids) if ids is not None]
        if len(prompts) < len(prompt_ids) or len(responses) < len(response_ids):
            raise ArtifactError(
                "rollouts: expected prompt and response token ids in each row; text alone is not scored"
            )
        found: list[np.ndarray] = [np.empty(0, np.float32)] * len(prompts)
        for index, values in self._in_batches(prompts, responses):
            found[index] = values
        return found

    def _in_batches(
        self, prompts: list["np.ndarray"], responses: list["np.ndarray"]
    ) -> Iterator[tuple[int, "np.ndarray"]]:
        from erpd_hub.layout import cut_batches

        chosen = [index for index, response in enumerate(responses) if len(response)]
        lengths = [len(prompts[index]) + len(responses[index]) for index in chosen]
        before: tuple[list[int], Tensor] | None = None
        for cut in cut_batches(lengths, self.config.micro_batch_tokens, self.layout):
            indices = [chosen[place] for place in cut]
            scored = self.forward([prompts[i] for i in indices], [responses[i] for i in indices])
            if before:  # fetched only now: the device computes while the next batch is laid out
                yield from _fetched(*before, responses)
            before = indices, scored
        if before:
            yield from _fetched(*before, responses)

    def forward(self, prompts: list["np.ndarray"], responses: list["np.ndarray"]) -> "Tensor":
        """(B, T) nats of one batch, on the device."""
        import numpy as np
        import torch

        from erpd_hub.logprobs import make_batch, response_logprobs

        taken, drawn = ([torch.from_numpy(ids.astype(np.int64)) for ids in part] for part in (prompts, responses))
        batch = make_batch(taken, drawn, self.model.device, layout=self.layout)
        with torch.inference_mode():
            return response_logprobs(self.model, batch, temperature=self.config.logprob_temperature).logprobs


def _fetched(indices: list[int], scored: "Tensor", responses: list["np.ndarray"]) -> Iterator[tuple[int, "np.ndarray"]]:
    values = scored.float().cpu().numpy()
    for index, row in zip(indices, values, strict=True):
        yield index, row[: len(responses[index])].copy()


def _keep_layout(work: Path, layout: str) -> None:
    """Note what the probe chose: whoever finishes the artifact may have found all shards there."""
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / _LAYOUT, json.dumps({"layout": layout}))


def _read_layout(work: Path) -> str:
    return str(json.loads((work / _LAYOUT).read_text())["layout"])


def _metrics(out: Path, rollouts: Path, temperature: float) -> dict[str, Any]:
    """Mean log-prob, and |difference| to the sampler's own where those are at the same temperature and uncut.

    For the checkpoint that sampled it is the mismatch of the two code paths; for any other, how far apart they are.
    """
    import numpy as np

    from erpd_hub.columns import ShardReader, flat_values
    from erpd_hub.samples import shard_paths
    from erpd_hub.training.data import sampled_exactly

    comparable = sampled_exactly(rollouts, temperature)
    total, tokens, difference, largest, compared = 0.0, 0, 0.0, 0.0, 0
    for shard in shard_paths(rollouts):
        sampled = ShardReader(shard, ["sampler_logprobs"])
        for block in ShardReader(out / "data" / shard.name, ["logprobs"]).blocks():
            values: np.ndarray = flat_values(block["logprobs"]).astype(np.float64)
            total, tokens = total + float(values.sum()), tokens + len(values)
            own = sampled.take(len(block))["sampler_logprobs"]
            if comparable and own.null_count < len(own):
                kept = block["logprobs"].filter(own.is_valid())
                distances = np.abs(flat_values(kept).astype(np.float64) - flat_values(own))
                difference, compared = difference + float(distances.sum()), compared + len(distances)
                largest = max(largest, float(distances.max(initial=0.0)))
    metrics: dict[str, Any] = {"mean_logprob": total / max(tokens, 1), "response_tokens": tokens}
    if compared:
        metrics |= {"sampler_difference_mean": difference / compared, "sampler_difference_max": largest}
    return metrics
