"""Presets for `accelerate launch --config_file`: one process, DDP, FSDP2 and DeepSpeed ZeRO-3.

None of them says `mixed_precision`: bfloat16 products are autocast inside the policy's own forward over fp32 masters,
in training as in scoring. The number of processes is that of `--num_processes`.
"""

from pathlib import Path
from typing import Literal

Preset = Literal["single", "ddp", "fsdp2", "zero3"]
"""How the processes of a training share the model."""


def preset_path(name: Preset) -> Path:
    """The preset's file, which lies in the installed package."""
    return Path(__file__).parent / f"{name}.yaml"
