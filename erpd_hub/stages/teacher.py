"""Stage 1: a teacher that squeezes the batch dry, without regard for how far it drifts."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from erpd_hub.artifacts import digest_files, payload_files
from erpd_hub.config import TeacherConfig, TrainingConfig
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.stages import StageContext, StageResult
from erpd_hub.stages.score import ScoreInfo, check_rollouts, read_score_info

if TYPE_CHECKING:
    from erpd_hub.training.data import Trajectory
    from erpd_hub.training.trainer import Loss, Role

_DTYPE: Literal["float32"] = "float32"
"""Of the weights in training: bfloat16 would round small updates away."""


def run(
    config: TeacherConfig,
    out: Path,
    *,
    context: StageContext,
    rollouts: Path,
    init: Path,
    reference: Path | None = None,
) -> StageResult:
    """Train on the rollouts' outcomes and write `out/step-N/` for every kept step.

    Args:
        reference: Log-probs folder of the reference policy on these rollouts; None for a loss without one.

    Raises:
        StageError: every outcome is the same, so that there is nothing to tell apart.
        ArtifactError: the reference is of other rollouts, or was scored otherwise than the policy is in training.
    """
    from erpd_hub.losses import LOSSES
    from erpd_hub.training.data import join, read_columns

    trajectories = _graded(rollouts)
    if config.loss.type == "ce":
        if reference is None:
            raise ConfigError("reference: expected log-probs of a checkpoint for the ce loss, got none")
        check_scoring("reference", read_score_info(reference), config, rollouts=rollouts, init=init)
        trajectories = join(trajectories, reference_logprobs=read_columns(reference, "logprobs")["logprobs"])
    trajectories = _with_sampler_logprobs(trajectories, rollouts, config.logprob_temperature)
    loss = partial(LOSSES[config.loss.type], **config.loss.model_dump(exclude={"type"}))
    return train_policy(config, out, context, init=init, trajectories=trajectories, loss=loss, role="teacher")


def train_policy(
    config: TrainingConfig,
    out: Path,
    context: StageContext,
    *,
    init: Path,
    trajectories: list["Trajectory"],
    loss: "Loss",
    role: "Role",
) -> StageResult:
    """What both stages of training do once their data and loss stand."""
    from erpd_hub.models import chat_template_hash, load_model, load_tokenizer
    from erpd_hub.training.checkpoints import RunFiles
    from erpd_hub.training.data import step_batches
    from erpd_hub.training.trainer import PolicyTrainer, train

    files = RunFiles(out, context.work)
    tokenizer = load_tokenizer(init)
    trainer = PolicyTrainer(
        load_model(init, _DTYPE),
        steps=step_batches(trajectories, config.prompts_per_step, config.steps, context.seed),
        loss=loss,
        role=role,
        config=config,
        seed=context.seed,
        files=files,
        tokenizer=tokenizer,
    )
    train(trainer)
    facts = {
        "samples": len(trajectories),
        "prompts": len({row.problem_id for row in trajectories}),
        "chat_template_hash": chat_template_hash(tokenizer),
    }
    step_metrics = {step: {**files.step_metrics(step), **facts} for step in config.kept_steps}
    return StageResult(step_metrics[config.steps], step_metrics)


def check_scoring(role: str, info: ScoreInfo, config: TrainingConfig, *, rollouts: Path, init: Path) -> None:
    """Refuse log-probs that were not scored as training scores its own policy, on these rollouts.

    Raises:
        ArtifactError: other rollouts, temperature, chat template or dtype.
    """
    from erpd_hub.models import chat_template_hash, load_tokenizer

    check_rollouts(role, info, digest_files(payload_files(rollouts)))
    if info.logprob_temperature != config.logprob_temperature:
        raise ArtifactError(
            f"logprob_temperature: expected that of {role}, {info.logprob_temperature}, got "
            f"{config.logprob_temperature}; use one temperature throughout"
        )
    template = chat_template_hash(load_tokenizer(init))
    if info.chat_template_hash != template:
        raise ArtifactError(
            f"{role}: expected the chat template {template} of init, got {info.chat_template_hash}; score a "
            "checkpoint with the template of the one in training"
        )
    if info.dtype != _DTYPE:
        raise ArtifactError(
            f"{role}: expected log-probs scored in {_DTYPE} like the policy in training, got {info.dtype}: the two "
            f"differ by more than the clip range; set scoring.dtype to {_DTYPE}"
        )


def _graded(rollouts: Path) -> list["Trajectory"]:
    """The trajectories with an outcome, of which there must be both kinds."""
    from erpd_hub.training.data import read_trajectories

    graded = [row for row in read_trajectories(rollouts) if row.label in (0.0, 1.0)]
    right = sum(row.label == 1 for row in graded)
    if right in (0, len(graded)):
        raise StageError(
            f"rollouts: expected right and wrong responses, got {right} right of {len(graded)} graded; draw problems "
            "that the policy solves sometimes"
        )
    return graded


def _with_sampler_logprobs(trajectories: list["Trajectory"], rollouts: Path, temperature: float) -> list["Trajectory"]:
    """The sampler's own log-probs as those of the old policy, for the drift metric alone, where they are comparable."""
    from erpd_hub.training.data import join, read_columns, sampled_exactly

    if not sampled_exactly(rollouts, temperature):
        return trajectories
    columns = read_columns(rollouts, "sampler_logprobs")["sampler_logprobs"]
    if any(columns[row.key] is None for row in trajectories):
        return trajectories
    return join(trajectories, old_logprobs=columns)
