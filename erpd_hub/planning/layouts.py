"""How a training is laid out over the GPUs of a plan."""

from typing import Any

from erpd_hub import config as c
from erpd_hub.planning import estimate as e
from erpd_hub.planning.devices import Device
from erpd_hub.planning.facts import ModelFacts


def training_layout(
    config: c.TrainingConfig, tokens: int, gpus: int, facts: ModelFacts, device: Device
) -> dict[str, Any]:
    """The keyword arguments of `training_memory`; `auto` is DDP where a replica fits, else FSDP2."""
    layout: dict[str, Any] = {
        "tokens": tokens,
        "gpus": gpus,
        "gradient_checkpointing": config.gradient_checkpointing,
        "offload": config.activation_offload,
        "lora_rank": config.lora.r if config.lora else None,
        "dtype": config.dtype,
        "context_parallel": config.context_parallel,
    }
    if gpus == 1:
        return layout | {"strategy": "single"}
    if config.parallel != "auto":
        return layout | {"strategy": config.parallel}
    whole = e.training_memory(facts, **layout, strategy="ddp").total
    return layout | {"strategy": "ddp" if whole <= device.usable else "fsdp2"}
