"""The trainer of both stages: transformers' Trainer around one exact optimizer step (`step.py`).

One loader batch is one step's prompts with all their samples, on every process: each takes its own part of it, so
accelerate neither cuts nor moves the data. What Trainer keeps doing: wrapping by DDP, FSDP2 or DeepSpeed as the
environment of `accelerate launch` says, optimizer, schedule, clipping, resumable state, RNG, trackers.

The first process writes; several machines need one file system.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from erpd_hub.config import TrainingConfig
from erpd_hub.losses import summarise
from erpd_hub.response_batch import Layout
from erpd_hub.stage_context import StageContext
from erpd_hub.training.arguments import training_arguments
from erpd_hub.training.batches import Denominators, StepBatch, share
from erpd_hub.training.callback import RunCallback
from erpd_hub.training.checkpoints import RunFiles, load_trained, save_trained
from erpd_hub.training.engine_sync import EngineSync
from erpd_hub.training.finite import refuse_non_finite
from erpd_hub.training.policy import Room, checkpoint_kind, prepare_policy, processes
from erpd_hub.training.step import LOGPROBS, Anchor, Computation, Loss, Sync, forward_backward, sync_for
from erpd_hub.training.trackers import tracked

Role = Literal["teacher", "student", "online", "critic"]
_NEW: dict[Role, str] = {"teacher": "teacher", "student": "student", "online": "policy", "critic": "critic"}
Old = Literal["sampler", "old"]
"""Whose log-probs the old ones are: the sampler's own, a diagnostic, or scored as training scores its own policy."""

logger = logging.getLogger(__name__)


class _StoppedEarlyError(Exception):
    """Ends training before the update of a step, the same on every process."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class PolicyTrainer(Trainer):
    """Trains a policy on a fixed list of steps.

    Args:
        arguments: Those of `training_arguments`, where they had to be made before the model.
        source: Folder of the checkpoint the model was loaded from, for what training does not touch.
        layout: How sequences lie in a micro-batch; one that this model is exact in.
        room: What the run leaves free on its device.
        anchor: For a loss that looks at `kl_to_old`.
        old: What a trajectory's old log-probs are, for the names of metrics.
        stop: Whether training is to end before the update of a step with these metrics.

    Raises:
        StageError: a loss or gradient that is not finite, naming step and prompts; the last checkpoint stays.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: Sequence[StepBatch],
        loss: Loss,
        role: Role,
        config: TrainingConfig,
        seed: int,
        files: RunFiles,
        tokenizer: PreTrainedTokenizerBase,
        source: Path | None = None,
        arguments: TrainingArguments | None = None,
        layout: Layout = "padded",
        room: Room | None = None,
        anchor: Anchor | None = None,
        old: Old = "sampler",
        stop: Callable[[Mapping[str, float]], bool] | None = None,
        computes: Computation = LOGPROBS,
    ) -> None:
        arguments = arguments or training_arguments(config, StageContext(seed, files.work))
        room = room or Room()
        policy = prepare_policy(model, config, seed, keep_attention=room.keep_attention, install=computes.install)
        super().__init__(model=policy, args=arguments)
        self.remove_callback(PrinterCallback)  # the library logs; only the command line prints
        self.steps = steps
        self.loss = loss
        self.role = role
        self.config = config
        self.files = files
        self.tokenizer = tokenizer
        self.source = source
        self.layout = layout
        self.spare = room.spare
        self.anchor = anchor
        self.old = old
        self.stop = stop
        self.see = computes.see
        self.metrics: dict[str, float] = {}
        self.parts: dict[str, float] = {}
        self.add_callback(RunCallback(self))

    def get_train_dataloader(self) -> DataLoader:
        # Not prepared by accelerate, which would try to move and concatenate the trajectories.
        return DataLoader(self.steps, batch_size=1, shuffle=False, collate_fn=_only)

    def training_step(
        self, model: nn.Module, inputs: StepBatch, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of one step; the gradient is that of the whole step's loss."""
        self.step_started = time.monotonic()
        model.train(self.config.gradient_checkpointing)  # it does nothing in evaluation mode
        rows = inputs.trajectories
        state = self.accelerator.state
        sums = forward_backward(
            model,
            share(
                rows,
                budget=self.config.micro_batch_tokens,
                layout=self.layout,
                rank=state.process_index,
                world=state.num_processes,
            ),
            self.loss,
            Denominators.of(rows),
            temperature=self.config.logprob_temperature,
            device=self.args.device,
            layout=self.layout,
            sync=self._sync(model),
            anchor=self.anchor,
            see=self.see,
        )
        refuse_non_finite(self.role, "loss", sums.loss, inputs)
        means = summarise(sums.metrics)
        named = {self._named(name): mean for name, mean in means.items()}
        self.metrics = {"loss": sums.loss, **named, "tokens": inputs.tokens}
        self.step_batch = inputs
        if self.stop is not None and self.stop(self.metrics):
            raise _StoppedEarlyError(inputs.step)
        return torch.tensor(sums.loss, device=self.args.device)

    def full_state_dict(self) -> dict[str, Tensor]:
        """The trained weights, whole, in fp32: on the first process only, where they are gathered from shards."""
        model = self.model_wrapped if self.is_deepspeed_enabled else self.model
        state = self.accelerator.get_state_dict(model) or {}
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        return {name: value for name, value in state.items() if self.config.lora is None or name in trained}

    def _named(self, metric: str) -> str:
        """A KL by the policies it is between."""
        return metric.replace("old_to_new", f"{self.old}_to_new").replace("to_new", f"to_{_NEW[self.role]}")

    def save_step(self, step: int) -> None:
        """Write the weights as they are as `out/step-N/`."""
        weights = self.full_state_dict()  # every process takes part in gathering them
        if self.is_world_process_zero():
            model = self.accelerator.unwrap_model(self.model)
            self.files.save_step(step, model, self.tokenizer, weights, dtype=self.config.push_dtype, source=self.source)
        self.accelerator.wait_for_everyone()

    def save_stopped(self, step: int) -> None:
        """Write every kept step from `step` on, before whose update the run has stopped: the same weights."""
        self.metrics["stopped_after"] = step - 1
        if self.is_world_process_zero():
            self.files.record(step, self.metrics, time.monotonic() - self.step_started)
        for kept in self.config.kept_steps:
            if kept >= step:
                self.save_step(kept)

    def _sync(self, model: nn.Module) -> Sync:
        if self.is_deepspeed_enabled:
            return EngineSync(self.accelerator)
        whole = sum(parameter.numel() * 4 for parameter in model.parameters() if parameter.requires_grad)
        return sync_for(model, every=self.is_fsdp_enabled and whole > self.spare)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        grad_norm = super()._clip_grad_norm(model)
        # The same number on every process, like the loss: all of them stop here, or none.
        norm = float(grad_norm.full_tensor() if isinstance(grad_norm, DTensor) else grad_norm)
        refuse_non_finite(self.role, "gradient norm", norm, self.step_batch)
        self.metrics["grad_norm"] = norm
        return grad_norm

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        built = super()._build_accelerator_args(**kwargs)
        # Gradients are views of DDP's buckets, or they would be there twice.
        ddp = DistributedDataParallelKwargs(
            find_unused_parameters=False, broadcast_buffers=False, gradient_as_bucket_view=True
        )
        return built | {"kwargs_handlers": [ddp]}

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self.files.publish_checkpoint(self.state.global_step, checkpoint_kind(processes()))
        self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What a resumable checkpoint has besides optimizer state; FSDP2 and DeepSpeed write the weights with that."""
        assert output_dir is not None, "checkpoints have a folder"
        if self.is_world_process_zero() and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            save_trained(self.accelerator.unwrap_model(self.model), Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_trained(self.model, Path(resume_from_checkpoint))

    def _get_output_dir(self, trial: object) -> str:
        return str(self.files.unfinished)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> None:
        """The step's own denominators are used instead."""

    def floating_point_ops(self, inputs: StepBatch) -> int:
        return 0


def train(trainer: PolicyTrainer) -> None:
    """Run or go on to the last step; a finished run is left as it is."""
    files, config = trainer.files, trainer.config
    # The first process looks, and the others do as it says: it is the one that writes.
    found = [(files.has_steps(config.kept_steps), files.last_checkpoint(config.kept_steps))]
    finished, checkpoint = broadcast_object_list(found)[0]
    if finished:
        return
    if checkpoint is not None:
        files.check_kind(checkpoint, checkpoint_kind(processes()))
    if trainer.is_world_process_zero():
        files.rewind(checkpoint)
    trainer.accelerator.wait_for_everyone()
    if checkpoint is not None:
        logger.info("resuming from %s", checkpoint.name)
    with tracked(trainer):
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except _StoppedEarlyError as stopped:
            logger.info("stopped before the update of step %d", stopped.step)
            trainer.save_stopped(stopped.step)


def _only(batch: list[StepBatch]) -> StepBatch:
    """The loader's batch of one step is that step."""
    return batch[0]
