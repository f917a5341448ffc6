"""Stage 2: what matters in the signal, back into the policy under a trust region (Eq. 9).

The advantage of a token is its own whitened signal; there is no return, baseline or discount. `outcome` is the control
that goes the same way without a teacher.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from erpd_hub.config import DistillConfig
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.stages import StageContext, StageResult
from erpd_hub.stages.rollout import describe_samples
from erpd_hub.stages.score import read_score_info
from erpd_hub.stages.teacher import check_scoring, train_policy

if TYPE_CHECKING:
    from erpd_hub.training.batches import Trajectory


def run(
    config: DistillConfig,
    out: Path,
    *,
    context: StageContext,
    rollouts: Path,
    init: Path,
    signal: Path | None = None,
    old: Path | None = None,
) -> StageResult:
    """Train the student and write `out/step-N/` for every kept step.

    Args:
        signal: Signal folder, for the advantage `signal`; it brings the old log-probs along.
        old: Log-probs folder of the policy that sampled, for the advantage `outcome`.

    Raises:
        ArtifactError: signal or log-probs are of other rollouts, or were scored otherwise than the policy in training.
        StageError: the advantage is `outcome` and no prompt has both right and wrong responses.
    """
    from erpd_hub.losses import clip_loss

    if config.advantage == "signal":
        if signal is None:
            raise ConfigError("signal: expected a signal for the advantage 'signal', got none")
        scored = read_score_info(signal, "signal")
        check_scoring("signal", scored, config, rollouts=rollouts, init=init)
        trajectories = _from_signal(rollouts, signal)
    else:
        if old is None:
            raise ConfigError("old: expected old log-probs for the advantage 'outcome', got none")
        scored = read_score_info(old)
        check_scoring("old", scored, config, rollouts=rollouts, init=init)
        trajectories = _from_outcome(rollouts, old)
    trajectories = _whitened(trajectories, shift_mean=config.shift_mean) if config.whiten else trajectories
    loss = partial(
        clip_loss,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        kl_weight=config.kl_weight,
        entropy_weight=config.entropy_weight,
    )
    return train_policy(
        config, out, context, init=init, trajectories=trajectories, loss=loss, role="student", scored=scored
    )


def _from_signal(rollouts: Path, signal: Path) -> list["Trajectory"]:
    """Trajectories with the raw signal as advantages."""
    from erpd_hub.training.data import join, read_columns, read_trajectories

    columns = read_columns(signal, "signal", "old")
    return join(read_trajectories(rollouts), advantages=columns["signal"], old_logprobs=columns["old"])


def _from_outcome(rollouts: Path, old: Path) -> list["Trajectory"]:
    """Trajectories with the group-centred outcome on each of their tokens as advantages, which must not all be zero."""
    import torch

    from erpd_hub.signals import group_advantages
    from erpd_hub.training.data import join, read_columns, read_trajectories

    trajectories = join(read_trajectories(rollouts), old_logprobs=read_columns(old, "logprobs")["logprobs"])
    prompts = {problem_id: index for index, problem_id in enumerate(dict.fromkeys(r.problem_id for r in trajectories))}
    advantages = group_advantages(
        torch.tensor([row.label for row in trajectories]),
        torch.tensor([prompts[row.problem_id] for row in trajectories]),
    )
    if not advantages.any():
        _refuse_uniform(rollouts)
    return [
        replace(row, advantages=advantage.expand(len(row.response_ids)))
        for row, advantage in zip(trajectories, advantages, strict=True)
    ]


def _refuse_uniform(rollouts: Path) -> NoReturn:
    found = describe_samples(rollouts)
    raise StageError(
        f"rollouts: expected prompts with right and wrong responses, got {found['groups_all_right']} all right, "
        f"{found['groups_all_wrong']} all wrong and {found['groups_mixed']} mixed of {found['prompts']} prompts; draw "
        "problems that the policy solves sometimes"
    )


def _whitened(trajectories: list["Trajectory"], *, shift_mean: bool) -> list["Trajectory"]:
    """Advantages whitened over all response tokens of the batch, so long responses weigh more in mean and scale."""
    import torch

    from erpd_hub.signals import whiten

    flat = torch.cat([row.advantages for row in trajectories])
    whitened = whiten(flat, torch.ones_like(flat, dtype=torch.bool), shift_mean=shift_mean)
    parts = whitened.split([len(row.response_ids) for row in trajectories])
    return [replace(row, advantages=part) for row, part in zip(trajectories, parts, strict=True)]
