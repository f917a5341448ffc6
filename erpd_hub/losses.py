"""The losses of both stages as pure functions of token log-probs.

CE (Eq. 2) and MSE (Eq. 10) squeeze the batch in stage 1; the clipped surrogate (Eq. 9) distils in stage 2. Each returns
a *sum* and says what it is to be divided by, because the trainer knows a whole step's denominators before its first
micro-batch: any split of a step then gives the same loss. Metrics are (sum, count) pairs for the same reason.

Not here: SAPO, GRPO, PPO and SFT teachers, and the evolving denominator.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from erpd_hub.logprobs import kl_k1, kl_k3, log_ratio, masked_mean

Reduction = Literal["token", "sequence", "max_len"]
Metrics = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class TokenBatch:
    """What a loss may look at; fields a loss does not need are None.

    B sequences, T response positions; log-probs in nats.
    """

    logprobs: Tensor  # (B, T), with gradient
    mask: Tensor  # (B, T) bool, True on response tokens
    labels: Tensor  # (B,) outcome in {0, 1}; NaN where it could not be graded
    old_logprobs: Tensor | None = None  # (B, T), of the policy that sampled
    reference_logprobs: Tensor | None = None  # (B, T)
    advantages: Tensor | None = None  # (B, T)
    entropy: Tensor | None = None  # (B, T), of the policy in training, over the whole vocabulary


@dataclass(frozen=True)
class LossOutput:
    """A sum over the batch, what it is divided by, and metrics as (sum, count)."""

    sum: Tensor
    reduction: Reduction
    metrics: Metrics


def ce_loss(batch: TokenBatch, *, beta: float, aggregate: Literal["sum", "mean"]) -> LossOutput:
    """Eq. 2: BCE of sigma(S) against the outcome, mean over sequences; S = beta * aggregate_t log pi/pi_ref (Eq. 1, 3).

    Its gradient is beta (sigma(S) - l) a token: a sequence fades out once its S saturates.

    Metrics:
        reward_magnitude: mean |S|; above about 4 nothing more is learned from a sequence.
    """
    assert batch.reference_logprobs is not None, "the CE loss needs reference log-probs"
    ratios = torch.where(batch.mask, batch.logprobs - batch.reference_logprobs, 0.0)
    rewards = beta * (ratios.sum(-1) if aggregate == "sum" else masked_mean(ratios, batch.mask, axis=-1))
    losses = binary_cross_entropy_with_logits(rewards, batch.labels, reduction="none")
    metrics = _shared_metrics(batch) | {"reward_magnitude": (rewards.detach().abs().sum().item(), len(rewards))}
    return LossOutput(losses.sum(), "sequence", metrics)


def mse_loss(batch: TokenBatch, *, negative_weight: float) -> LossOutput:
    """Eq. 10: w(R) (pi(a_t|s_t) - R)^2, mean over response tokens; w(1) = 1, w(0) = negative_weight.

    At the start pi is near 1, so wrong responses dominate (2 p (p - R) a token) and right ones are dragged along: it
    unlearns first and recovers after.

    Metrics:
        outcome, residual, residual_squared: the pieces of the explained variance over tokens, as sums of R, R - pi and
            (R - pi)^2.
    """
    probabilities = batch.logprobs.exp()
    outcome = batch.labels[:, None].expand_as(probabilities)
    residual = outcome - probabilities
    weight = torch.where(outcome == 1, 1.0, negative_weight)
    squared = residual.detach() ** 2
    metrics = _shared_metrics(batch) | {
        "outcome": _token_sum(outcome, batch.mask),
        "residual": _token_sum(residual.detach(), batch.mask),
        "residual_squared": _token_sum(squared, batch.mask),
    }
    return LossOutput(torch.where(batch.mask, weight * residual**2, 0.0).sum(), "token", metrics)


def clip_loss(
    batch: TokenBatch, *, clip_low: float, clip_high: float, kl_weight: float, entropy_weight: float
) -> LossOutput:
    """Eq. 9: -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), mean over response tokens; rho = pi_student/pi_old.

    Optional terms: + kl_weight * k3 KL(student || old), taken on old samples without a correction for them [S verl],
    and - entropy_weight * entropy.

    Metrics:
        clip_fraction: share of tokens whose gradient the clip removes.
    """
    assert batch.old_logprobs is not None, "the clipped loss needs old log-probs"
    assert batch.advantages is not None, "the clipped loss needs advantages"
    ratio = log_ratio(batch.logprobs, batch.old_logprobs).exp()
    free = ratio * batch.advantages
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high) * batch.advantages
    losses = -torch.minimum(free, clipped)
    if kl_weight:
        losses = losses + kl_weight * kl_k3(batch.logprobs, batch.old_logprobs)
    if entropy_weight:
        assert batch.entropy is not None, "an entropy weight needs the entropy"
        losses = losses - entropy_weight * batch.entropy
    metrics = _shared_metrics(batch) | {"clip_fraction": _token_sum((clipped < free).float(), batch.mask)}
    return LossOutput(torch.where(batch.mask, losses, 0.0).sum(), "token", metrics)


LOSSES: dict[str, Callable[..., LossOutput]] = {"ce": ce_loss, "mse": mse_loss}
"""Teacher losses by the `type` of their config, whose other fields are their keyword arguments."""


def summarise(totals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Means of accumulated metrics (nothing for a zero count), and the explained variance where its pieces are.

    explained_variance = 1 - Var(R - pi) / Var(R) over tokens [I].
    """
    means = {name: total / count for name, (total, count) in totals.items() if count}
    if "residual_squared" in means:
        outcome, residual, squared = (means.pop(name) for name in ("outcome", "residual", "residual_squared"))
        if variance := outcome * (1 - outcome):
            means["explained_variance"] = 1 - (squared - residual**2) / variance
    return means


@torch.no_grad()
def _shared_metrics(batch: TokenBatch) -> Metrics:
    """Token means every loss reports.

    logprob_positive, logprob_negative: of right and wrong responses. kl_old_to_new_k1, _k3: KL(old || new) on old
    samples, all that is at hand in training.
    """
    positive, negative = (batch.mask & (batch.labels == label)[:, None] for label in (1, 0))
    metrics = {
        "logprob_positive": _token_sum(batch.logprobs, positive),
        "logprob_negative": _token_sum(batch.logprobs, negative),
    }
    if batch.entropy is not None:
        metrics["entropy"] = _token_sum(batch.entropy, batch.mask)
    if batch.old_logprobs is not None:
        metrics["kl_old_to_new_k1"] = _token_sum(kl_k1(batch.old_logprobs, batch.logprobs), batch.mask)
        metrics["kl_old_to_new_k3"] = _token_sum(kl_k3(batch.old_logprobs, batch.logprobs), batch.mask)
    return metrics


def _token_sum(values: Tensor, mask: Tensor) -> tuple[float, float]:
    # Summed in fp64: how a step is cut into micro-batches must not show in what it reports.
    return torch.where(mask, values, 0.0).double().sum().item(), mask.sum().item()
