"""Memory, time and storage of the stages from first principles: what `plan` prints and what refuses a training early.

Pure arithmetic over `ModelFacts`, no torch. Every constant that is not counted is named here with its evidence;
`Assumptions` holds those a user may override, and measured rates of an earlier run take the place of the time model.
Memory is in GB (1e9 bytes) per GPU, time in seconds of the whole machine.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from erpd_hub.errors import StageError
from erpd_hub.planning.devices import Device
from erpd_hub.planning.facts import BYTES, ModelFacts

Strategy = Literal["single", "ddp", "fsdp2", "zero3"]
Engine = Literal["transformers", "vllm", "server"]
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
class Assumptions:
    """What no shape tells. Every one of them is printed with a plan, and may be overridden."""

    training_mfu: float = 0.40
    """Model FLOP/s over the dense bf16 peak in a training step; 0.40 is the aim of `bench step`."""
    scoring_mfu: float = 0.45
    """The same for a forward pass: no recomputation, no gradient exchange [I]."""
    decode_bandwidth: float = 0.70
    """Share of the memory bandwidth that decoding attains [I]."""
    decode_overhead: float = 0.004
    """Seconds a decode step spends on what is neither weights nor cache (launches, sampling) [I]."""
    engine_memory: float = 0.90
    """Of the GPU, for a sampling engine (`gpu_memory_utilization`)."""
    engine_reserve: float = 4.0
    """GB of it for activations and CUDA graphs [I]."""
    max_sequences: int = 1024
    """Sequences that an engine decodes together at most (vLLM on an H100-class GPU)."""
    length_spread: float = 0.7
    """Standard deviation of a response's length over its mean [I]; long ones weigh more in cache and attention."""
    prompt_tokens: int = 200
    """A contest problem in a chat template [I]."""
    start_seconds: float = 120.0
    """Of a stage on a GPU: loading weights, compiling graphs, writing, pushing [I]."""


DEFAULTS = Assumptions()


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


# ------------------------------------------------------------------------------------------------ memory


def training_memory(
    facts: ModelFacts,
    *,
    tokens: int,
    gpus: int = 1,
    strategy: Strategy = "single",
    gradient_checkpointing: bool = False,
    offload: bool = False,
    lora_rank: int | None = None,
    dtype: str = "bfloat16",
    context_parallel: int = 1,
) -> Memory:
    """Peak of one optimizer step.

    Args:
        tokens: Of the largest micro-batch on one GPU: the token budget, or the longest sequence where that is longer.
        gpus: Processes that share the model (`fsdp2`, `zero3`) or the batch (`ddp`).
        dtype: Of the matrix products; masters, gradients and moments are fp32 in either case.
    """
    trained = facts.params if lora_rank is None else facts.lora_params_per_rank * lora_rank
    frozen = (
        0.0 if lora_rank is None else float(MASTER * facts.params)
    )  # fp32 too: the residual stream is its embedding's
    parts = gpus if strategy in ("fsdp2", "zero3") else 1
    gathered = _gathered(facts) if parts > 1 else 0.0
    buckets = DDP_BUCKET * trained if strategy == "ddp" and gpus > 1 else 0
    here = math.ceil(tokens / context_parallel)
    kept, working = _activations(facts, here, dtype, gradient_checkpointing)
    if dtype == "bfloat16":
        working += 2 * facts.layer  # autocast's copies of a layer's weights, which live as long as its products
    host = kept if offload else 0.0
    on_gpu = min(kept, 2 * RESIDUAL * facts.hidden * here) if offload else kept
    memory = Memory(
        weights=(MASTER * trained / parts + frozen / parts + gathered) / GB,
        gradients=(GRADIENT * trained / parts + buckets) / GB,
        optimizer=ADAM * trained / parts / GB,
        activations=(on_gpu + working) / GB,
        head=_head_workspace(facts, here) / GB,
        host=host / GB,
    )
    return replace(memory, arithmetic=_training_arithmetic(memory, trained, parts, here, on_gpu, working))


def _gathered(facts: ModelFacts) -> float:
    """Bytes of unsharded fp32 weights: the layer at work and the next one, the embedding and the head."""
    return MASTER * (2 * facts.layer + facts.embedding + facts.head)


def _activations(facts: ModelFacts, tokens: int, dtype: str, checkpointing: bool) -> tuple[float, float]:
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


def scoring_memory(facts: ModelFacts, *, tokens: int, dtype: str = "bfloat16", models: int = 1) -> Memory:
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


class Comparing(NamedTuple):
    """How a policy is compared with others on its own samples."""

    together: bool
    """Two models at once, which the exact KL takes; else one after the other."""
    memory: Memory


def comparing_memory(facts: ModelFacts, available: float, *, tokens: int, dtype: str = "bfloat16") -> Comparing:
    """What a probe holds when it has drawn its samples: two models where they fit, else one.

    Args:
        available: GB a process may use.
    """
    both = scoring_memory(facts, tokens=tokens, dtype=dtype, models=2)
    if both.total <= available:
        return Comparing(True, both)
    return Comparing(False, scoring_memory(facts, tokens=tokens, dtype=dtype))


def require_comparable(where: str, facts: ModelFacts, available: float, *, tokens: int, dtype: str) -> Comparing:
    """`comparing_memory`, if even one model fits.

    Raises:
        StageError: it does not; the message has the arithmetic.
    """
    found = comparing_memory(facts, available, tokens=tokens, dtype=dtype)
    if found.memory.total > available:
        raise StageError(
            f"{where}: expected at most {available:.1f} GB, got {found.memory.arithmetic}; set a smaller "
            "micro_batch_tokens or max_new_tokens, or use a GPU with more memory"
        )
    return found


def require_fit(where: str, facts: ModelFacts, available: float, **layout: Any) -> Memory:
    """The training's memory, if it fits.

    Args:
        available: GB a process may use.
        layout: As for `training_memory`.

    Raises:
        StageError: it does not; the message has the arithmetic and the first change that would help.
    """
    memory = training_memory(facts, **layout)
    if memory.total > available:
        raise StageError(
            f"{where}: expected at most {available:.1f} GB a GPU, got {memory.arithmetic}; "
            f"{training_remedy(facts, available, **layout)}"
        )
    return memory


def training_remedy(facts: ModelFacts, available: float, **layout: Any) -> str:
    """The least change under which the training fits, in the words of a recipe."""
    gpus = layout.get("gpus", 1)
    changes: list[tuple[str, dict[str, Any]]] = [
        ("gradient_checkpointing=true", {"gradient_checkpointing": True}),
        *([("parallel=fsdp2", {"strategy": "fsdp2"})] if gpus > 1 else []),
        ("activation_offload=true", {"gradient_checkpointing": True, "offload": True}),
    ]
    tried: dict[str, Any] = dict(layout)
    said: list[str] = []
    for words, change in changes:
        if all(tried.get(name) == value for name, value in change.items()):
            continue
        tried |= change
        said.append(words)
        if training_memory(facts, **tried).total <= available:
            return f"set {' '.join(said)}"
    for more in (2, 4, 8, 16, 32, 64):
        if more > gpus and training_memory(facts, **tried | {"gpus": more, "strategy": "fsdp2"}).total <= available:
            return f"set {' '.join([*said, 'parallel=fsdp2'])} on {more} GPUs" if "parallel=fsdp2" not in said else (
                f"set {' '.join(said)} on {more} GPUs")  # fmt: skip
    if training_memory(facts, **tried | {"lora_rank": 16}).total <= available:
        return f"set {' '.join([*said, 'lora.r=16'])}"
    return "use shorter responses, or GPUs with more memory"


# -------------------------------------------------------------------------------------------------- time


def weighted_length(mean: float, spread: float = DEFAULTS.length_spread, limit: float | None = None) -> float:
    """Length of the response that a mean token stands in: E[L^2] / E[L], at most `limit`."""
    length = mean * (1 + spread**2)
    return min(length, limit) if limit is not None else length


def training_flops(facts: ModelFacts, *, tokens: float, length: float) -> float:
    """Of forward and backward (three forwards), recomputation not counted: what MFU is the share of."""
    return 3 * facts.forward_flops(tokens, length)


def training_time(
    facts: ModelFacts, device: Device, *, tokens: float, length: float, gpus: int, assume: Assumptions = DEFAULTS
) -> float:
    rate = device.tflops * 1e12 * assume.training_mfu * gpus
    return training_flops(facts, tokens=tokens, length=length) / rate


def scoring_time(
    facts: ModelFacts, device: Device, *, tokens: float, length: float, gpus: int, assume: Assumptions = DEFAULTS
) -> float:
    return facts.forward_flops(tokens, length) / (device.tflops * 1e12 * assume.scoring_mfu * gpus)


@dataclass(frozen=True)
class Sampling:
    """How an engine gets through its requests."""

    seconds: float
    concurrency: int
    """Sequences decoded together on one GPU."""
    tokens_per_second: float
    """Of one GPU in steady state."""
    memory: Memory


def sampling_time(
    facts: ModelFacts,
    device: Device,
    *,
    samples: int,
    mean_tokens: float,
    longest: int,
    gpus: int,
    engine: Engine = "vllm",
    batch_tokens: int | None = None,
    assume: Assumptions = DEFAULTS,
) -> Sampling:
    """Decoding limited by memory bandwidth: each step reads the weights once and every resident cache.

    A request keeps on average half of the (length-weighted) final length in the cache. At the end the longest
    response runs almost alone.

    Args:
        samples: Of all GPUs.
        batch_tokens: Of the transformers engine: tokens of the samples generated together.
    """
    weights = 2.0 * (facts.params - facts.head)
    room = device.memory * assume.engine_memory * GB - weights - assume.engine_reserve * GB
    resident = weighted_length(mean_tokens, assume.length_spread, longest) / 2 + assume.prompt_tokens
    each = resident * facts.cache_bytes_per_token + facts.state_bytes
    ceiling = assume.max_sequences
    if engine == "transformers":
        ceiling = max(1, (batch_tokens or longest) // (longest + assume.prompt_tokens))
    concurrency = max(1, min(ceiling, math.ceil(samples / gpus), int(max(room, each) // each)))
    overhead = assume.decode_overhead if engine != "transformers" else 0.005 + 0.001 * facts.layers
    bandwidth = device.bandwidth * GB * assume.decode_bandwidth
    flops = 2 * (facts.body + facts.embedding) / (device.tflops * 1e12 * assume.scoring_mfu)
    step = max((weights + concurrency * each) / bandwidth, concurrency * flops) + overhead
    alone = (weights + each) / bandwidth + overhead
    rate = concurrency / step
    padding = longest / max(mean_tokens, 1.0) if engine == "transformers" else 1.0  # a batch waits for its longest
    seconds = samples * mean_tokens * min(padding, 2.0) / (rate * gpus) + longest * alone / 2
    cache = concurrency * each / GB
    line = (
        f"weights {weights / GB:.1f} + cache {cache:.1f} ({concurrency} sequences x {resident:,.0f} tokens x "
        f"{facts.cache_bytes_per_token / 1024:.0f} KiB)"
    )
    memory = Memory(weights / GB, activations=assume.engine_reserve, cache=cache, arithmetic=line)
    return Sampling(seconds, concurrency, rate, memory)


# ----------------------------------------------------------------------------------------------- storage

ROLLOUT_BYTES = 2.3
"""A token of a rollouts shard, ids and text, zstd parquet: measured on mathematics text, SmolLM2's tokenizer."""
FLOAT_BYTES = 4.0
"""A float32 of a column of log-probs or values; they hardly compress."""
LOGPROB_COLUMNS = {"score": 1, "critic": 1, "signal": 4}
"""`signal`: numerator, denominator, old, and their difference."""


def checkpoint_storage(facts: ModelFacts, dtype: str, *, pushed: int, lora_rank: int | None = None) -> float:
    """GB of the pushed steps of a training."""
    params = facts.params if lora_rank is None else facts.lora_params_per_rank * lora_rank
    return params * BYTES[dtype] * pushed / GB


def work_storage(facts: ModelFacts, dtype: str, *, saved: int, lora_rank: int | None = None) -> float:
    """GB of a training's work directory: saved steps, and two resumable checkpoints while one follows the other."""
    params = facts.params if lora_rank is None else facts.lora_params_per_rank * lora_rank
    return params * (BYTES[dtype] * saved + 2 * (MASTER + ADAM)) / GB


def rollout_storage(tokens: float, *, sampler_logprobs: bool) -> float:
    """GB of rollouts or evaluation details, compressed."""
    return tokens * (ROLLOUT_BYTES + (FLOAT_BYTES if sampler_logprobs else 0.0)) / GB


def logprob_storage(tokens: float, stage: str) -> float:
    return tokens * FLOAT_BYTES * LOGPROB_COLUMNS[stage] / GB
