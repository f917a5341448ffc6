"""What both stages of training do once their data and loss stand, and what log-probs they accept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from erpd_hub.artifacts import digest_files, payload_files
from erpd_hub.config import CustomLoss, LossConfig, TrainingConfig
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.stage_context import StageContext, StageResult
from erpd_hub.stages.score import ScoreInfo, check_rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from erpd_hub.response_batch import Layout
    from erpd_hub.training.batches import StepBatch, Trajectory
    from erpd_hub.training.step import Anchor, Computation, Loss
    from erpd_hub.training.trainer import Old, PolicyTrainer, Role


@dataclass(frozen=True)
class Extras:
    """What only some trainings have."""

    steps: "Callable[[Sequence[StepBatch]], Sequence[StepBatch]] | None" = None
    """What is done to the steps before training."""
    anchor: Path | None = None
    """Checkpoint folder of the policy that an exact KL is relative to."""
    old: "Old" = "sampler"
    """Whose log-probs the old ones are."""
    stop: "Callable[[Mapping[str, float]], bool] | None" = None
    """Whether training ends before the update of a step with these metrics."""
    model: "Callable[[PreTrainedModel], PreTrainedModel] | None" = None
    """What is trained in the place of the policy, made of it."""
    computes: "Computation | None" = None
    """What its loss looks at; None is log-probs."""

    def load_anchor(self, config: TrainingConfig, num_processes: int) -> "Anchor | None":
        """The anchor in memory.

        Raises:
            ConfigError: several processes share the model, whose head this computation cannot reach.
        """
        if self.anchor is None:
            return None
        if num_processes > 1:
            raise ConfigError(
                f"kl_estimator: expected k1, k2 or k3 with {num_processes} processes, got exact; it needs both whole "
                "policies in one process"
            )
        from erpd_hub.models import load_model
        from erpd_hub.training.step import Anchor

        model = load_model(self.anchor, "float32", attn_implementation=config.attn_implementation)
        return Anchor(model.requires_grad_(False), config.dtype)


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
    extras: Extras | None = None,
) -> StageResult:
    """What both stages of training do once their data and loss stand, in each of the processes that share the work.

    Args:
        scored: How the log-probs among the trajectories were computed; the layout `auto` is theirs.
        extras: What only some trainings have.
    """
    from erpd_hub.models import chat_template_hash, load_tokenizer
    from erpd_hub.training.trainer import train

    trainer = make_trainer(
        config,
        out,
        context,
        init=init,
        trajectories=trajectories,
        loss=loss,
        role=role,
        scored=scored,
        extras=extras or Extras(),
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
    extras: Extras,
) -> "PolicyTrainer":
    """The trainer of a stage, everything refused that can be before the weights are loaded."""
    from erpd_hub.layout import exact_layout
    from erpd_hub.models import load_tokenizer
    from erpd_hub.training.arguments import training_arguments
    from erpd_hub.training.checkpoints import RunFiles
    from erpd_hub.training.data import step_batches
    from erpd_hub.training.policy import agreed, check_fit, load_policy, probe_sharded, processes
    from erpd_hub.training.step import LOGPROBS
    from erpd_hub.training.trainer import PolicyTrainer

    state = processes()
    room = check_fit(role, init, config, max(map(len, trajectories)), state)
    wanted = config.layout if scored is None or config.layout != "auto" else cast("Layout", scored.layout)
    layout = probe_sharded(init, wanted, config, state)
    files = RunFiles(out, context.work)
    arguments = training_arguments(config, context)
    model = load_policy(init, config, state)
    layout = agreed(layout or exact_layout(model, wanted, dtype=config.dtype))
    if scored is not None:
        check_layout(scored, layout)
    steps = step_batches(trajectories, config.prompts_per_step, config.steps, context.seed)
    return PolicyTrainer(
        extras.model(model) if extras.model else model,
        steps=extras.steps(steps) if extras.steps else steps,
        loss=loss,
        role=role,
        config=config,
        seed=context.seed,
        files=files,
        tokenizer=load_tokenizer(init),
        source=None if extras.model else init,
        arguments=arguments,
        layout=layout,
        room=room,
        anchor=extras.load_anchor(config, state.num_processes),
        old=extras.old,
        stop=extras.stop,
        computes=extras.computes or LOGPROBS,
    )


def loss_of(config: LossConfig) -> "Loss":
    """A recipe's loss, or a user's own, held to what the trainer needs of it.

    Raises:
        ConfigError: the user's cannot be loaded.
    """
    from erpd_hub.losses import LOSSES

    if isinstance(config, CustomLoss):
        from erpd_hub.losses.own import checked
        from erpd_hub.plugins import load

        return partial(checked(config.function, load(config.function)), **config.parameters)
    return partial(LOSSES[config.type], **config.parameters)


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
