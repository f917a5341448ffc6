"""The trainer of both stages: transformers' Trainer around one exact optimizer step.

One loader batch is one step's prompts with all their samples. `training_step` knows the step's denominators (response
tokens, sequences) before its first micro-batch, so neither how the step is cut nor how it is padded changes the
gradient. What Trainer keeps doing: optimizer, schedule, clipping, resumable state, RNG.

Not here: more than one process, LoRA, mixed precision.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.utils import disable_dropout_in_model

from erpd_hub.config import TrainingConfig
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.logprobs import response_logprobs
from erpd_hub.losses import LossOutput, TokenBatch, summarise
from erpd_hub.training.checkpoints import RunFiles
from erpd_hub.training.data import StepBatch, Trajectory, collate, pad_column, token_budget_batches

_LOWEST_BF16_LEARNING_RATE = 1e-5
"""Below it an update of a bf16 weight is mostly rounded away: it has 8 bits."""
_LISTED = 5

Loss = Callable[[TokenBatch], LossOutput]
Role = Literal["teacher", "student"]
_OLD_TO_NEW: dict[Role, str] = {"teacher": "sampler_to_teacher", "student": "old_to_student"}
"""What the KL of the losses is between: a teacher's old log-probs are the sampler's own, not scored ones."""

logger = logging.getLogger(__name__)


class PolicyTrainer(Trainer):
    """Trains a policy on a fixed list of steps.

    Raises:
        StageError: a loss or gradient that is not finite, naming step and prompts; the last checkpoint stays.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        steps: Sequence[StepBatch],
        loss: Loss,
        role: Role,
        config: TrainingConfig,
        seed: int,
        files: RunFiles,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        _check_precision(model, config.learning_rate)
        _disable_dropout(model)
        super().__init__(model=model, args=_arguments(config, seed, files.work))
        self.remove_callback(PrinterCallback)  # the library logs; only the command line prints
        self.steps = steps
        self.loss = loss
        self.role = role
        self.config = config
        self.files = files
        self.metrics: dict[str, float] = {}
        self.add_callback(_RunCallback(self, tokenizer))

    def get_train_dataloader(self) -> DataLoader:
        # Not prepared by accelerate, which would try to move and concatenate the trajectories.
        return DataLoader(self.steps, batch_size=1, shuffle=False, collate_fn=_only)

    def training_step(
        self, model: nn.Module, inputs: StepBatch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward of one step; the gradient is that of the whole step's loss."""
        model.train(self.config.gradient_checkpointing)  # it does nothing in evaluation mode
        totals: dict[str, tuple[float, float]] = {}
        total_loss = torch.zeros((), device=self.args.device)
        for batch in self._micro_batches(inputs):
            output = self.loss(self._token_batch(model, batch))
            loss = output.sum / _denominator(output, inputs)
            self.accelerator.backward(loss)
            total_loss += loss.detach()
            _accumulate(totals, output.metrics)
        self._refuse_non_finite(total_loss, "loss", inputs)
        means = summarise(totals)
        named = {name.replace("old_to_new", _OLD_TO_NEW[self.role]): mean for name, mean in means.items()}
        self.metrics = {"loss": total_loss.item(), **named, "tokens": inputs.tokens}
        self.step_batch = inputs
        return total_loss

    def _micro_batches(self, batch: StepBatch) -> list[list[Trajectory]]:
        rows = batch.trajectories
        cuts = token_budget_batches([len(row) for row in rows], self.config.micro_batch_tokens)
        return [[rows[index] for index in cut] for cut in cuts]

    def _token_batch(self, model: nn.Module, rows: Sequence[Trajectory]) -> TokenBatch:
        device = self.args.device
        batch = collate(rows, device)
        temperature = self.config.logprob_temperature
        scored = response_logprobs(model, batch, temperature=temperature, with_entropy=True)
        return TokenBatch(
            logprobs=scored.logprobs,
            mask=batch.mask,
            labels=torch.tensor([row.label for row in rows], device=device),
            old_logprobs=pad_column(rows, "old_logprobs", device),
            reference_logprobs=pad_column(rows, "reference_logprobs", device),
            advantages=pad_column(rows, "advantages", device),
            entropy=scored.entropy,
        )

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor:
        grad_norm = super()._clip_grad_norm(model)
        self._refuse_non_finite(grad_norm, "gradient norm", self.step_batch)
        self.metrics["grad_norm"] = float(grad_norm)
        return grad_norm

    def _refuse_non_finite(self, value: torch.Tensor, what: str, batch: StepBatch) -> None:
        if math.isfinite(value):
            return
        ids = list(dict.fromkeys(row.problem_id for row in batch.trajectories))
        shown = ", ".join(ids[:_LISTED]) + (", ..." if len(ids) > _LISTED else "")
        raise StageError(
            f"{self.role}: expected a finite {what}, got {float(value)} at step {batch.step} on {len(ids)} prompts "
            f"({shown}); the last checkpoint is kept, lower the learning rate"
        )

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        super()._save_checkpoint(model, trial)
        self.files.publish_checkpoint(self.state.global_step)

    def _get_output_dir(self, trial: object) -> str:
        return str(self.files.unfinished)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> None:
        """The step's own denominators are used instead."""

    def floating_point_ops(self, inputs: StepBatch) -> int:
        return 0


class _RunCallback(TrainerCallback):
    """Writes what a step leaves behind: its metrics, its saved weights, its resumable checkpoint."""

    def __init__(self, trainer: PolicyTrainer, tokenizer: PreTrainedTokenizerBase) -> None:
        self.trainer = trainer
        self.tokenizer = tokenizer
        self.started = time.monotonic()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.started = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        trainer, step = self.trainer, state.global_step
        seconds = time.monotonic() - self.started
        trainer.files.record(step, trainer.metrics, seconds)
        logger.info("step %d/%d, loss %.4f, %.2f s", step, state.max_steps, trainer.metrics["loss"], seconds)
        if step in trainer.config.kept_steps:
            trainer.files.save_step(step, trainer.model, self.tokenizer)
        if step % trainer.config.checkpoint_every == 0 and step < state.max_steps:
            control.should_save = True


def train(trainer: PolicyTrainer) -> None:
    """Run or go on to the last step; a finished run is left as it is."""
    files, config = trainer.files, trainer.config
    if files.has_steps(config.kept_steps):
        return
    checkpoint = files.last_checkpoint(config.kept_steps)
    files.rewind(checkpoint)
    if checkpoint is not None:
        logger.info("resuming from %s", checkpoint.name)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def _arguments(config: TrainingConfig, seed: int, work: Path) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=config.steps,
        per_device_train_batch_size=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    # With several GPUs Trainer would wrap the model in DataParallel, which cannot cut our batches.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _disable_dropout(model: PreTrainedModel) -> None:
    """Zero dropout, also where attention keeps it as a number, or the ratio to the old policy is not 1 at the start."""
    disable_dropout_in_model(model)
    for module in model.modules():
        for name in [name for name, value in vars(module).items() if "dropout" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)


def _check_precision(model: PreTrainedModel, learning_rate: float) -> None:
    if model.dtype != torch.float32 and learning_rate < _LOWEST_BF16_LEARNING_RATE:
        raise ConfigError(
            f"learning_rate: expected at least {_LOWEST_BF16_LEARNING_RATE} with {model.dtype} weights, got "
            f"{learning_rate}; smaller updates are rounded away, train float32 weights"
        )


def _denominator(output: LossOutput, batch: StepBatch) -> float:
    rows = batch.trajectories
    if output.reduction == "token":
        return batch.tokens
    if output.reduction == "sequence":
        return len(rows)
    return len(rows) * max(len(row.response_ids) for row in rows)


def _accumulate(totals: dict[str, tuple[float, float]], metrics: dict[str, tuple[float, float]]) -> None:
    for name, (total, count) in metrics.items():
        before_total, before_count = totals.get(name, (0.0, 0.0))
        totals[name] = (before_total + total, before_count + count)


def _only(batch: list[StepBatch]) -> StepBatch:
    """The loader's batch of one step is that step."""
    return batch[0]
