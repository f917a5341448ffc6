"""The shape of a model and what follows from it by counting: parameters, floating-point operations, cache bytes.

Pure arithmetic, no torch: `plan` works where no weights are. The counts equal those of the real transformers models
(tested on the meta device for Llama, Qwen3 and Qwen3.5). Mixtures of experts are left out: their shape is not read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from erpd_hub.config.data import TinyBase

Stored = Literal["float32", "bfloat16"]
BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2}

_TINY_VOCABULARY = 22
"""Characters and marks of the tiny policy's tokenizer."""


@dataclass(frozen=True)
class LinearAttention:
    """The gated delta-net of Qwen3.5: a fixed-size state in place of a key-value cache."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int

    @property
    def mixed(self) -> int:
        """Width of queries, keys and values together."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    @property
    def values(self) -> int:
        return self.value_heads * self.value_dim


@dataclass(frozen=True)
class ModelFacts:
    """Shape of a decoder-only model with gated MLPs."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    """The output head is the embedding."""
    qk_norm: bool = False
    qkv_bias: bool = False
    gated_query: bool = False
    """The query projection also makes an output gate (Qwen3.5)."""
    linear: LinearAttention | None = None
    linear_layers: int = 0
    stored: Stored = "bfloat16"
    """Of the weights as published."""
    mean_response: int | None = None
    """Tokens of a mean response on contest mathematics, where a source says."""

    # ------------------------------------------------------------------------------------ parameters

    @property
    def embedding(self) -> int:
        return self.vocab * self.hidden

    @property
    def head(self) -> int:
        """Parameters of the output head that are not those of the embedding."""
        return 0 if self.tied else self.embedding

    @property
    def mlp(self) -> int:
        return 3 * self.hidden * self.intermediate

    @property
    def attention(self) -> int:
        """Parameters of a layer with softmax attention, its norms included."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        gates = 2 if self.gated_query else 1
        bias = q + 2 * kv if self.qkv_bias else 0
        norms = 2 * self.head_dim if self.qk_norm else 0
        return self.hidden * (gates * q + 2 * kv) + q * self.hidden + bias + norms + 2 * self.hidden

    @property
    def linear_attention(self) -> int:
        """Parameters of a layer with linear attention, its norms included."""
        if self.linear is None:
            return 0
        it = self.linear
        projections = self.hidden * (it.mixed + it.values + 2 * it.value_heads) + it.values * self.hidden
        return projections + it.mixed * it.kernel + 2 * it.value_heads + it.value_dim + 2 * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of the largest layer."""
        return self.mlp + max(self.attention, self.linear_attention)

    @property
    def body(self) -> int:
        """Parameters between embedding and head."""
        softmax = self.layers - self.linear_layers
        return self.layers * self.mlp + softmax * self.attention + self.linear_layers * self.linear_attention

    @property
    def params(self) -> int:
        return self.body + self.hidden + self.embedding + self.head

    @property
    def lora_params_per_rank(self) -> int:
        """Parameters of an adapter on every linear layer, for each unit of its rank."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        gates = 2 if self.gated_query else 1
        softmax = (self.hidden + gates * q) + 2 * (self.hidden + kv) + (q + self.hidden)
        mlp = 3 * (self.hidden + self.intermediate)
        if self.linear is None:
            return self.layers * (softmax + mlp)
        it = self.linear
        delta = (self.hidden + it.mixed) + 2 * (self.hidden + it.values) + 2 * (self.hidden + it.value_heads)
        return self.layers * mlp + (self.layers - self.linear_layers) * softmax + self.linear_layers * delta

    # ------------------------------------------------------------------------------------ operations

    def forward_flops(self, tokens: float, length: float, scored: float | None = None) -> float:
        """Floating-point operations of a forward pass, a multiply-add counted as two.

        Args:
            tokens: How many in all.
            length: Length of the sequence a mean token stands in; causal attention sees half of it.
            scored: Tokens whose logits are computed; None is all. The embedding lookup costs none.
        """
        attended = 2 * (self.layers - self.linear_layers) * self.heads * self.head_dim * length
        state = 0.0
        if self.linear is not None:
            state = 6.0 * self.linear_layers * self.linear.values * self.linear.key_dim
        return tokens * (2 * self.body + attended + state) + 2 * (tokens if scored is None else scored) * self.embedding

    # ----------------------------------------------------------------------------------------- cache

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of one token in bfloat16."""
        return 2 * 2 * (self.layers - self.linear_layers) * self.kv_heads * self.head_dim

    @property
    def state_bytes(self) -> int:
        """Recurrent state of one sequence (fp32) and its convolution (bfloat16)."""
        if self.linear is None:
            return 0
        it = self.linear
        return self.linear_layers * (4 * it.values * it.key_dim + 2 * it.mixed * (it.kernel - 1))


def facts_from_config(config: Mapping[str, Any], name: str = "") -> ModelFacts | None:
    """The shape in a transformers `config.json`; None where it is not one that is read here (experts, other keys)."""
    text = config.get("text_config") or config
    if any("expert" in key for key in text) or not {"hidden_size", "num_hidden_layers", "vocab_size"} <= text.keys():
        return None
    if not isinstance(text.get("intermediate_size"), int) or not isinstance(text.get("num_attention_heads"), int):
        return None
    kind, heads, layers = str(text.get("model_type", "")), text["num_attention_heads"], text["num_hidden_layers"]
    dtype = str(config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "bfloat16")
    linear, linear_layers = _linear_attention(text)
    return ModelFacts(
        name=name or kind,
        layers=layers,
        hidden=text["hidden_size"],
        intermediate=text["intermediate_size"],
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or text["hidden_size"] // heads,
        vocab=text["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        qk_norm=kind.startswith("qwen3"),
        qkv_bias=kind == "qwen2",
        gated_query=kind.startswith("qwen3_5"),
        linear=linear,
        linear_layers=linear_layers,
        stored="float32" if "float32" in dtype else "bfloat16",
    )


def facts_of_folder(folder: Path) -> ModelFacts | None:
    """Of a checkpoint's folder, of an adapter's the base it stands on; None for an unknown architecture."""
    while (folder / "base").is_dir():
        folder = folder / "base"
    return facts_from_config(json.loads((folder / "config.json").read_text()))


def _linear_attention(text: Mapping[str, Any]) -> tuple[LinearAttention | None, int]:
    if "linear_num_value_heads" not in text:
        return None, 0
    layers = text["num_hidden_layers"]
    kinds = text.get("layer_types")
    every = text.get("full_attention_interval", 4)
    number = kinds.count("linear_attention") if kinds else layers - layers // every
    shape = LinearAttention(
        key_heads=text["linear_num_key_heads"],
        value_heads=text["linear_num_value_heads"],
        key_dim=text["linear_key_head_dim"],
        value_dim=text["linear_value_head_dim"],
        kernel=text["linear_conv_kernel_dim"],
    )
    return shape, number


def tiny_facts(config: TinyBase) -> ModelFacts:
    """The shape of a `tiny` base."""
    return ModelFacts(
        name="tiny",
        layers=config.layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.heads,
        kv_heads=config.heads,
        head_dim=config.hidden_size // config.heads,
        vocab=_TINY_VOCABULARY + 2 * (config.lazy > 0) + 2 * (config.task == "chain"),
        tied=True,
        stored="float32",
    )


_QWEN35_9B = ModelFacts(
    name="qwen3.5-9b",
    layers=32,
    hidden=4096,
    intermediate=12288,
    heads=16,
    kv_heads=4,
    head_dim=256,
    vocab=248_320,
    tied=False,
    qk_norm=True,
    gated_query=True,
    linear=LinearAttention(key_heads=16, value_heads=32, key_dim=128, value_dim=128, kernel=4),
    linear_layers=24,
)

KNOWN: dict[str, ModelFacts] = {
    facts.name: facts
    for facts in (
        ModelFacts("tiny", 2, 96, 288, 3, 3, 32, _TINY_VOCABULARY, tied=True, stored="float32"),
        ModelFacts("smollm2-135m", 30, 576, 1536, 9, 3, 64, 49_152, tied=True),
        # Mean responses: the bases' AIME 2024 in the paper's Table 10.
        ModelFacts("qwen3-4b", 36, 2560, 9728, 32, 8, 128, 151_936, tied=True, qk_norm=True, mean_response=19_800),
        ModelFacts("nbg4-3b", 32, 2560, 10_496, 20, 4, 128, 166_144, tied=False, mean_response=24_800),
        _QWEN35_9B,
        replace(
            _QWEN35_9B,
            name="qwen3.5-27b",
            layers=64,
            hidden=5120,
            intermediate=17_408,
            heads=24,
            linear=LinearAttention(key_heads=16, value_heads=48, key_dim=128, value_dim=128, kernel=4),
            linear_layers=48,
        ),
    )
}
"""Shapes of the recipes and of the paper's models; of Qwen3.5 the language model alone. NBG4-3B is Nanbeige4-3B-2511,
whose shape is taken from Nanbeige4.1-3B [I]."""

_REPOSITORIES = {
    "qwen/qwen3-4b-thinking-2507": "qwen3-4b",
    "qwen/qwen3-4b-instruct-2507": "qwen3-4b",
    "qwen/qwen3-4b": "qwen3-4b",
    "nanbeige/nanbeige4-3b-thinking-2511": "nbg4-3b",
    "qwen/qwen3.5-9b": "qwen3.5-9b",
    "qwen/qwen3.5-27b": "qwen3.5-27b",
    "huggingfacetb/smollm2-135m": "smollm2-135m",
    "huggingfacetb/smollm2-135m-instruct": "smollm2-135m",
}


def facts_of_repository(repo_id: str) -> ModelFacts | None:
    """The shape of a well-known model on the Hub."""
    name = _REPOSITORIES.get(repo_id.lower())
    return KNOWN[name] if name else None
