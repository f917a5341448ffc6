"""Token log-probs of one checkpoint on one rollouts artifact: old, numerator, denominator and reference all come from
here, from one code path, so that what two of them differ by is the policies and not the arithmetic.

Shards mirror those of the rollouts, row by row. They are read, scored and written block by block, so memory does not
grow with the dataset; a shard that is there is kept, so a killed run scores at most one again. A few rows are scored
twice more, in another layout and in the other dtype: `noise/` holds them, for the noise floor of signals.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from erpd_hub.artifacts import digest_files, payload_files, write_json
from erpd_hub.config import ScoreConfig
from erpd_hub.errors import ArtifactError
from erpd_hub.stage_context import StageContext, StageResult

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

_LAYOUT = "layout.json"
"""In the work directory."""
FORMATS = {"score": "erpd-hub/logprobs/v1", "signal": "erpd-hub/signal/v1"}
"""What the columns of a folder mean, in its `score.json` or `signal.json`: raised when a reader must know of a change.
"""


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


def run(config: ScoreConfig, out: Path, *, context: StageContext, rollouts: Path, checkpoint: Path) -> StageResult:
    """Write LOGPROB_SCHEMA and NOISE_SCHEMA shards and `score.json`; of several replicas each every n-th shard.

    Raises:
        ArtifactError: the rollouts hold no shards, or no token ids.
    """
    from erpd_hub.samples import shard_paths

    shards = shard_paths(rollouts)
    if not shards:
        raise ArtifactError("rollouts: expected data/train-*.parquet in it, got none")
    _score_shards(shards, context.replica, context.replicas, out, config, checkpoint, context.work)
    if context.replicas > 1:
        return StageResult()
    from erpd_hub.models import chat_template_hash, load_tokenizer

    layouts = json.loads((context.work / _LAYOUT).read_text())
    info = ScoreInfo(
        dtype=config.dtype,
        logprob_temperature=config.logprob_temperature,
        attn_implementation=config.attn_implementation,
        layout=layouts["layout"],
        chat_template_hash=chat_template_hash(load_tokenizer(checkpoint)),
        rollouts_digest=digest_files(payload_files(rollouts)),
    )
    write_score_info(out, "score", info, {"other_layout": layouts["other_layout"]})
    warning = _temperature_warning(config, rollouts)
    found = _metrics(out, rollouts, config.logprob_temperature) | _noise_metrics(out)
    return StageResult(found | ({"warning": warning} if warning else {}))


def write_score_info(folder: Path, made_by: Literal["score", "signal"], info: ScoreInfo, more: Mapping) -> None:
    """Write `score.json` or `signal.json`: the format, how it was scored, and what else is to be known."""
    content = {"format": FORMATS[made_by], **info._asdict(), **more}
    (folder / f"{made_by}.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_score_info(folder: Path, made_by: Literal["score", "signal"] = "score") -> ScoreInfo:
    """`score.json` of a log-probs folder, or `signal.json` of a signal.

    Raises:
        ArtifactError: the folder has none, or one of another format.
    """
    path = folder / f"{made_by}.json"
    if not path.is_file():
        raise ArtifactError(f"{folder.name}: expected {path.name} in it, got none; make it with `{made_by}`")
    content = json.loads(path.read_text())
    if content.get("format") != FORMATS[made_by]:
        raise ArtifactError(
            f"{folder.name}/{path.name}: expected the format {FORMATS[made_by]}, got {content.get('format')!r}; "
            f"make it again with `{made_by}`"
        )
    if not content.keys() >= set(ScoreInfo._fields):
        raise ArtifactError(
            f"{folder.name}/{path.name}: expected the fields {sorted(ScoreInfo._fields)}, got {sorted(content)}; "
            f"make it again with `{made_by}`"
        )
    return ScoreInfo(**{name: content[name] for name in ScoreInfo._fields})


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


def _score_shards(
    shards: list[Path], replica: int, replicas: int, out: Path, config: ScoreConfig, checkpoint: Path, work: Path
) -> None:
    """Score what is missing of this replica's shards; the model is loaded only if something is."""
    from erpd_hub.scoring import Scorer, noise_rows_by_shard, rescore_rows, score_shard

    rows = noise_rows_by_shard(shards, config.noise_samples)
    mine = shards[replica::replicas]
    unscored = [shard for shard in mine if not (out / "data" / shard.name).exists()]
    noiseless = [shard for shard in mine if shard in rows and not (out / "noise" / shard.name).exists()]
    if not unscored and not noiseless:
        return
    scorer = Scorer(checkpoint, config)
    _keep_layouts(work, scorer.layout, scorer.other_layout if rows else None)
    for shard in mine:
        scored = out / "data" / shard.name
        if shard in unscored:
            score_shard(scorer, shard, scored)
            logger.info("scored %s", shard.name)
        if shard in noiseless:
            rescore_rows(scorer, shard, scored, rows[shard], out / "noise" / shard.name)


def _keep_layouts(work: Path, layout: str, other: str | None) -> None:
    """Note what the probe chose: whoever finishes the artifact may have found all shards there."""
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / _LAYOUT, json.dumps({"layout": layout, "other_layout": other}))


def _noise_metrics(out: Path) -> dict[str, Any]:
    """How far another layout and the other dtype move this checkpoint's log-probs; nothing where it was not measured.

    A log-prob has one sign, so none is reported to flip.
    """
    from erpd_hub.columns import ShardReader, flat_values
    from erpd_hub.noise import Noise
    from erpd_hub.samples import noise_paths

    found = {name: Noise() for name in ("other_layout", "other_dtype")}
    for path in noise_paths(out):
        for block in ShardReader(path, ["logprobs", *found]).blocks():
            for name, noise in found.items():
                noise.add(flat_values(block["logprobs"]), flat_values(block[name]))
    return {
        f"noise_{name.removeprefix('other_')}": {k: v for k, v in noise.summary().items() if k != "sign_flips"}
        for name, noise in found.items()
        if noise.tokens
    }


def _temperature_warning(config: ScoreConfig, rollouts: Path) -> str | None:
    """That the responses were drawn at another temperature, where their `rollout.json` says at which."""
    from erpd_hub.training.data import decoding_of

    decoding = decoding_of(rollouts)
    warning = config.other_temperature(decoding["temperature"]) if decoding else None
    if warning:
        logger.warning("%s", warning)
    return warning


def _metrics(out: Path, rollouts: Path, temperature: float) -> dict[str, Any]:
    """Mean log-prob of all tokens and of those of right and of wrong responses (Fig. 9's gap lies between these), how
    well the probabilities fit the outcome (what MSE trains, Fig. 5), and |difference| to the sampler's own where those
    are at the same temperature and uncut.

    For the checkpoint that sampled it is the mismatch of the two code paths; for any other, how far apart they are.
    """
    import numpy as np
    import pyarrow.compute as pc

    from erpd_hub.columns import ShardReader, flat_values, row_lengths
    from erpd_hub.samples import shard_paths
    from erpd_hub.training.data import sampled_exactly
    from erpd_hub.value_statistics import OutcomeFit

    comparable = sampled_exactly(rollouts, temperature)
    every, positive, negative, distance = (_Mean() for _ in range(4))
    fit = OutcomeFit()
    largest = 0.0
    for shard in shard_paths(rollouts):
        sampled = ShardReader(shard, ["sampler_logprobs", "label"])
        for block in ShardReader(out / "data" / shard.name, ["logprobs"]).blocks():
            beside = sampled.take(len(block))
            logprobs = flat_values(block["logprobs"])
            every.add(logprobs)
            labels = beside["label"].cast("float32").to_numpy()  # a null becomes NaN
            fit.add(np.exp(logprobs.astype(np.float64)), row_lengths(block["logprobs"]), labels)
            for mean, label in ((positive, 1), (negative, 0)):
                mean.add(flat_values(block["logprobs"].filter(pc.equal(beside["label"], label))))
            own = beside["sampler_logprobs"]
            if comparable and own.null_count < len(own):
                kept = block["logprobs"].filter(own.is_valid())
                distances = np.abs(flat_values(kept).astype(np.float64) - flat_values(own))
                distance.add(distances)
                largest = max(largest, float(distances.max(initial=0.0)))
    metrics: dict[str, Any] = {"mean_logprob": every.value, "response_tokens": every.count}
    metrics |= {"logprob_positive": positive.value} if positive.count else {}
    metrics |= {"logprob_negative": negative.value} if negative.count else {}
    fitted = {"explained_variance": fit.explained_variance(), "mean_squared_error": fit.mean_squared_error()}
    metrics |= {name: value for name, value in fitted.items() if value is not None}
    if distance.count:
        metrics |= {"sampler_difference_mean": distance.value, "sampler_difference_max": largest}
    return metrics


class _Mean:
    """A mean of values that come in blocks, summed in fp64."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: "np.ndarray") -> None:
        self.total, self.count = self.total + float(values.sum(dtype="float64")), self.count + len(values)

    @property
    def value(self) -> float:
        """0 of no values."""
        return self.total / max(self.count, 1)
