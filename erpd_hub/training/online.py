"""Online training: the one trainer, whose steps bring prompts and become samples when they are taken.

A step's batch is used once, so the old policy is the policy itself: its log-probs are those of the very forward pass
that has the gradient, detached, and every ratio is exactly 1. What the sampler said of its own draws is a diagnostic.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from erpd_hub.config import OnlineConfig, TransformersEngine
from erpd_hub.errors import StageError
from erpd_hub.estimators import kl_k1, kl_k3
from erpd_hub.inputs import ADAPTED
from erpd_hub.logprobs import install_logprob_forward, response_logprobs
from erpd_hub.losses import LossOutput, TokenBatch
from erpd_hub.losses.batch import token_sum
from erpd_hub.models import load_model, save_checkpoint
from erpd_hub.sample_statistics import describe_samples
from erpd_hub.sampling.engines import fast_dtype
from erpd_hub.training.advantages import from_outcomes
from erpd_hub.training.batches import SampleKey, StepBatch, Trajectory, collate, share
from erpd_hub.training.checkpoints import save_adapter
from erpd_hub.training.data import join, read_columns, read_trajectories
from erpd_hub.training.micro_rounds import MicroRounds, PromptStep, parked
from erpd_hub.training.policy import processes, strategy
from erpd_hub.training.step import Loss
from erpd_hub.training.trainer import PolicyTrainer


@dataclass(frozen=True)
class OnPolicyLoss:
    """A loss on samples of the very policy in training.

    In the batch `reference_logprobs` are the start's and `old_logprobs` the sampler's own; the loss sees neither.

    Metrics:
        kl_policy_to_start_k1, _k3: KL(policy || start) on the policy's samples.
        kl_sampler_to_policy_k3: how far rounding takes the engine from the policy; 0 for one that computes alike.
    """

    loss: Loss

    def __call__(self, batch: TokenBatch) -> LossOutput:
        own = batch.logprobs.detach()
        output = self.loss(replace(batch, old_logprobs=own, reference_logprobs=None))
        # Of a policy to itself, always 0.
        metrics = {name: value for name, value in output.metrics.items() if "old_to_new" not in name}
        if batch.reference_logprobs is not None:
            for name, estimate in (("k1", kl_k1), ("k3", kl_k3)):
                values = estimate(own, batch.reference_logprobs)
                metrics[f"kl_policy_to_start_{name}"] = token_sum(values, batch.mask)
        if batch.old_logprobs is not None:
            metrics["kl_sampler_to_policy_k3"] = token_sum(kl_k3(batch.old_logprobs, own), batch.mask)
        return replace(output, metrics=metrics)


class StartPolicy:
    """The policy that the phase starts from, in host memory but for when it scores: fp32, as training computes."""

    def __init__(self, init: Path, config: OnlineConfig) -> None:
        self.model: PreTrainedModel = load_model(
            init, "float32", attn_implementation=config.attn_implementation, placed=False
        )
        install_logprob_forward(self.model, config.dtype)

    @torch.no_grad()
    def logprobs(
        self, batches: Sequence[Sequence[Trajectory]], *, temperature: float, device: torch.device, layout: Any
    ) -> dict[SampleKey, Tensor]:
        """(T,) log-probs of each row's response by its key, in nats."""
        self.model.to(device)
        found: dict[SampleKey, Tensor] = {}
        for rows in batches:
            scored = response_logprobs(self.model, collate(rows, device, layout), temperature=temperature).logprobs
            found |= {row.key: part[: len(row.response_ids)].cpu() for row, part in zip(rows, scored, strict=True)}
        self.model.to("cpu")
        return found


class OnlineTrainer(PolicyTrainer):
    """Trains a policy on its own samples.

    Args:
        rounds: Draws a step's samples.
        start: What the KL is measured to; None leaves it out.
        arguments: Those of `PolicyTrainer`; its `steps` are of type PromptStep and its loss one of the registry.
    """

    config: OnlineConfig

    def __init__(
        self, model: nn.Module, *, rounds: MicroRounds, start: StartPolicy | None, loss: Loss, **arguments: Any
    ) -> None:
        super().__init__(model, loss=OnPolicyLoss(loss), **arguments)
        self.rounds = rounds
        self.start = start

    def training_step(  # type: ignore[override]
        self, model: nn.Module, inputs: PromptStep, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Sample, then forward and backward; the gradient is that of the whole step's loss."""
        started = time.monotonic()
        folder = self._draw(inputs)
        sampled = time.monotonic()
        rows = self._with_start(self._trajectories(folder))
        described = describe(folder)  # every process, before the step's last meeting: the next step removes the folder
        self.parts = {"sampling_seconds": sampled - started, "kl_seconds": time.monotonic() - sampled}
        loss = super().training_step(model, StepBatch(inputs.step, tuple(rows)), num_items_in_batch)
        self.metrics = self.metrics | described
        return loss

    def publish(self, folder: Path) -> None:
        """Write the policy as it is as a checkpoint that an engine reads; all processes take part."""
        weights = self.full_state_dict()
        if self.is_world_process_zero():
            model: Any = self.accelerator.unwrap_model(self.model)
            dtype = fast_dtype(self.config.engine.dtype)  # type: ignore[union-attr]
            if self.config.lora is None:
                save_checkpoint(model, self.tokenizer, folder, dtype=dtype, source=self.source, state_dict=weights)
            else:
                save_adapter(model, self.tokenizer, folder, weights)
                _link_base(folder, self.source)
        self.accelerator.wait_for_everyone()

    def _draw(self, step: PromptStep) -> Path:
        """The folder of the step's samples."""
        whole = strategy(processes()) in ("single", "ddp")
        if whole and isinstance(self.config.engine, TransformersEngine):
            return self.rounds.draw_here(step, self.model)
        alone: AbstractContextManager[None] = nullcontext()
        with parked(self.model, self.optimizer) if whole and self.args.device.type == "cuda" else alone:
            return self.rounds.draw_elsewhere(step, self.publish)

    def _trajectories(self, folder: Path) -> list[Trajectory]:
        """The step's samples with their advantages and, where they mean something, the sampler's own log-probs."""
        rows = [row for row in read_trajectories(folder) if row.label in (0.0, 1.0)]
        if not rows:
            raise StageError(
                "online: expected graded samples in each step, got none; see why its verdicts are ungradable"
            )
        decoding = self.config.decoding
        exact = decoding.top_p == 1 and decoding.top_k == 0 and not decoding.presence_penalty
        if exact and decoding.temperature == self.config.logprob_temperature:
            rows = join(rows, old_logprobs=read_columns(folder, "sampler_logprobs")["sampler_logprobs"])
        kind = self.config.loss.advantage_kind
        return rows if kind == "none" else from_outcomes(rows, scale=kind == "group")

    def _with_start(self, rows: list[Trajectory]) -> list[Trajectory]:
        """The rows, those of this process with the start's log-probs."""
        if self.start is None:
            return rows
        state = self.accelerator.state
        batches = share(
            rows,
            budget=self.config.micro_batch_tokens,
            layout=self.layout,
            rank=state.process_index,
            world=state.num_processes,
        )
        scored = self.start.logprobs(
            [batch.rows for batch in batches],
            temperature=self.config.logprob_temperature,
            device=self.args.device,
            layout=self.layout,
        )
        return [replace(row, reference_logprobs=scored.get(row.key)) for row in rows]


def describe(folder: Path) -> dict[str, float]:
    """What a step's samples are like: means over samples, and shares of its prompts."""
    found: Mapping[str, Any] = describe_samples(folder)
    metrics = {
        "samples": found["samples"],
        "reward": found["accuracy"],
        "mean_length": found["mean_length"],
        "truncated": found["truncated"],
        "no_answer": found["no_answer"],
        "timeout": found["timeout"],
        "ungradable": found["ungradable"],
        "prompts_mixed": found["groups_mixed"] / found["prompts"],
        "prompts_all_right": found["groups_all_right"] / found["prompts"],
    }
    return {name: value for name, value in metrics.items() if value is not None}


def _link_base(folder: Path, source: Path | None) -> None:
    """Beside an adapter what it adapts, as `inputs.fetch_artifact` puts it there."""
    assert source is not None, "an adapter was trained on a checkpoint"
    (folder / "base").symlink_to(source.resolve(), target_is_directory=True)
    for name in ADAPTED:
        if (source / name).is_file():
            (folder / name).symlink_to((source / name).resolve())
