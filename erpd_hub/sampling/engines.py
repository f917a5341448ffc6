"""Opens the engine a config names; each kind is imported only here, and only when it is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from erpd_hub.config import Dtype, EngineConfig, EngineDtype, PromptFormat, ServerEngine, TransformersEngine
from erpd_hub.fields import recorded
from erpd_hub.sampling.engine import Engine
from erpd_hub.sampling.server_chat import ChatSettings
from erpd_hub.sampling.stopping import model_config, stop_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def fast_dtype(dtype: EngineDtype) -> Dtype:
    """`auto` as what the machine multiplies fastest: bfloat16 on a GPU or CPU with instructions for it."""
    if dtype != "auto":
        return dtype
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # Without such instructions a CPU emulates bfloat16, several times slower than float32.
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if fast else "float32"


def describe_engine(config: EngineConfig) -> dict[str, Any]:
    """An engine for the record: its config with the dtype that `auto` came to here."""
    said = recorded(config)
    return said if isinstance(config, ServerEngine) else said | {"dtype": fast_dtype(config.dtype)}


def open_engine(
    config: EngineConfig,
    checkpoint: Path,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    longest: int,
    needs_ids: bool,
    scratch: Path,
    tolerant: bool = False,
) -> Engine:
    """An engine with the checkpoint in it.

    Args:
        longest: Tokens of the longest sample, prompt and response together.
        needs_ids: Whether samples without token ids are of no use.
        scratch: Where merged weights of an adapter may go.
        tolerant: A sample that a server refuses fails by itself, and does not end the call.

    Raises:
        ErpdError: its packages are not installed, or its servers cannot serve this.
    """
    if isinstance(config, TransformersEngine):
        from erpd_hub.models import load_model
        from erpd_hub.sampling.transformers_engine import LocalEngine

        return LocalEngine(load_model(checkpoint, fast_dtype(config.dtype)), tokenizer)
    stop_ids = stop_token_ids(checkpoint, tokenizer)
    if isinstance(config, ServerEngine):
        from erpd_hub.sampling.server_engine import FleetEngine

        vocabulary = model_config(checkpoint).get_text_config().vocab_size
        return FleetEngine(config, tokenizer, stop_ids, needs_ids=needs_ids, vocabulary=vocabulary, tolerant=tolerant)
    from erpd_hub.sampling.vllm_engine import InProcessEngine

    dtype = fast_dtype(config.dtype)
    return InProcessEngine(config, checkpoint, tokenizer, stop_ids, dtype=dtype, longest=longest, scratch=scratch)


def open_endpoint(config: ServerEngine, model: str, format: PromptFormat, *, tolerant: bool = False) -> Engine:
    """Servers that are sent messages: a model of which neither weights nor tokenizer are here."""
    from erpd_hub.sampling.server_engine import FleetEngine

    served = config.model_copy(update={"model": model})
    chat = ChatSettings(format.chat_template_kwargs)
    return FleetEngine(served, None, (), needs_ids=False, chat=chat, tolerant=tolerant)
