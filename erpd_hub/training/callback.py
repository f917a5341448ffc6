"""What a training step leaves behind."""

import logging
import time
from typing import TYPE_CHECKING

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from erpd_hub.training.trainer import PolicyTrainer

logger = logging.getLogger(__name__)


class RunCallback(TrainerCallback):
    """Writes what a step leaves behind: its metrics, its saved weights, its resumable checkpoint."""

    def __init__(self, trainer: "PolicyTrainer") -> None:
        self.trainer = trainer
        self.started = time.monotonic()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.started = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        trainer, step = self.trainer, state.global_step
        seconds = time.monotonic() - self.started
        if state.is_world_process_zero:
            trainer.files.record(step, trainer.metrics, seconds, _peak_bytes(args.device), parts=trainer.parts)
            logger.info("step %d/%d, loss %.4f, %.2f s", step, state.max_steps, trainer.metrics["loss"], seconds)
        if trainer.config.report_to != "none":
            trainer.log(dict(trainer.metrics))
        if step in trainer.config.kept_steps:
            trainer.save_step(step)
        if step % trainer.config.checkpoint_every == 0 and step < state.max_steps:
            control.should_save = True


def _peak_bytes(device: torch.device) -> int | None:
    """Most that this process has held on its GPU so far."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
