"""The policy as it goes into training: loaded where its wrapper wants it, without dropout, perhaps with an adapter.

Before anything is loaded the memory of the run is reckoned up, and a run that cannot fit is refused with the sum.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl.trainer.utils import disable_dropout_in_model

from erpd_hub.accelerate_configs import Preset
from erpd_hub.config import TrainingConfig
from erpd_hub.errors import ConfigError
from erpd_hub.layout import Wanted, exact_layout
from erpd_hub.logprobs import Dtype, install_logprob_forward, unwrap
from erpd_hub.models import free_bytes, load_model
from erpd_hub.planning.fitting import require_fit
from erpd_hub.planning.layouts import training_layout
from erpd_hub.planning.shapes import facts_of_folder
from erpd_hub.response_batch import Layout
from erpd_hub.training.activations import checkpoint_activations

_LOWEST_BF16_LEARNING_RATE = 1e-5
"""Below it an update of a bf16 weight is mostly rounded away: it has 8 bits."""
_LONG = 16384
"""Tokens of a sequence from which attention is most of what checkpointing computes again."""
_MARGIN = 0.8
"""Of the room that the sum leaves, for what the allocator cannot use."""


def processes() -> PartialState:
    """The process group, of one process or of those that `accelerate launch` started; this process's device is set."""
    cpu = not torch.cuda.is_available()
    if cpu:
        # accelerate imports deepspeed wherever it is installed, which warns on stdout that it looked for a GPU in vain.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    return PartialState(cpu=cpu)


def strategy(state: PartialState) -> Preset:
    """How the processes at hand share a model: accelerate takes FSDP2 for DDP where there is no GPU."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return "zero3"
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and state.device.type == "cuda":
        return "fsdp2"
    return "single" if state.num_processes == 1 else "ddp"


def checkpoint_kind(state: PartialState) -> str:
    """What reads a resumable checkpoint: whole weights one process or DDP, FSDP2's shards any number of processes."""
    sharing = strategy(state)
    if sharing == "zero3":
        return f"zero3 over {state.num_processes} processes"
    return "fsdp2" if sharing == "fsdp2" else "whole weights"


def _sharded(state: PartialState) -> bool:
    return strategy(state) in ("fsdp2", "zero3")


class Room(NamedTuple):
    """What a run leaves free on its device."""

    spare: float = math.inf
    """Bytes."""
    keep_attention: bool = False
    """Whether attention's outputs fit too, so that checkpointing need not compute them again."""


def check_fit(where: str, init: Path, config: TrainingConfig, longest: int, state: PartialState) -> Room:
    """Refuse a run that cannot fit on the device at hand.

    Args:
        longest: Tokens of the longest sequence, prompt included.

    Raises:
        StageError: with the sum and what would make it fit.
    """
    facts = facts_of_folder(init)
    if facts is None:  # an architecture whose shape is not known: the first step tells
        return Room()
    available = _available_bytes(state) / 1e9
    tokens = max(config.micro_batch_tokens, longest)
    layout = training_layout(config, tokens=tokens, gpus=state.num_processes)
    memory = require_fit(where, facts, available, **layout, strategy=strategy(state))
    spare = _MARGIN * (available - memory.total) * 1e9
    width = 2 if config.dtype == "bfloat16" else 4
    outputs = facts.layers * tokens * facts.heads * facts.head_dim * width
    keep = config.gradient_checkpointing and longest >= _LONG and outputs < spare
    return Room(spare - outputs if keep else spare, keep)


def load_policy(init: Path, config: TrainingConfig, state: PartialState) -> PreTrainedModel:
    """fp32 masters on the device, or where FSDP2 and ZeRO-3 want them to share them out."""
    placed = not _sharded(state)
    model = load_model(init, "float32", attn_implementation=config.attn_implementation, placed=placed)
    model.name_or_path = model.config.name_or_path = ""  # a folder of this machine, which trackers would be sent
    return model


def probe_sharded(init: Path, wanted: Wanted, config: TrainingConfig, state: PartialState) -> Layout | None:
    """The layout for a model that will be in shards when it is loaded; None where it will not.

    The first process finds it out on a copy of its own, in the stored dtype, since fp32 masters need not fit on one
    device. To be called before DeepSpeed's settings are made, from when on every model is loaded in parts.
    """
    if not _sharded(state):
        return None
    unset_hf_deepspeed_config()  # of an earlier run in this process: this copy is not to be partitioned
    found: list[Layout] = ["single"]
    if state.is_main_process:
        model = load_model(init, "stored", attn_implementation=config.attn_implementation)
        found = [exact_layout(model, wanted, dtype=config.dtype)]
        del model
        if state.device.type == "cuda":
            torch.cuda.empty_cache()
    return broadcast_object_list(found)[0]


def prepare_policy(
    model: nn.Module,
    config: TrainingConfig,
    seed: int,
    *,
    keep_attention: bool = False,
    install: Callable[[nn.Module, Dtype], None] = install_logprob_forward,
) -> nn.Module:
    """The model, or the adapted one, ready to be wrapped.

    Args:
        seed: Of the adapter's first weights.
        keep_attention: Checkpointing keeps what attention returned.
        install: Puts what is computed of a batch into the model's own forward.

    Raises:
        ConfigError: the weights in training are too coarse for the learning rate.
    """
    _disable_dropout(model)
    if config.lora is not None:
        targets = config.lora.target_modules
        adapter = LoraConfig(
            r=config.lora.r,
            lora_alpha=config.lora.alpha,
            target_modules=targets if isinstance(targets, str) else list(targets),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = get_peft_model(model, adapter)
    _check_precision(model, config.learning_rate)
    if config.gradient_checkpointing:
        checkpoint_activations(unwrap(model), offload=config.activation_offload, keep_attention=keep_attention)
    install(model, config.dtype)
    return model


def _disable_dropout(model: nn.Module) -> None:
    """Zero dropout, also where attention keeps it as a number, or the ratio to the old policy is not 1 at the start."""
    disable_dropout_in_model(model)
    for module in model.modules():
        for name in [name for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)


def _check_precision(model: nn.Module, learning_rate: float) -> None:
    coarse = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} - {torch.float32}
    if coarse and learning_rate < _LOWEST_BF16_LEARNING_RATE:
        raise ConfigError(
            f"learning_rate: expected at least {_LOWEST_BF16_LEARNING_RATE} with {coarse.pop()} weights, got "
            f"{learning_rate}; smaller updates are rounded away, train float32 weights"
        )


def agreed(layout: Layout) -> Layout:
    """The first process's, on all of them: they cut a step alike."""
    return broadcast_object_list([layout])[0]


def _available_bytes(state: PartialState) -> float:
    """Of a process's GPU, or its part of the host's memory: what the poorest has, so that all decide alike."""
    found = free_bytes(state.device)
    if state.num_processes == 1:
        return found
    least = torch.tensor(found, dtype=torch.float64, device=state.device)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    return least.item()
