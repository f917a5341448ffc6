"""Stage 2: what matters in the signal, back into the policy under a trust region (Eq. 9).

The advantage of a token is its own whitened signal; there is no return, baseline or discount. `outcome` is the control
that goes the same way without a teacher.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from erpd_hub.config import DistillConfig
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.stage_context import StageContext, StageResult
from erpd_hub.stages.score import ScoreInfo, read_score_info
from erpd_hub.stages.teacher import refuse_uniform
from erpd_hub.stages.training import Extras, check_scoring, train_policy

KL_OLD_TO_STUDENT = "kl_old_to_student_k3"
"""The only KL that training can see: on the old policy's samples."""

if TYPE_CHECKING:
    from erpd_hub.losses import LossOutput, TokenBatch
    from erpd_hub.signals import Shaping, Whitening
    from erpd_hub.training.advantages import FittedShaping
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
    anchor: Path | None = None,
) -> StageResult:
    """Train the student and write `out/step-N/` for every kept step.

    Args:
        signal: Signal folder, for the advantage `signal`; it brings the old log-probs along.
        old: Log-probs folder of the policy that sampled, for the advantage `outcome`.
        anchor: That policy itself, for the exact KL.

    Raises:
        ArtifactError: signal or log-probs are of other rollouts, or were scored otherwise than the policy in training,
            or an evolving signal has no numerator.
        StageError: the advantage is `outcome` and no prompt has both right and wrong responses; or a signal no more
            than rounding is to be whitened.
    """
    from erpd_hub.training.advantages import ShapedSteps, fit_shaping, refuse_rounding, shaped

    trajectories, scored = _raw(config, rollouts=rollouts, init=init, signal=signal, old=old)
    shaping = _shaping(config)
    fitted = fit_shaping(trajectories, shaping)
    refuse_rounding(shaping, fitted.whitening)
    evolving = config.denominator == "evolving"
    if not evolving and config.whiten != "step":
        trajectories = shaped(trajectories, shaping, fitted.whitening)
    target = config.kl_target
    extras = Extras(
        steps=partial(ShapedSteps, shaping=shaping) if config.whiten == "step" else None,
        anchor=anchor,
        old="old",
        stop=None if target is None else lambda metrics: metrics[KL_OLD_TO_STUDENT] >= target,
    )
    loss = partial(_loss, config=config, shaping=shaping, whitening=fitted.whitening if evolving else None)
    result = train_policy(
        config, out, context, init=init, trajectories=trajectories, loss=loss, role="student", scored=scored,
        extras=extras,
    )  # fmt: skip
    facts = _facts(config, fitted)
    step_metrics = {step: metrics | facts for step, metrics in result.step_metrics.items()}
    return StageResult(result.metrics | facts, step_metrics)


def _facts(config: DistillConfig, fitted: "FittedShaping") -> dict[str, float]:
    """How the raw signal became advantages: the frozen whitening, which a step's own has not, and the mask's share."""
    facts = {"share_removed": fitted.share_removed}
    if config.whiten == "dataset":
        facts |= {"whitening_shift": fitted.whitening.shift, "whitening_scale": fitted.whitening.scale}
    return facts


def _loss(
    batch: "TokenBatch", *, config: DistillConfig, shaping: "Shaping", whitening: "Whitening | None"
) -> "LossOutput":
    from erpd_hub.losses import clip_loss
    from erpd_hub.signals import Evolving

    return clip_loss(
        batch,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=config.dual_clip,
        kl_weight=config.kl_weight,
        kl_estimator=config.kl_estimator,
        kl_correction=config.kl_correction,
        entropy_weight=config.entropy_weight,
        reduction=config.reduction,
        evolving=None if whitening is None else Evolving(shaping, whitening),
    )


def _shaping(config: DistillConfig) -> "Shaping":
    from erpd_hub.signals import Shaping

    return Shaping(
        right=config.keep_on_right,
        wrong=config.keep_on_wrong,
        whiten=config.whiten != "none",
        mask_first=config.whiten_order == "after_mask",
        shift_mean=config.shift_mean,
    )


def _raw(
    config: DistillConfig, *, rollouts: Path, init: Path, signal: Path | None, old: Path | None
) -> tuple[list["Trajectory"], ScoreInfo]:
    """Trajectories whose advantages are the raw signal, or the outcome relative to its prompt's, and how old log-probs
    were scored."""
    from erpd_hub.training.data import finished

    if config.advantage == "signal":
        if signal is None:
            raise ConfigError("signal: expected a signal for the advantage 'signal', got none")
        scored = read_score_info(signal, "signal")
        check_scoring("signal", scored, config, rollouts=rollouts, init=init)
        trajectories = _from_signal(rollouts, signal, evolving=config.denominator == "evolving")
        return (trajectories if config.truncated == "negative" else finished(trajectories)), scored
    if old is None:
        raise ConfigError("old: expected old log-probs for the advantage 'outcome', got none")
    scored = read_score_info(old)
    check_scoring("old", scored, config, rollouts=rollouts, init=init)
    return _from_outcome(rollouts, old, config.truncated), scored


def _from_signal(rollouts: Path, signal: Path, *, evolving: bool) -> list["Trajectory"]:
    """Trajectories with the raw signal as advantages: as it stands, or relative to the old policy if it is to evolve.

    Raises:
        ArtifactError: it is to evolve and has no numerator.
    """
    from erpd_hub.training.data import join, read_columns, read_trajectories

    trajectories = read_trajectories(rollouts)
    if not evolving:
        columns = read_columns(signal, "signal", "old")
        return join(trajectories, advantages=columns["signal"], old_logprobs=columns["old"])
    columns = read_columns(signal, "numerator", "old")
    start = {}
    for key, numerator in columns["numerator"].items():
        before = columns["old"][key]
        if numerator is None or before is None:
            raise ArtifactError(
                f"signal: expected a numerator for the evolving denominator, got none in sample {key}; give the signal "
                "one, or take denominator: fixed"
            )
        start[key] = numerator - before
    return join(trajectories, advantages=start, old_logprobs=columns["old"], numerator_logprobs=columns["numerator"])


def _from_outcome(rollouts: Path, old: Path, truncated: str) -> list["Trajectory"]:
    """Trajectories with the group-centred outcome on each of their tokens as advantages, which must not all be zero."""
    from erpd_hub.training.advantages import from_outcomes
    from erpd_hub.training.data import finished, join, read_columns, read_trajectories

    trajectories = join(read_trajectories(rollouts), old_logprobs=read_columns(old, "logprobs")["logprobs"])
    found = from_outcomes(finished(trajectories) if truncated == "dropped" else trajectories, scale=False)
    if truncated == "masked":
        found = finished(found)
    refuse_uniform(found)
    return found
