"""Memory of a training and of a scoring from first principles, in GB (1e9 bytes) per GPU.

Pure arithmetic over `ModelFacts`, no torch. Every constant that is not counted is named here with its evidence.
"""

from dataclasses import dataclass, replace

from erpd_hub.accelerate_configs import Preset
from erpd_hub.config import Dtype
from erpd_hub.planning.facts import BYTES, ModelFacts

GB = 1e9

MASTER, GRADIENT, ADAM = 4, 4, 8
"""Bytes a trained parameter: fp32 master, fp32 gradient, two fp32 moments. bf16 masters would lose steps of 1e-6."""
DDP_BUCKET = 4
"""Bytes a parameter of DDP's reduction buckets, which copy the gradients."""
RESIDUAL = 4
"""Bytes an element of the residual stream, all that gradient checkpointing keeps of a layer: with fp32 masters the
embedding is fp32, and autocast narrows the matrix products alone."""
HEAD_LOGITS = 1 << 28
"""Logits that the output head holds at a time (`head.py` on a GPU)."""
HEAD_COPIES = 2
"""fp32 copies of them: logits and their gradient."""
HEAD_WEIGHT = 8
"""Bytes a weight of the head while it is at work: two bf16 parts, and a gradient in fp32."""


@dataclass(frozen=True)
class Memory:
    """GB per GPU at the peak of a stage."""

    weights: float
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    """What gradient checkpointing keeps, or all activations without it, and the working set of the layer at hand."""
    head: float = 0.0
    """Output head: a chunk of logits, its weight in parts."""
    cache: float = 0.0
    host: float = 0.0
    """GB of host memory per process, for offloaded activations; no part of the total."""
    arithmetic: str = ""

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.head + self.cache


def training_memory(
    facts: ModelFacts,
    *,
    tokens: int,
    gpus: int = 1,
    strategy: Preset = "single",
    gradient_checkpointing: bool = False,
    offload: bool = False,
    lora_rank: int | None = None,
    dtype: Dtype = "bfloat16",
) -> Memory:
    """Peak of one optimizer step.

    Args:
        tokens: Of the largest micro-batch on one GPU: the token budget, or the longest sequence where that is longer.
        gpus: Processes that share the model (`fsdp2`, `zero3`) or the batch (`ddp`).
        dtype: Of the matrix products; masters, gradients and moments are fp32 in either case.
    """
    trained = facts.trained(lora_rank)
    frozen = 0 if lora_rank is None else MASTER * facts.params  # fp32 too: the residual stream is its embedding's
    parts = gpus if strategy in ("fsdp2", "zero3") else 1
    gathered = _gathered(facts) if parts > 1 else 0.0
    buckets = DDP_BUCKET * trained if strategy == "ddp" and gpus > 1 else 0
    kept, working = _activations(facts, tokens, dtype, gradient_checkpointing)
    if dtype == "bfloat16":
        working += 2 * facts.layer  # autocast's copies of a layer's weights, which live as long as its products
    host = kept if offload else 0.0
    on_gpu = min(kept, 2 * RESIDUAL * facts.hidden * tokens) if offload else kept
    memory = Memory(
        weights=(MASTER * trained / parts + frozen / parts + gathered) / GB,
        gradients=(GRADIENT * trained / parts + buckets) / GB,
        optimizer=ADAM * trained / parts / GB,
        activations=(on_gpu + working) / GB,
        head=_head_workspace(facts, tokens) / GB,
        host=host / GB,
    )
    return replace(memory, arithmetic=_training_arithmetic(memory, trained, parts, tokens, on_gpu, working))


def _gathered(facts: ModelFacts) -> float:
    """Bytes of unsharded fp32 weights: the layer at work and the next one, the embedding and the head."""
    return MASTER * (2 * facts.layer + facts.embedding + facts.head)


def _activations(facts: ModelFacts, tokens: int, dtype: Dtype, checkpointing: bool) -> tuple[float, float]:
    """(kept from forward to backward, working set of one layer's backward) in bytes."""
    layer = _layer_bytes(facts, BYTES[dtype]) * tokens
    transient = 3 * BYTES[dtype] * facts.intermediate * tokens  # gradients of gate, up and their product
    if checkpointing:
        return float(RESIDUAL * facts.hidden * tokens * facts.layers), float(layer + transient)
    return float(layer * facts.layers), float(transient)


def _layer_bytes(facts: ModelFacts, width: int) -> int:
    """Bytes a token that a layer's backward needs; `width` is that of the products.

    Two norms keep an fp32 input and output each and a cast; rotary embedding and its norm are fp32 too.
    """
    residual = (2 * (2 * RESIDUAL + width) + 2 * width + 2 * RESIDUAL) * facts.hidden
    mlp = 4 * width * facts.intermediate
    q, kv = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    rotary = 20 + 2 * width
    softmax = rotary * (q + kv) + width * (kv + (3 if facts.gated_query else 1) * q)
    if facts.linear is None:
        return residual + mlp + softmax
    it = facts.linear
    delta = (2 * width + 8) * it.mixed + (3 * width + 8) * it.values
    return residual + mlp + max(softmax, delta)


def _head_workspace(facts: ModelFacts, tokens: int) -> int:
    return HEAD_COPIES * 4 * min(HEAD_LOGITS, facts.vocab * tokens) + HEAD_WEIGHT * facts.vocab * facts.hidden


def _training_arithmetic(memory: Memory, trained: int, parts: int, tokens: int, kept: float, working: float) -> str:
    share = f" / {parts}" if parts > 1 else ""
    host = f" (and {memory.host:.1f} GB of host memory)" if memory.host else ""
    return (
        f"weights {memory.weights:.1f} + gradients {memory.gradients:.1f} + Adam {memory.optimizer:.1f} "
        f"({trained / 1e9:.2f} B trained x {MASTER} + {GRADIENT} + {ADAM} bytes{share}) + activations "
        f"{kept / GB:.1f} kept + {working / GB:.1f} at work for {tokens:,} tokens + head {memory.head:.1f} "
        f"= {memory.total:.1f} GB{host}"
    )


def scoring_memory(facts: ModelFacts, *, tokens: int, dtype: Dtype = "bfloat16", models: int = 1) -> Memory:
    """Peak of a forward pass over `tokens`: fp32 weights, as in training, or log-ratios would not start at 0.

    Args:
        models: Held at once, each with its head; their layers work one after the other.
    """
    weights = models * MASTER * facts.params
    working = _layer_bytes(facts, BYTES[dtype]) * tokens // 2  # what a later layer no longer needs is freed
    head = models * _head_workspace(facts, tokens)
    total = (weights + working + head) / GB
    several = f" of {models} models" if models > 1 else ""
    line = (
        f"weights{several} {weights / GB:.1f} + one layer {working / GB:.1f} for {tokens:,} tokens + head "
        f"{head / GB:.1f} = {total:.1f} GB"
    )
    return Memory(weights / GB, activations=working / GB, head=head / GB, arithmetic=line)
