"""Stage 1: a teacher that squeezes the batch dry, without regard for how far it drifts."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erpd_hub.config import CustomLoss, LossConfig, PPOLoss, TeacherConfig
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.stage_context import StageContext, StageResult
from erpd_hub.stages.score import ScoreInfo, read_score_info
from erpd_hub.stages.training import Extras, check_scoring, loss_of, train_policy
from erpd_hub.stages.values import check_values

if TYPE_CHECKING:
    from erpd_hub.training.batches import Trajectory


def run(
    config: TeacherConfig,
    out: Path,
    *,
    context: StageContext,
    rollouts: Path,
    init: Path,
    reference: Path | None = None,
    old: Path | None = None,
    critic: Path | None = None,
) -> StageResult:
    """Train on the rollouts' outcomes and write `out/step-N/` for every kept step.

    Args:
        reference, old: Log-probs folders of the reference policy and of the one that sampled, on these rollouts, for
            losses that need them.
        critic: Values folder on these rollouts, for PPO.

    Raises:
        StageError: every outcome is the same, so that there is nothing to tell apart.
        ArtifactError: log-probs or values are of other rollouts, or were scored otherwise than the policy in training.
    """
    from erpd_hub.training.data import finished, join

    scored = _scored(config, {"reference": reference, "old": old}, rollouts=rollouts, init=init)
    trajectories = join(
        graded(rollouts, dropped=config.truncated == "dropped"),
        **_logprob_columns({"reference": reference, "old": old}),
    )
    if old is None and not isinstance(config.loss, CustomLoss):  # a loss of ones own may look at whatever is there
        trajectories = _with_sampler_logprobs(trajectories, rollouts, config.logprob_temperature)
    masked = config.truncated == "masked"
    by_prompt = config.loss.advantage_kind in (
        "group",
        "centred",
    )  # means over a prompt, in which what is masked counts
    if masked and not by_prompt:
        trajectories = finished(trajectories)
    if config.loss.right_only:
        trajectories = _right(trajectories)
    else:
        refuse_one_outcome(trajectories)
    trajectories = _with_advantages(trajectories, config.loss, rollouts, critic)
    if masked and by_prompt:
        trajectories = finished(trajectories)
    if by_prompt:
        refuse_uniform(trajectories)
    return train_policy(
        config, out, context, init=init, trajectories=trajectories, loss=loss_of(config.loss), role="teacher",
        scored=scored, extras=Extras(old="sampler" if old is None else "old"),
    )  # fmt: skip


def _scored(
    config: TeacherConfig, folders: Mapping[str, Path | None], *, rollouts: Path, init: Path
) -> ScoreInfo | None:
    """How the log-probs that the loss needs were scored: all alike, and as training scores its own policy.

    Raises:
        ConfigError: some are missing.
        ArtifactError: they were not.
    """
    infos = {}
    for role in sorted(config.loss.required & folders.keys()):
        folder = folders[role]
        if folder is None:
            raise ConfigError(f"{role}: expected log-probs of a checkpoint for the {config.loss.type} loss, got none")
        infos[role] = read_score_info(folder)
        check_scoring(role, infos[role], config, rollouts=rollouts, init=init)
    if len(set(infos.values())) > 1:
        raise ArtifactError(f"{' and '.join(infos)}: expected log-probs that were scored alike, got {infos}")
    return next(iter(infos.values()), None)


def _logprob_columns(folders: Mapping[str, Path | None]) -> dict[str, Any]:
    """Per-token columns by the names of the trajectories' fields."""
    from erpd_hub.training.data import read_columns

    return {
        f"{role}_logprobs": read_columns(folder, "logprobs")["logprobs"]
        for role, folder in folders.items()
        if folder is not None
    }


def _with_advantages(
    trajectories: list["Trajectory"], loss: LossConfig, rollouts: Path, critic: Path | None
) -> list["Trajectory"]:
    from erpd_hub.training import advantages
    from erpd_hub.training.data import matching, read_columns

    if loss.advantage_kind == "none":
        return trajectories
    if loss.advantage_kind != "critic":
        return advantages.from_outcomes(trajectories, scale=loss.advantage_kind == "group")
    assert isinstance(loss, PPOLoss)
    if critic is None:
        raise ConfigError("critic: expected a critic's values for the ppo loss, got none")
    check_values(critic, rollouts)
    columns = read_columns(critic, "values")["values"]
    values = [matching(columns, row.key, len(row.response_ids), "critic") for row in trajectories]
    found = advantages.from_values(trajectories, values, alpha=loss.lambda_alpha, whitened=loss.whiten)
    if not any(row.advantages is not None and bool(row.advantages.any()) for row in found):
        raise StageError(
            "critic: expected values that leave something of the outcomes to explain, got advantages that are zero "
            "everywhere; train the critic for fewer steps, or set loss.whiten: false"
        )
    return found


def _right(trajectories: list["Trajectory"]) -> list["Trajectory"]:
    """The right responses.

    Raises:
        StageError: none is.
    """
    found = [row for row in trajectories if row.label == 1]
    if not found:
        raise StageError(
            f"rollouts: expected right responses to imitate, got none of {len(trajectories)}; draw problems that the "
            "policy solves sometimes, or, where they ended by length, raise max_new_tokens or continue them (extend_to)"
        )
    return found


def refuse_uniform(trajectories: list["Trajectory"]) -> None:
    """Refuse a batch in which no prompt has both right and wrong responses, so that all group advantages are zero.

    Raises:
        StageError: with the counts.
    """
    if any(row.advantages is not None and bool(row.advantages[0]) for row in trajectories):
        return
    outcomes: dict[str, set[float]] = {}
    for row in trajectories:
        outcomes.setdefault(row.problem_id, set()).add(row.label)
    right, wrong, both = (
        sum(labels & {0.0, 1.0} == wanted for labels in outcomes.values()) for wanted in ({1.0}, {0.0}, {0.0, 1.0})
    )
    raise StageError(
        f"rollouts: expected prompts with right and wrong responses, got {right} all right, {wrong} all wrong and "
        f"{both} mixed of {len(outcomes)} prompts; draw problems that the policy solves sometimes"
    )


def graded(rollouts: Path, *, dropped: bool = False) -> list["Trajectory"]:
    """The trajectories with an outcome; `dropped` leaves out those that ended by length."""
    from erpd_hub.training.data import finished, read_trajectories

    found = read_trajectories(rollouts)
    return [row for row in (finished(found) if dropped else found) if row.label in (0.0, 1.0)]


def refuse_one_outcome(trajectories: list["Trajectory"]) -> None:
    """Raises StageError: all that is left is right, or all wrong, so that there is nothing to tell apart."""
    right = sum(row.label == 1 for row in trajectories)
    if right in (0, len(trajectories)):
        raise StageError(
            f"rollouts: expected right and wrong responses, got {right} right of {len(trajectories)} graded; draw "
            "problems that the policy solves sometimes"
        )


def _with_sampler_logprobs(trajectories: list["Trajectory"], rollouts: Path, temperature: float) -> list["Trajectory"]:
    """The sampler's own log-probs as those of the old policy, for the drift metric alone, where they are comparable."""
    from erpd_hub.training.data import join, read_columns, sampled_exactly

    if not sampled_exactly(rollouts, temperature):
        return trajectories
    columns = read_columns(rollouts, "sampler_logprobs")["sampler_logprobs"]
    if any(columns[row.key] is None for row in trajectories):
        return trajectories
    return join(trajectories, old_logprobs=columns)
