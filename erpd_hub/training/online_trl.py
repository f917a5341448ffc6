"""Online training in TRL's GRPOTrainer: it samples, forms advantages and takes the steps, on our prompts and grades.

A program of other authors, for comparison with ours: the gradient on the same samples is ours but for what TRL adds to
a group's deviation, 1e-4 where we add 1e-6. An ungraded response has no advantage there and still counts as tokens. Its
samples come from one generator, so a resumable checkpoint has that generator's state and a killed phase ends in the
same bytes on a CPU.

GRPOTrainer forms a step from passes of equally many rows, so all steps have equally many prompts. Kept out of the run:
its model card, its telemetry, and what it changes in the settings of model and tokenizer.
"""

import copy
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl import GRPOTrainer

from erpd_hub.config import OnlineConfig, PromptFormat
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.logprobs import Dtype, body_dtype
from erpd_hub.models import stop_ids
from erpd_hub.rewards import Reward, open_reward
from erpd_hub.samples import shard_path, write_rows
from erpd_hub.sampling.draws import Draw, Prompt
from erpd_hub.sampling.engine import Completion
from erpd_hub.sampling.job import Job
from erpd_hub.sampling.plan import all_draws
from erpd_hub.sampling.stopping import StopRule
from erpd_hub.stage_context import StageContext
from erpd_hub.training.batches import StepBatch
from erpd_hub.training.callback import RunCallback
from erpd_hub.training.checkpoints import RunFiles, load_trained, save_trained
from erpd_hub.training.data import read_trajectories
from erpd_hub.training.finite import refuse_non_finite
from erpd_hub.training.online import describe
from erpd_hub.training.online_trl_settings import grpo_arguments
from erpd_hub.training.policy import checkpoint_kind, prepare_policy, processes

_PROBE = (24, 8)
"""Tokens of the sequence that is looked at with and without padding on its left, and of the padding."""
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}
"""Nats, root mean square: rounding of bf16 makes 0.02 (`layout`), the positions of an untrained GPT-2 0.1. Only flash
attention, which has no fp32, is looked at in bf16."""


@dataclass
class OwnReward:
    """What GRPOTrainer asks for rewards: grades completions as a rollout's are, and keeps those of the step at hand.

    Attributes:
        steps: The prompts of each step, in the order in which the trainer has them.
        folder: The step's samples, as a small rollout.
    """

    config: OnlineConfig
    format: PromptFormat
    tokenizer: PreTrainedTokenizerBase
    steps: Sequence[Sequence[Prompt]]
    prompts: Path
    seed: int
    folder: Path
    stop_ids: frozenset[int] = frozenset()
    _opened: Reward | None = None
    __name__ = "reward"  # GRPOTrainer calls its metrics by it

    def __call__(
        self, prompts: list[list[int]], completion_ids: list[list[int]], trainer_state: Any, **_: object
    ) -> list[float | None]:
        """Outcomes of a step's completions, k to a prompt.

        Raises:
            StageError: none could be graded.
        """
        wanted = self.steps[trainer_state.global_step]
        source = wanted[0].problem.source
        draws = all_draws(wanted, source, self.config.k, self.seed)
        assert [draw.prompt.prompt_ids for draw in draws] == [tuple(ids) for ids in prompts], "the prompts are ours"
        context = StageContext(self.seed, self.folder / "work")
        job = Job(draws, source, self.config.decoding, self.format, None, self.folder, context, self._reward())
        pairs: list[tuple[Draw, Completion]] = [
            (draw, self._completion(ids)) for draw, ids in zip(draws, completion_ids, strict=True)
        ]
        grades = job.grade(pairs)
        if all(grade.label is None for grade in grades):
            raise StageError(
                "online: expected graded samples in each step, got none; see why its verdicts are ungradable"
            )
        shutil.rmtree(self.folder, ignore_errors=True)
        rows = [job.row(draw, completion, grade) for (draw, completion), grade in zip(pairs, grades, strict=True)]
        write_rows(shard_path(self.folder, 0), rows, job.schema())
        return [grade.label for grade in grades]

    def close(self) -> None:
        """End the reward's processes."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _completion(self, ids: list[int]) -> Completion:
        text = StopRule(self.tokenizer, ()).text(ids)
        return Completion(ids, None, "stop" if ids[-1] in self.stop_ids else "length", text)

    def _reward(self) -> Reward | None:
        config = self.config
        if self._opened is None:
            self._opened = open_reward(config.reward, seconds=config.reward_seconds, prompts=self.prompts)
        return self._opened


class TRLTrainer(GRPOTrainer):
    """GRPOTrainer whose steps leave what those of our own trainer leave, in the same places: `trainer.train` runs it.

    Args:
        model: As `load_policy` gives it.
        source: Folder of the checkpoint the model was loaded from, for what training does not touch.

    Raises:
        ConfigError: the model needs positions, which GRPOTrainer does not pass.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        rounds: OwnReward,
        files: RunFiles,
        tokenizer: PreTrainedTokenizerBase,
        source: Path,
        context: StageContext,
    ) -> None:
        config = rounds.config
        _check_left_padding(model, config.dtype if config.attn_implementation.startswith("flash") else "float32")
        self.said = copy.deepcopy((model.config, model.generation_config))
        rounds.stop_ids = stop_ids(model, tokenizer)
        # Without what the checkpoint says of sampling, which GRPOTrainer would take where it says nothing itself.
        model.generation_config = GenerationConfig(eos_token_id=sorted(rounds.stop_ids))
        policy = prepare_policy(
            model,
            config.model_copy(update={"gradient_checkpointing": False}),  # GRPOTrainer has its own
            context.seed,
            install=lambda *_: None,
        )
        ids = [prompt.prompt_ids for step in rounds.steps for prompt in step]
        super().__init__(
            policy,
            reward_funcs=rounds,
            args=grpo_arguments(config, context, rounds.steps),
            train_dataset=Dataset.from_dict({"prompt": ids}),
            processing_class=copy.deepcopy(tokenizer),
        )
        self.remove_callback(PrinterCallback)  # the library logs; only the command line prints
        self.rounds, self.config, self.files = rounds, config, files
        self.tokenizer, self.source = tokenizer, source
        self.metrics: dict[str, float] = {}
        self.parts: dict[str, float] = {}
        self.passes: list[tuple[float, float, int]] = []  # (loss, entropy, tokens)
        self.add_callback(RunCallback(self))

    def save_step(self, step: int) -> None:
        """Write the weights as they are as `out/step-N/`, with the settings that the model came with."""
        model = self.accelerator.unwrap_model(self.model)
        changed, (model.config, model.generation_config) = (model.config, model.generation_config), self.said
        weights = self.accelerator.get_state_dict(self.model)
        self.files.save_step(step, model, self.tokenizer, weights, dtype=self.config.push_dtype, source=self.source)
        model.config, model.generation_config = changed

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}  # token ids already

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        started = time.monotonic()
        batch: dict[str, Tensor] = super()._generate_and_score_completions(inputs)
        self.parts = {"sampling_seconds": time.monotonic() - started}
        return batch

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        loss: Tensor = super()._compute_loss(model, inputs)
        entropy, tokens = self._metrics["train"]["entropy"][-1], int(inputs["completion_mask"].sum())
        self.passes.append((loss.item(), entropy, tokens))
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        grad_norm: Tensor = super()._clip_grad_norm(model)
        losses, entropies, tokens = zip(*self.passes, strict=True)
        self.passes = []
        loss, norm = sum(losses), float(grad_norm)
        for what, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                rows = tuple(read_trajectories(self.rounds.folder))
                refuse_non_finite("online", what, value, StepBatch(self.state.global_step + 1, rows))
        entropy = sum(mean * count for mean, count in zip(entropies, tokens, strict=True)) / sum(tokens)
        seen = {"loss": loss, "entropy": entropy, "tokens": sum(tokens)}
        self.metrics = seen | describe(self.rounds.folder) | {"grad_norm": norm}
        return grad_norm

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        super()._save_checkpoint(model, trial)
        self.files.publish_checkpoint(self.state.global_step, checkpoint_kind(processes()))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        assert output_dir is not None, "checkpoints have a folder"
        save_trained(self.accelerator.unwrap_model(self.model), Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_trained(self.model, Path(resume_from_checkpoint))

    def _get_output_dir(self, trial: object) -> str:
        return str(self.files.unfinished)

    def create_model_card(self, *_: object, **__: object) -> None:
        """Cards are made from lineage."""

    def _send_telemetry(self) -> None:
        """Nobody is told of a run."""


@torch.no_grad()
def _check_left_padding(model: PreTrainedModel, dtype: Dtype) -> None:
    """GRPOTrainer pads prompts on the left and passes no positions: models with learned ones compute something else."""
    length, padding = _PROBE
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(0)).to(model.device)

    def logprobs(left: int) -> Tensor:
        mask = pad(torch.ones_like(ids), (left, 0))
        with body_dtype(model, dtype):
            logits = model(input_ids=pad(ids, (left, 0)), attention_mask=mask, use_cache=False).logits
        return logits[:, left:].float().log_softmax(-1)

    deviation = float((logprobs(padding) - logprobs(0)).square().mean().sqrt())
    if deviation > _TOLERANCE[dtype]:
        raise ConfigError(
            f"backend: expected own for {type(model).__name__}, got trl, which pads prompts on the left and passes no "
            f"positions: that changes this model's log-probs by {deviation:.2g} nats"
        )
