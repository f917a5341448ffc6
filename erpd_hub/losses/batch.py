"""What a loss sees, what it returns, and the metrics that all of them share.

Each loss returns a *sum* and says what it is to be divided by, because the trainer knows a whole step's denominators
before its first micro-batch: any split of a step then gives the same loss. Metrics are (sum, count) pairs for the same
reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from erpd_hub.estimators import kl_k1, kl_k3, masked_mean

Reduction = Literal["token", "sequence", "max_len"]
"""Mean over all response tokens; over sequences of a value each (none of them empty, which `Trajectory`s are not); over
sequences times the longest response."""
Metrics = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class TokenBatch:
    """What a loss may look at; fields a loss does not need are None.

    B sequences, T response positions; log-probs in nats.
    """

    logprobs: Tensor  # (B, T), with gradient
    mask: Tensor  # (B, T) bool, True on response tokens
    labels: Tensor  # (B,) outcome in {0, 1}; losses on the bare outcome take no NaN, for what could not be graded
    old_logprobs: Tensor | None = None  # (B, T), of the policy that sampled
    reference_logprobs: Tensor | None = None  # (B, T)
    numerator_logprobs: Tensor | None = None  # (B, T), of the teacher, for the evolving signal
    advantages: Tensor | None = None  # (B, T)
    entropy: Tensor | None = None  # (B, T), of the policy in training, over the whole vocabulary
    kl_to_old: Tensor | None = None  # (B, T), KL(policy || old) over the whole vocabulary, with gradient


@dataclass(frozen=True)
class ValueBatch:
    """What the loss of a critic looks at."""

    values: Tensor  # (B, T) V of the state before each response token, with gradient
    mask: Tensor  # (B, T) bool, True on response tokens
    labels: Tensor  # (B,) outcome in {0, 1}


@dataclass(frozen=True)
class LossOutput:
    """A sum over the batch, what it is divided by, and metrics as (sum, count)."""

    sum: Tensor
    reduction: Reduction
    metrics: Metrics


def aggregate(losses: Tensor, batch: TokenBatch | ValueBatch, reduction: Reduction) -> Tensor:
    """The sum, over a batch, of (B, T) token losses, for a reduction: of tokens, or of each sequence's token mean."""
    if reduction == "sequence":
        return masked_mean(losses, batch.mask, axis=-1).sum()
    return torch.where(batch.mask, losses, 0.0).sum()


def summarise(totals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Means of accumulated metrics (nothing for a zero count), and the explained variance where its pieces are.

    explained_variance = 1 - Var(R - x) / Var(R) over tokens, x what is fitted to the outcome R [I].
    """
    means = {name: total / count for name, (total, count) in totals.items() if count}
    if "residual_squared" in means:
        outcome, residual, squared = (means.pop(name) for name in ("outcome", "residual", "residual_squared"))
        if variance := outcome * (1 - outcome):
            means["explained_variance"] = 1 - (squared - residual**2) / variance
    return means


def fit_metrics(fitted: Tensor, batch: TokenBatch | ValueBatch) -> Metrics:
    """Pieces of the explained variance over tokens of graded responses: sums of R, R - x and (R - x)^2.

    Args:
        fitted: (B, T), x: what is fitted to the outcome.
    """
    graded = batch.mask & ~batch.labels.isnan()[:, None]
    outcome = batch.labels[:, None].expand_as(fitted)
    residual = (outcome - fitted).detach()
    return {
        "outcome": token_sum(outcome, graded),
        "residual": token_sum(residual, graded),
        "residual_squared": token_sum(residual**2, graded),
    }


@torch.no_grad()
def shared_metrics(batch: TokenBatch) -> Metrics:
    """Token means every loss reports.

    logprob_positive, _negative and probability_positive, _negative: of the taken tokens of right and wrong responses.
    outcome, residual, residual_squared: pieces of the explained variance of the outcome by the tokens' probabilities
    (`summarise`). kl_old_to_new_k1, _k3: KL(old || new) on old samples, all that is at hand in training;
    kl_reference_to_new_k3: the same of the reference policy, on the same samples.
    """
    metrics = fit_metrics(batch.logprobs.exp(), batch)
    for name, label in (("positive", 1), ("negative", 0)):
        of_label = batch.mask & (batch.labels == label)[:, None]
        metrics[f"logprob_{name}"] = token_sum(batch.logprobs, of_label)
        metrics[f"probability_{name}"] = token_sum(batch.logprobs.exp(), of_label)
    if batch.entropy is not None:
        metrics["entropy"] = token_sum(batch.entropy, batch.mask)
    if batch.old_logprobs is not None:
        metrics["kl_old_to_new_k1"] = token_sum(kl_k1(batch.old_logprobs, batch.logprobs), batch.mask)
        metrics["kl_old_to_new_k3"] = token_sum(kl_k3(batch.old_logprobs, batch.logprobs), batch.mask)
    if batch.reference_logprobs is not None:
        metrics["kl_reference_to_new_k3"] = token_sum(kl_k3(batch.reference_logprobs, batch.logprobs), batch.mask)
    return metrics


def token_sum(values: Tensor, mask: Tensor) -> tuple[float, float]:
    """(sum, count) of the values under the mask."""
    # Summed in fp64: how a step is cut into micro-batches must not show in what it reports.
    return torch.where(mask, values, 0.0).double().sum().item(), mask.sum().item()
