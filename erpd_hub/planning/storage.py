"""What artifacts take, in GB (1e9 bytes): on the Hub, and on this machine while they are made."""

from erpd_hub.config import Dtype
from erpd_hub.planning.facts import BYTES, ModelFacts
from erpd_hub.planning.memory import ADAM, GB, MASTER

ROLLOUT_BYTES = 2.3
"""A token of a rollouts shard, ids and text, zstd parquet: measured on mathematics text, SmolLM2's tokenizer. Its
log-prob comes on top."""
FLOAT_BYTES = 4.0
"""A float32 of a column of log-probs or values; they hardly compress."""
LOGPROB_COLUMNS = {"score": 1, "critic": 1, "signal": 4}
"""`signal`: numerator, denominator, old, and their difference."""


def checkpoint_storage(facts: ModelFacts, dtype: Dtype, *, pushed: int, lora_rank: int | None = None) -> float:
    """GB of the pushed steps of a training."""
    return facts.trained(lora_rank) * BYTES[dtype] * pushed / GB


def work_storage(facts: ModelFacts, dtype: Dtype, *, saved: int, lora_rank: int | None = None) -> float:
    """GB of a training's work directory: saved steps, and two resumable checkpoints while one follows the other."""
    return facts.trained(lora_rank) * (BYTES[dtype] * saved + 2 * (MASTER + ADAM)) / GB


def rollout_storage(tokens: float) -> float:
    """GB of rollouts or evaluation details, compressed."""
    return tokens * (ROLLOUT_BYTES + FLOAT_BYTES) / GB


def logprob_storage(tokens: float, stage: str) -> float:
    """GB of the columns that a stage of `LOGPROB_COLUMNS` writes."""
    return tokens * FLOAT_BYTES * LOGPROB_COLUMNS[stage] / GB
