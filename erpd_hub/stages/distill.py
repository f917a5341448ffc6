"""Stage 2: what matters in the signal, back into the policy under a trust region (Eq. 9).

The advantage of a token is its own whitened signal; there is no return, baseline or discount. `outcome` is the control
that goes the same way without a teacher.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from erpd_hub.config import DistillConfig
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.stages import StageContext, StageResult

if TYPE_CHECKING:
    from erpd_hub.training.data import Trajectory


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
        ArtifactError: signal or log-probs do not fit the rollouts or the temperature.
    """
    from erpd_hub.losses import clip_loss
    from erpd_hub.stages.teacher import train_policy

    if config.advantage == "signal":
        if signal is None:
            raise ConfigError("signal: expected a signal for the advantage 'signal', got none")
        trajectories = _from_signal(rollouts, signal, config)
    else:
        if old is None:
            raise ConfigError("old: expected old log-probs for the advantage 'outcome', got none")
        trajectories = _from_outcome(rollouts, old, config)
    trajectories = _whitened(trajectories, shift_mean=config.shift_mean) if config.whiten else trajectories
    loss = partial(
        clip_loss,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        kl_weight=config.kl_weight,
        entropy_weight=config.entropy_weight,
    )
    return train_policy(config, out, context, init=init, trajectories=trajectories, loss=loss, role="student")


def _from_signal(rollouts: Path, signal: Path, config: DistillConfig) -> list["Trajectory"]:
    """Trajectories with the raw signal as advantages."""
    from erpd_hub.training.data import join, read_columns, read_trajectories

    path = signal / "signal.json"
    if not path.is_file():
        raise ArtifactError(f"{signal}: expected a signal with signal.json in it, got none")
    scored = json.loads(path.read_text())["logprob_temperature"]
    if scored != config.logprob_temperature:
        raise ArtifactError(
            f"logprob_temperature: expected that of the signal, {scored}, got {config.logprob_temperature}; "
            "use one temperature throughout"
        )
    columns = read_columns(signal, "signal", "old")
    return join(read_trajectories(rollouts), advantages=columns["signal"], old_logprobs=columns["old"])


def _from_outcome(rollouts: Path, old: Path, config: DistillConfig) -> list["Trajectory"]:
    """Trajectories with the group-centred outcome on each of their tokens as advantages."""
    import torch

    from erpd_hub.signals import group_advantages
    from erpd_hub.stages.teacher import check_temperature
    from erpd_hub.training.data import join, read_columns, read_trajectories

    check_temperature(old, config)
    trajectories = join(read_trajectories(rollouts), old_logprobs=read_columns(old, "logprobs")["logprobs"])
    prompts = {problem_id: index for index, problem_id in enumerate(dict.fromkeys(r.problem_id for r in trajectories))}
    advantages = group_advantages(
        torch.tensor([row.label for row in trajectories]),
        torch.tensor([prompts[row.problem_id] for row in trajectories]),
    )
    return [
        replace(row, advantages=advantage.expand(len(row.response_ids)))
        for row, advantage in zip(trajectories, advantages, strict=True)
    ]


def _whitened(trajectories: list["Trajectory"], *, shift_mean: bool) -> list["Trajectory"]:
    """Advantages whitened over all response tokens of the batch, so long responses weigh more in mean and scale."""
    import torch

    from erpd_hub.signals import whiten

    flat = torch.cat([row.advantages for row in trajectories])
    whitened = whiten(flat, torch.ones_like(flat, dtype=torch.bool), shift_mean=shift_mean)
    parts = whitened.split([len(row.response_ids) for row in trajectories])
    return [replace(row, advantages=part) for row, part in zip(trajectories, parts, strict=True)]
