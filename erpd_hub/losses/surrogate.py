"""Stage 2's objective (Eq. 9): the clipped surrogate on a token's own signal, and what else may hold the student."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from erpd_hub.estimators import kl_k1, kl_k2, kl_k3, log_ratio
from erpd_hub.losses.batch import LossOutput, Reduction, TokenBatch, aggregate, shared_metrics, token_sum
from erpd_hub.losses.policy_gradient import clipped_surrogate

if TYPE_CHECKING:  # the benchmarks run with torch and transformers alone
    from erpd_hub.config.training import KLCorrection, KLEstimator

_ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def clip_loss(
    batch: TokenBatch,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    kl_weight: float = 0.0,
    kl_estimator: "KLEstimator" = "k3",
    kl_correction: "KLCorrection" = "none",
    entropy_weight: float = 0.0,
    reduction: Reduction = "token",
    evolving: Callable[[TokenBatch], Tensor] | None = None,
) -> LossOutput:
    """Eq. 9: -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) with rho = pi_student / pi_old.

    Optional terms: + kl_weight * KL(student || old), exact at the states of the old samples or estimated on their
    tokens, and - entropy_weight * entropy.

    Args:
        kl_correction: An estimator is made for tokens of the student; these are the old policy's. `ratio` multiplies
            it by rho, which turns a mean over the latter into one over the former: k1 and k3 then have the value and
            the gradient of KL(student || old), k3 as rho d a token, d = log rho. `none` takes it as it stands [S verl]:
            k3's gradient is then 1 - e^-d and k2's d a token, that of rho A is rho A, so over all of d > 0 they hold no
            more than 1/4 and 1/e of an advantage per unit of weight.
        evolving: Advantages of the student as it is now, (B, T) without gradient (`signals.Evolving`); None takes the
            batch's own, which are fixed.

    Metrics:
        clip_fraction: share of tokens whose gradient the clip removes.
        kl_penalty: KL(student || old) as above, before its weight.
    """
    assert batch.old_logprobs is not None, "the clipped loss needs old log-probs"
    advantages = batch.advantages if evolving is None else evolving(batch)
    assert advantages is not None, "the clipped loss needs advantages"
    ratio = log_ratio(batch.logprobs, batch.old_logprobs).exp()
    losses, clipped = clipped_surrogate(ratio, advantages, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    metrics = shared_metrics(batch) | {"clip_fraction": token_sum(clipped, batch.mask)}
    if kl_weight:
        penalty = _kl_to_old(batch, kl_estimator, kl_correction)
        losses = losses + kl_weight * penalty
        metrics["kl_penalty"] = token_sum(penalty.detach(), batch.mask)
    if entropy_weight:
        assert batch.entropy is not None, "an entropy weight needs the entropy"
        losses = losses - entropy_weight * batch.entropy
    return LossOutput(aggregate(losses, batch, reduction), reduction, metrics)


def _kl_to_old(batch: TokenBatch, estimator: "KLEstimator", correction: "KLCorrection") -> Tensor:
    """(B, T) KL(student || old) with gradient."""
    if estimator == "exact":
        assert batch.kl_to_old is not None, "the exact KL needs the old policy itself"
        return batch.kl_to_old
    assert batch.old_logprobs is not None
    estimate = _ESTIMATORS[estimator](batch.logprobs, batch.old_logprobs)
    return estimate if correction == "none" else log_ratio(batch.logprobs, batch.old_logprobs).exp() * estimate
