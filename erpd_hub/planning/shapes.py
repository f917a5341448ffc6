"""Where the shape of a model is found: its config.json, the config of a tiny base, or by name among those known here.

Mixtures of experts are left out: their shape is not read.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from erpd_hub.config.data import TinyBase
from erpd_hub.planning.facts import LinearAttention, ModelFacts

_TINY_VOCABULARY = 22
"""Characters and marks of the tiny policy's tokenizer."""


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
        tiny_facts(TinyBase(type="tiny")),
        ModelFacts("smollm2-135m", 30, 576, 1536, 9, 3, 64, 49_152, tied=True),
        # Mean responses: the bases' AIME 2024 in the paper's Table 10.
        ModelFacts("qwen3-4b", 36, 2560, 9728, 32, 8, 128, 151_936, tied=True, qk_norm=True, mean_response=19_800),
        ModelFacts("nbg4-3b", 32, 2560, 10_496, 20, 4, 128, 166_144, tied=False, mean_response=24_800),
        ModelFacts("nemotron-4b", 32, 3072, 9216, 32, 8, 128, 128_256, tied=False, mean_response=19_800),
        ModelFacts(
            "acereason-7b", 28, 3584, 18_944, 28, 4, 128, 152_064, tied=False, qkv_bias=True, mean_response=14_800
        ),
        ModelFacts("justrl-1.5b", 28, 1536, 8960, 12, 2, 128, 151_936, tied=True, qkv_bias=True, mean_response=12_800),
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
whose shape is taken from Nanbeige4.1-3B [I]; the three after it have those of Llama-3.1-Minitron-4B-Width,
Qwen2.5-Math-7B and Qwen2.5-Math-1.5B, from which they were made [I]."""

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
