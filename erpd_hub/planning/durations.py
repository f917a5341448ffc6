"""Time of training, scoring and sampling from first principles, in seconds of the whole machine.

Pure arithmetic over `ModelFacts`, no torch. `Assumptions` holds what a user may override; measured rates of an earlier
run take the place of all this.
"""

import math
from dataclasses import dataclass
from typing import Literal

from erpd_hub.planning.devices import Device
from erpd_hub.planning.facts import ModelFacts
from erpd_hub.planning.memory import GB, Memory

Engine = Literal["transformers", "vllm", "server"]


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
    """Of forward and backward over all tokens; `length` as for `ModelFacts.forward_flops`."""
    rate = device.tflops * 1e12 * assume.training_mfu * gpus
    return training_flops(facts, tokens=tokens, length=length) / rate


def scoring_time(
    facts: ModelFacts, device: Device, *, tokens: float, length: float, gpus: int, assume: Assumptions = DEFAULTS
) -> float:
    """Of a forward pass over all tokens; `length` as for `ModelFacts.forward_flops`."""
    return facts.forward_flops(tokens, length) / (device.tflops * 1e12 * assume.scoring_mfu * gpus)


@dataclass(frozen=True)
class Sampling:
    """How an engine gets through its requests."""

    seconds: float
    concurrency: int
    """Sequences decoded together on one GPU."""
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
    return Sampling(seconds, concurrency, memory)
