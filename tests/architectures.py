"""Tiny random models of every architecture in the recipes."""

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3_5Config,
    Qwen3_5ForCausalLM,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)

_COMMON = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
ARCHITECTURES = ("llama", "qwen3", "qwen3.5")
QWEN3_5_TEXT = _COMMON | {
    "num_hidden_layers": 4,  # three linear attentions and one full
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


_VISION = {
    "depth": 1,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 48,
    "out_hidden_size": 32,
    "patch_size": 4,
    "num_position_embeddings": 16,
}
_IMAGE_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def multimodal_qwen3_5() -> PreTrainedModel:
    """The text model with a vision tower beside it."""
    ids = dict(zip(_IMAGE_TOKENS, range(90, 94), strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen3_5ForConditionalGeneration(
            Qwen3_5Config(text_config=QWEN3_5_TEXT, vision_config=_VISION, tie_word_embeddings=False, **ids)
        )


def random_model(name: str, *, gain: float = 3.0) -> PreTrainedModel:
    """In evaluation mode; `gain` on its matrices, since freshly made ones hardly look at the context."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _make(name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(gain)
    return model


def _make(name: str) -> PreTrainedModel:
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**_COMMON, num_hidden_layers=2))
    if name == "qwen3":
        shape = {"num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True}
        return Qwen3ForCausalLM(Qwen3Config(**_COMMON, **shape))
    return Qwen3_5ForCausalLM(Qwen3_5TextConfig(**QWEN3_5_TEXT))
