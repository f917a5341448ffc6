"""Stage 2's reward signal: raw log-ratio, whitening, the outcome control, and what a card says about a signal.

Pure functions over flat token vectors; N tokens of the whole batch, M samples. Not here: sign masks on right responses
(Table 12) and the evolving denominator (Fig. 7).
"""

import torch
from torch import Tensor

from erpd_hub.logprobs import masked_mean

_NOISE_FLOOR = 1e-4
"""Standard deviation, nats, below which a signal is taken for rounding noise. Scoring the same checkpoint twice in fp32
differs by about 1e-6; a real signal has 0.05 and more. Whitening would blow either up to 1."""
_OUTLIER_DEVIATIONS = (5, 10)
_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def raw_signal(numerator: Tensor | None, denominator: Tensor | None) -> Tensor:
    """r_t = log pi_num - log pi_den of the taken tokens, nats; a None side drops its term [P Table 7]."""
    if numerator is None:
        assert denominator is not None, "a signal needs a numerator or a denominator"
        return -denominator
    return numerator if denominator is None else numerator - denominator


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool, eps: float = 1e-8) -> Tensor:
    """(values - mean) * rsqrt(var + eps) over the masked entries, var unbiased [S verl]; 0 outside the mask.

    Without `shift_mean` the values are only scaled, so every sign stays (verl adds the raw mean back after shifting and
    scaling, which turns most signs). A signal below the noise floor, such as that of equal checkpoints, becomes zero.
    """
    exact = values.double()
    mean = masked_mean(exact, mask)
    variance = torch.where(mask, (exact - mean) ** 2, 0.0).sum() / (mask.sum() - 1).clamp(min=1)
    if variance.sqrt() < _NOISE_FLOOR:
        return torch.zeros_like(values)
    centred = exact - mean if shift_mean else exact
    return torch.where(mask, centred * torch.rsqrt(variance + eps), 0.0).to(values.dtype)


def group_advantages(labels: Tensor, group: Tensor) -> Tensor:
    """Outcome minus the mean outcome of its prompt's samples; 0 for a sample that could not be graded.

    Args:
        labels: (M,) in {0, 1}, NaN where ungraded.
        group: (M,) index of the prompt, 0 to the number of prompts - 1.
    """
    graded = ~labels.isnan()
    outcome = torch.where(graded, labels, 0.0)
    size = int(group.max()) + 1
    sums = torch.zeros(size, dtype=labels.dtype).index_add_(0, group, outcome)
    counts = torch.zeros(size, dtype=labels.dtype).index_add_(0, group, graded.to(labels.dtype))
    return torch.where(graded, outcome - (sums / counts.clamp(min=1))[group], 0.0)


def describe_signal(values: Tensor, labels: Tensor) -> dict[str, float | int]:
    """Statistics of a raw signal for its card.

    Args:
        values: (N,) nats.
        labels: (N,) the outcome of the response each token belongs to, NaN where ungraded.
    """
    exact = values.double()
    mean, deviation = exact.mean(), exact.std() if len(exact) > 1 else exact.new_zeros(())
    summary: dict[str, float | int] = {
        "tokens": len(exact),
        "mean": mean.item(),
        "std": deviation.item(),
        "share_positive": (exact > 0).double().mean().item(),
    }
    for name, label in (("positive", 1), ("negative", 0)):
        if (chosen := labels == label).any():
            summary[f"mean_{name}"] = exact[chosen].mean().item()
            summary[f"std_{name}"] = exact[chosen].std(correction=0).item()
    for bound in _OUTLIER_DEVIATIONS:
        summary[f"share_beyond_{bound}_std"] = ((exact - mean).abs() > bound * deviation).double().mean().item()
    ordered = exact.sort().values
    for quantile in _QUANTILES:  # torch.quantile refuses more than 16 million values
        summary[f"quantile_{quantile:g}"] = ordered[round(quantile * (len(ordered) - 1))].item()
    return summary
