"""Shapes of models without their weights: configs of known sizes, random weights on the device, FLOPs, peak rates.

Model FLOPs of one optimizer step on one sequence of T tokens of which R are response tokens:

    3 * (2 * N_layers * T  +  2 * H * V * R  +  2 * layers * heads * head_dim * T (T + 1))

N_layers are the weights of the layers' matrix products. The factor 3 is forward and twice that in backward; recompute
is not counted, nor are norms, rotations and the embedding lookup. The output head counts only where it is needed, at
positions that predict response tokens. Attention is causal: T (T + 1) / 2 pairs, 4 * heads * head_dim FLOPs each. The
convention of PaLM and nanoGPT counts all T * T pairs (`causal=False`); both MFUs are reported.

Needs torch and transformers alone. Not here: mixture of experts, linear attention.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedModel, Qwen3Config

from erpd_hub.errors import ConfigError

_PEAK_BF16_TFLOPS = (
    ("GH200", 989.0),
    ("H200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("H800", 989.0),
    ("B200", 2250.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("L40S", 362.0),
    ("4090", 165.0),
)
"""Dense bf16 by the vendor's data sheets (4090: fp32 accumulation); the first name that is part of the device's."""


@dataclass(frozen=True)
class Shape:
    """The dimensions of a dense decoder with grouped-query attention and a gated MLP."""

    family: Literal["qwen3", "llama"]
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    rope_theta: float
    positions: int
    tied: bool = True

    @property
    def layer_weights(self) -> int:
        """Weights of the matrix products of all layers, without head and embedding."""
        projections = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (projections + 3 * self.hidden * self.intermediate)

    def config(self, attention: str = "sdpa") -> PretrainedConfig:
        kind = Qwen3Config if self.family == "qwen3" else LlamaConfig
        return kind(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            intermediate_size=self.intermediate,
            vocab_size=self.vocab,
            max_position_embeddings=self.positions,
            tie_word_embeddings=self.tied,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            rms_norm_eps=1e-6 if self.family == "qwen3" else 1e-5,
            attn_implementation=attention,
        )


SHAPES: dict[str, Shape] = {
    # Qwen3-4B-Thinking-2507: the original release differs in rope_theta (1e6) and positions alone.
    "qwen3-4b": Shape("qwen3", 2560, 36, 32, 8, 128, 9728, 151936, 5e6, 262144),
    "qwen3-1.7b": Shape("qwen3", 2048, 28, 16, 8, 128, 6144, 151936, 1e6, 40960),
    "qwen3-0.6b": Shape("qwen3", 1024, 28, 16, 8, 128, 3072, 151936, 1e6, 40960),
    "smollm2-135m": Shape("llama", 576, 30, 9, 3, 64, 1536, 49152, 1e5, 8192),
    # Next to nothing but the head: what logits cost, seen on a small machine.
    "wide": Shape("qwen3", 128, 2, 4, 2, 32, 256, 151936, 1e4, 65536),
    "tiny": Shape("qwen3", 64, 2, 4, 2, 16, 128, 512, 1e4, 4096),
}


def shape_named(name: str) -> Shape:
    if name not in SHAPES:
        raise ConfigError(f"shape: expected one of {', '.join(SHAPES)}, got {name!r}")
    return SHAPES[name]


def random_model(shape: Shape, device: torch.device, *, attention: str = "sdpa", seed: int = 0) -> PreTrainedModel:
    """The shape with random fp32 weights, made on the device itself: no copy of 16 GB passes through the host."""
    torch.manual_seed(seed)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(
            shape.config(attention), dtype=torch.float32, attn_implementation=attention
        )


def step_flops(shape: Shape, tokens: int, response_tokens: int, *, causal: bool = True) -> float:
    """Model FLOPs of forward and backward on one sequence; the formula is at the top of this module."""
    return 3 * forward_flops(shape, tokens, response_tokens, causal=causal)


def forward_flops(shape: Shape, tokens: int, response_tokens: int, *, causal: bool = True) -> float:
    """Model FLOPs of a forward pass on one sequence."""
    pairs = tokens * (tokens + 1) / 2 if causal else tokens * tokens
    attention = 4 * shape.layers * shape.heads * shape.head_dim * pairs
    return 2 * shape.layer_weights * tokens + 2 * shape.hidden * shape.vocab * response_tokens + attention


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by its data sheet; None for one that is not in the table."""
    return next((tflops * 1e12 for name, tflops in _PEAK_BF16_TFLOPS if name in device_name), None)
