"""Masked means, log-ratios of taken tokens, and the KL estimators built on them. Tensors in, tensors out; torch alone.

B sequences, T response positions.
"""

import torch
from torch import Tensor

_MAX_LOG_RATIO = 20.0
"""Bound on log-ratios before exp: e^20 is far outside any clip range and still finite in fp32."""


def masked_mean(values: Tensor, mask: Tensor, axis: int | None = None) -> Tensor:
    """Mean of `values` where `mask` is True; 0 where nothing is."""
    total = torch.where(mask, values, 0.0)
    return total.sum() / mask.sum().clamp(min=1) if axis is None else total.sum(axis) / mask.sum(axis).clamp(min=1)


def log_ratio(logprobs: Tensor, reference: Tensor) -> Tensor:
    """log pi / pi_reference of the taken tokens, bounded at 20 nats on both sides so that its exp is finite.

    Beyond the bound it has no gradient.
    """
    return (logprobs - reference).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)


def kl_k1(logprobs_p: Tensor, logprobs_q: Tensor) -> Tensor:
    """k1 estimate of KL(p || q) a token, log p - log q, for tokens drawn from p: unbiased, may be negative."""
    return logprobs_p - logprobs_q


def kl_k2(logprobs_p: Tensor, logprobs_q: Tensor) -> Tensor:
    """k2 estimate of KL(p || q) a token, (log p - log q)^2 / 2: biased; its gradient on tokens from p is the KL's."""
    return 0.5 * (logprobs_p - logprobs_q) ** 2


def kl_k3(logprobs_p: Tensor, logprobs_q: Tensor) -> Tensor:
    """k3 estimate of KL(p || q) a token, q/p - 1 - log q/p, for tokens drawn from p: unbiased and never negative.

    So it is within the bound of `log_ratio`, which verl's k3 has too (and bounds the value at 10 besides). A token that
    q makes less likely than p by more than 20 nats counts as 19 nats, and beyond the bound none has a gradient.
    """
    ratio = log_ratio(logprobs_q, logprobs_p)
    return ratio.exp() - 1 - ratio
