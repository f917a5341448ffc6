"""Policy-gradient losses on a fixed batch: the paper's GRPO, SAPO and PPO, and others behind the same interface.

All take per-token advantages A and the log-probs of the policy that sampled; rho_t = pi(a_t|s_t) / pi_old(a_t|s_t).
How A comes from outcomes (`erpd_hub.advantages`) is not their matter. Every formula was read in a primary source: the
authors' code, verl or TRL.

Not here, for want of one: DISPO, MinPRO. Nor BAPO, CTPO, AsymRE and OPMD.
"""

from typing import Literal

import torch
from torch import Tensor

from erpd_hub.estimators import log_ratio, masked_mean
from erpd_hub.losses.batch import LossOutput, Metrics, Reduction, TokenBatch, aggregate, shared_metrics, token_sum

_MAX_SEQUENCE_LOG_RATIO = 20.0
"""Bound of VESPO's log W [S authors' code]."""


def grpo_loss(batch: TokenBatch, *, clip_low: float, clip_high: float) -> LossOutput:
    """Eq. 5 with two clip bounds: -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), mean over response tokens.

    Metrics:
        clip_fraction: share of tokens whose gradient the clip removes.
    """
    return _clipped(_ratio(batch), batch, clip_low=clip_low, clip_high=clip_high, reduction="token")


def dr_grpo_loss(batch: TokenBatch, *, clip_low: float, clip_high: float) -> LossOutput:
    """GRPO divided by sequences * longest response, so that a long wrong answer is not blamed less a token [S TRL].

    The longest response is that of the optimizer step, so the divisor changes from step to step; the originals take a
    constant, the limit of the sampler.
    """
    return _clipped(_ratio(batch), batch, clip_low=clip_low, clip_high=clip_high, reduction="max_len")


def ppo_loss(batch: TokenBatch, *, clip_low: float, clip_high: float) -> LossOutput:
    """Eq. 5 on the generalised advantages of a critic (`erpd_hub.advantages.gae`), mean over response tokens."""
    return grpo_loss(batch, clip_low=clip_low, clip_high=clip_high)


def sapo_loss(batch: TokenBatch, *, tau_positive: float, tau_negative: float) -> LossOutput:
    """-(4 / tau) sigma(tau (rho - 1)) A, tau by the sign of A; mean over tokens, then over sequences [S verl, TRL].

    The gate's slope is 1 at rho = 1 and sech^2(tau (rho - 1) / 2) elsewhere: a soft clip.
    """
    ratio, advantages = _ratio(batch), _advantages(batch)
    tau = _choose(advantages > 0, tau_positive, tau_negative, like=advantages)
    losses = -4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantages
    return LossOutput(aggregate(losses, batch, "sequence"), "sequence", shared_metrics(batch))


def gspo_loss(batch: TokenBatch, *, clip_low: float, clip_high: float) -> LossOutput:
    """-min(s_t A, clip(s_t) A), mean over tokens, then over sequences [S verl, TRL].

    s_t = sg(s) pi / sg(pi): the value of the sequence's ratio s = exp(mean_t log rho_t), the gradient of the token.
    """
    sequence = masked_mean(_raw_log_ratio(batch), batch.mask, axis=-1)[:, None].detach()
    ratio = log_ratio(sequence + batch.logprobs, batch.logprobs.detach()).exp()
    return _clipped(ratio, batch, clip_low=clip_low, clip_high=clip_high, reduction="sequence")


def cispo_loss(batch: TokenBatch, *, clip_low: float, clip_high: float) -> LossOutput:
    """-sg(clip(rho, 1 - clip_low, 1 + clip_high)) A log pi, mean over tokens: no token loses its gradient [S verl]."""
    ratio = _ratio(batch).detach()
    weight = ratio.clamp(1 - clip_low, 1 + clip_high)
    losses = -weight * _advantages(batch) * batch.logprobs
    metrics = shared_metrics(batch) | {"clip_fraction": token_sum((weight != ratio).float(), batch.mask)}
    return LossOutput(aggregate(losses, batch, "token"), "token", metrics)


def vespo_loss(
    batch: TokenBatch, *, k_positive: float, lambda_positive: float, k_negative: float, lambda_negative: float
) -> LossOutput:
    """-sg(phi(W)) A log pi, mean over tokens; W = prod_t rho_t, phi = exp(lambda + k log W - lambda W).

    (k, lambda) go by the sign of A [S authors' code].
    """
    advantages = _advantages(batch)
    log_weight = torch.where(batch.mask, _raw_log_ratio(batch), 0.0).sum(-1, keepdim=True).detach()
    log_weight = log_weight.clamp(-_MAX_SEQUENCE_LOG_RATIO, _MAX_SEQUENCE_LOG_RATIO)
    k = _choose(advantages >= 0, k_positive, k_negative, like=advantages)
    scale = _choose(advantages >= 0, lambda_positive, lambda_negative, like=advantages)
    phi = (scale + k * log_weight - scale * log_weight.exp()).exp()
    return LossOutput(aggregate(-phi * advantages * batch.logprobs, batch, "token"), "token", shared_metrics(batch))


def topr_loss(batch: TokenBatch, *, ratio_level: Literal["sequence", "token"]) -> LossOutput:
    """Right responses: -log pi. Wrong ones: +sg(min(rho, 1)) log pi; token mean [S Trinity-RFT, ROLL].

    rho is the sequence's (the paper) or the token's (both codes). Outcomes of +1 and -1 stand for advantages; one that
    could not be graded has none.
    """
    logs = _raw_log_ratio(batch).detach()
    if ratio_level == "sequence":
        logs = torch.where(batch.mask, logs, 0.0).sum(-1, keepdim=True).expand_as(logs)
    taper = torch.where((batch.labels == 0)[:, None], logs.clamp(max=0.0).exp(), 0.0)
    losses = torch.where((batch.labels == 1)[:, None], -1.0, taper) * batch.logprobs
    return LossOutput(aggregate(losses, batch, "token"), "token", shared_metrics(batch))


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """The (B, T) losses -min(rho A, clip(rho) A), and 1 where a clip removes the gradient.

    Args:
        dual_clip: For A < 0 the loss is at most dual_clip * |A| [S verl: 3]; None leaves it free.
    """
    free = ratio * advantages
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    objective, clipped = torch.minimum(free, bounded), bounded < free
    if dual_clip is not None:
        floor = dual_clip * advantages
        beyond = (advantages < 0) & (objective < floor)
        objective, clipped = torch.where(beyond, floor, objective), clipped | beyond
    return -objective, clipped.float()


def _clipped(
    ratio: Tensor, batch: TokenBatch, *, clip_low: float, clip_high: float, reduction: Reduction
) -> LossOutput:
    losses, clipped = clipped_surrogate(ratio, _advantages(batch), clip_low=clip_low, clip_high=clip_high)
    metrics: Metrics = shared_metrics(batch) | {"clip_fraction": token_sum(clipped, batch.mask)}
    return LossOutput(aggregate(losses, batch, reduction), reduction, metrics)


def _raw_log_ratio(batch: TokenBatch) -> Tensor:
    assert batch.old_logprobs is not None, "a policy gradient needs old log-probs"
    return batch.logprobs - batch.old_logprobs


def _ratio(batch: TokenBatch) -> Tensor:
    assert batch.old_logprobs is not None, "a policy gradient needs old log-probs"
    return log_ratio(batch.logprobs, batch.old_logprobs).exp()


def _advantages(batch: TokenBatch) -> Tensor:
    assert batch.advantages is not None, "a policy gradient needs advantages"
    return batch.advantages


def _choose(where: Tensor, yes: float, no: float, *, like: Tensor) -> Tensor:
    # Of two plain numbers torch.where makes float32.
    return torch.where(where, like.new_tensor(yes), like.new_tensor(no))
