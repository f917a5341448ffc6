"""How a training is laid out over GPUs: what its config says of that, and what `parallel: auto` comes to."""

from typing import Any

from erpd_hub.accelerate_configs import Preset
from erpd_hub.config import TrainingConfig
from erpd_hub.planning.facts import ModelFacts
from erpd_hub.planning.memory import training_memory


def training_layout(config: TrainingConfig, *, tokens: int, gpus: int) -> dict[str, Any]:
    """The keyword arguments of `training_memory`, all but `strategy`.

    Args:
        tokens: Of the largest micro-batch.
    """
    return {
        "tokens": tokens,
        "gpus": gpus,
        "gradient_checkpointing": config.gradient_checkpointing,
        "offload": config.activation_offload,
        "lora_rank": config.lora.r if config.lora else None,
        "dtype": config.dtype,
    }


def planned_strategy(config: TrainingConfig, facts: ModelFacts, available: float, layout: dict[str, Any]) -> Preset:
    """How several GPUs share the model; `auto` is DDP where each can hold the whole training, else FSDP2.

    Args:
        available: GB a process may use.
        layout: Of `training_layout`.
    """
    if layout["gpus"] == 1:
        return "single"
    if config.parallel != "auto":
        return config.parallel
    return "ddp" if training_memory(facts, **layout, strategy="ddp").total <= available else "fsdp2"
