"""Teacher losses on the bare outcome, without advantages: CE (Eq. 2), MSE (Eq. 10) and SFT on right responses."""

from typing import Literal

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from erpd_hub.estimators import kl_k3, masked_mean
from erpd_hub.losses.batch import LossOutput, TokenBatch, aggregate, shared_metrics


def ce_loss(batch: TokenBatch, *, beta: float, aggregate: Literal["sum", "mean"], kl_weight: float = 0.0) -> LossOutput:
    """Eq. 2: BCE of sigma(S) against the outcome, mean over sequences; S = beta * aggregate_t log pi/pi_ref (Eq. 1, 3).

    Its gradient is beta (sigma(S) - l) a token: a sequence fades out once its S saturates. Optionally + kl_weight *
    k3 KL(pi || pi_ref), mean over a sequence's tokens: it acts where S no longer does.

    Metrics:
        reward_magnitude: mean |S|; above about 4 nothing more is learned from a sequence.
    """
    assert batch.reference_logprobs is not None, "the CE loss needs reference log-probs"
    ratios = torch.where(batch.mask, batch.logprobs - batch.reference_logprobs, 0.0)
    rewards = beta * (ratios.sum(-1) if aggregate == "sum" else masked_mean(ratios, batch.mask, axis=-1))
    losses = binary_cross_entropy_with_logits(rewards, batch.labels, reduction="none")
    if kl_weight:
        penalty = kl_k3(batch.logprobs, batch.reference_logprobs)
        losses = losses + kl_weight * masked_mean(penalty, batch.mask, axis=-1)
    metrics = shared_metrics(batch) | {"reward_magnitude": (rewards.detach().abs().sum().item(), len(rewards))}
    return LossOutput(losses.sum(), "sequence", metrics)


def mse_loss(batch: TokenBatch, *, negative_weight: float) -> LossOutput:
    """Eq. 10: w(R) (pi(a_t|s_t) - R)^2, mean over response tokens; w(1) = 1, w(0) = negative_weight.

    At the start pi is near 1, so wrong responses dominate (2 p (p - R) a token) and right ones are dragged along: it
    unlearns first and recovers after.
    """
    probabilities = batch.logprobs.exp()
    outcome = batch.labels[:, None].expand_as(probabilities)
    weight = torch.where(outcome == 1, 1.0, outcome.new_tensor(negative_weight))
    losses = weight * (outcome - probabilities) ** 2
    return LossOutput(aggregate(losses, batch, "token"), "token", shared_metrics(batch))


def sft_loss(batch: TokenBatch) -> LossOutput:
    """-log pi, mean over the tokens of right responses: the recovery of Table 9.

    Others add nothing to the sum; whoever makes a step leaves them out of it, so that its denominator is theirs too.
    """
    losses = torch.where((batch.labels == 1)[:, None], -batch.logprobs, 0.0)
    return LossOutput(aggregate(losses, batch, "token"), "token", shared_metrics(batch))
