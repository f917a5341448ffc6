"""Stage 1: a teacher that squeezes the batch dry, without regard for how far it drifts."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from erpd_hub.artifacts import digest_files, payload_files
from erpd_hub.config import TeacherConfig, TrainingConfig
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.stages import StageContext, StageResult
from erpd_hub.stages.score import ScoreInfo, check_rollouts, read_score_info

if TYPE_CHECKING:
    from erpd_hub.logprobs import Layout
    from erpd_hub.training.batches import Trajectory
    from erpd_hub.training.step import Loss
    from erpd_hub.training.trainer import PolicyTrainer, Role


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
    scored = None
    if config.loss.type == "ce":
        if reference is None:
            raise ConfigError("reference: expected log-probs of a checkpoint for the ce loss, got none")
        scored = read_score_info(reference)
        check_scoring("reference", scored, config, rollouts=rollouts, init=init)
        trajectories = join(trajectories, reference_logprobs=read_columns(reference, "logprobs")["logprobs"])
    trajectories = _with_sampler_logprobs(trajectories, rollouts, config.logprob_temperature)
    loss = partial(LOSSES[config.loss.type], **config.loss.model_dump(exclude={"type"}))
    return train_policy(
        config, out, context, init=init, trajectories=trajectories, loss=loss, role="teacher", scored=scored
    )


def train_policy(
    config: TrainingConfig,
    out: Path,
    context: StageContext,
    *,
    init: Path,
    trajectories: list["Trajectory"],
    loss: "Loss",
    role: "Role",
    scored: ScoreInfo | None,
) -> StageResult:
    """What both stages of training do once their data and loss stand, in each of the processes that share the work.

    Args:
        scored: How the log-probs among the trajectories were computed; the layout `auto` is theirs.
    """
    from erpd_hub.models import chat_template_hash, load_tokenizer
    from erpd_hub.training.trainer import train

    trainer = make_trainer(
        config, out, context, init=init, trajectories=trajectories, loss=loss, role=role, scored=scored
    )
    train(trainer)
    facts = {
        "samples": len(trajectories),
        "prompts": len({row.problem_id for row in trajectories}),
        "chat_template_hash": chat_template_hash(load_tokenizer(init)),
        "layout": trainer.layout,
    }
    step_metrics = {step: {**trainer.files.step_metrics(step), **facts} for step in config.kept_steps}
    return StageResult(step_metrics[config.steps], step_metrics)


def make_trainer(
    config: TrainingConfig,
    out: Path,
    context: StageContext,
    *,
    init: Path,
    trajectories: list["Trajectory"],
    loss: "Loss",
    role: "Role",
    scored: ScoreInfo | None,
) -> "PolicyTrainer":
    """The trainer of a stage, everything refused that can be before the weights are loaded."""
    from erpd_hub.layout import exact_layout
    from erpd_hub.models import load_tokenizer
    from erpd_hub.training.checkpoints import RunFiles
    from erpd_hub.training.data import step_batches
    from erpd_hub.training.policy import agreed, check_fit, load_policy, probe_sharded, processes
    from erpd_hub.training.trainer import PolicyTrainer, training_arguments

    state = processes()
    room = check_fit(role, init, config, max(map(len, trajectories)), state)
    wanted = config.layout if scored is None or config.layout != "auto" else cast("Layout", scored.layout)
    layout = probe_sharded(init, wanted, config, state)
    files = RunFiles(out, context.work)
    arguments = training_arguments(config, context.seed, files.work)
    model = load_policy(init, config, state)
    layout = agreed(layout or exact_layout(model, wanted, dtype=config.dtype))
    if scored is not None:
        check_layout(scored, layout)
    return PolicyTrainer(
        model,
        steps=step_batches(trajectories, config.prompts_per_step, config.steps, context.seed),
        loss=loss,
        role=role,
        config=config,
        seed=context.seed,
        files=files,
        tokenizer=load_tokenizer(init),
        source=init,
        arguments=arguments,
        layout=layout,
        room=room,
    )


def check_scoring(role: str, info: ScoreInfo, config: TrainingConfig, *, rollouts: Path, init: Path) -> None:
    """Refuse log-probs that were not scored as training scores its own policy, on these rollouts.

    Raises:
        ArtifactError: other rollouts, temperature, chat template, dtype or attention.
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
    for name in ("dtype", "attn_implementation"):
        expected, got = getattr(config, name), getattr(info, name)
        if got != expected:
            raise ArtifactError(
                f"{role}: expected log-probs scored in {expected} like the policy in training, got {got}: the two may "
                f"differ by more than the clip range; set scoring.{name} to {expected}"
            )


def check_layout(info: ScoreInfo, layout: str) -> None:
    """Refuse log-probs from another layout than that of training, which rounds otherwise.

    Raises:
        ArtifactError: the layouts differ.
    """
    if info.layout != layout:
        raise ArtifactError(
            f"layout: expected {info.layout} as in the log-probs, got {layout}; set scoring.layout to {layout}, or "
            "that of this step to auto"
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
