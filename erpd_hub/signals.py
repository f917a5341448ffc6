"""Stage 2's reward signal: raw log-ratio, whitening, the outcome control, and what a card says about a signal.

Pure functions over flat token vectors; N tokens of the whole batch, M samples. Not here: sign masks on right responses
(Table 12) and the evolving denominator (Fig. 7).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from erpd_hub.errors import ArtifactError
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


def describe_signal(chunks: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float | int]:
    """Statistics of a raw signal for its card, in two passes and in memory that does not grow with it.

    Quantiles are exact for any number of tokens: the order-preserving bits of a float32 are counted in two halves, the
    upper one in the first pass, and in the second the lower one within those 2^16 bins that hold a wanted rank.

    Args:
        chunks: (values, labels) of some tokens each, iterated twice. values: (N,) nats in float32. labels: (N,) the
            outcome of the response each token belongs to, NaN where ungraded.
    """
    moments = {"all": _Moments(), "positive": _Moments(), "negative": _Moments()}
    positive = 0
    upper: np.ndarray = np.zeros(1 << 16, np.int64)
    for values, labels in chunks:
        moments["all"].add(values)
        moments["positive"].add(values[labels == 1])
        moments["negative"].add(values[labels == 0])
        positive += int(np.count_nonzero(values > 0))
        upper += np.bincount(_ordered_bits(values) >> 16, minlength=1 << 16)
    whole = moments["all"]
    if not whole.count:
        raise ArtifactError("rollouts: expected response tokens, got none; there is no signal without")
    ranks = [round(quantile * (whole.count - 1)) for quantile in _QUANTILES]
    bins: list[int] = [int(np.searchsorted(upper.cumsum(), rank, side="right")) for rank in ranks]
    lower: dict[int, np.ndarray] = {bin: np.zeros(1 << 16, np.int64) for bin in bins}
    deviation = whole.deviation(unbiased=True)
    beyond = dict.fromkeys(_OUTLIER_DEVIATIONS, 0)
    for values, _ in chunks:
        bits = _ordered_bits(values)
        for bin, counts in lower.items():
            counts += np.bincount(bits[bits >> 16 == bin] & 0xFFFF, minlength=1 << 16)
        for bound in beyond:
            distances = np.abs(values.astype(np.float64) - whole.mean)
            beyond[bound] += int(np.count_nonzero(distances > bound * deviation))
    summary: dict[str, float | int] = {"tokens": whole.count, "mean": whole.mean, "std": deviation}
    summary["share_positive"] = positive / whole.count
    for name in ("positive", "negative"):
        if moments[name].count:
            summary |= {f"mean_{name}": moments[name].mean, f"std_{name}": moments[name].deviation(unbiased=False)}
    summary |= {f"share_beyond_{bound}_std": count / whole.count for bound, count in beyond.items()}
    for quantile, rank in zip(_QUANTILES, ranks, strict=True):
        summary[f"quantile_{quantile:g}"] = _value_at(rank, upper, lower)
    return summary


@dataclass
class _Moments:
    """Count, mean and sum of squared distances from it, of what came so far, in float64 (Chan's update)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray) -> None:
        if not len(values):
            return
        exact: np.ndarray = values.astype(np.float64)
        mean, count = float(exact.mean()), self.count + len(exact)
        shift = mean - self.mean
        self.squares += float(((exact - mean) ** 2).sum()) + shift**2 * self.count * len(exact) / count
        self.mean += shift * len(exact) / count
        self.count = count

    def deviation(self, *, unbiased: bool) -> float:
        return math.sqrt(self.squares / max(self.count - unbiased, 1))


def _ordered_bits(values: np.ndarray) -> np.ndarray:
    """uint32 that are ordered as the float32 values are: the sign bit set, or for a negative value all bits turned."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value_at(rank: int, upper: np.ndarray, lower: dict[int, np.ndarray]) -> float:
    """The value at a rank, from the counts of its upper and lower halves."""
    bin = int(np.searchsorted(upper.cumsum(), rank, side="right"))
    inside = rank - int(upper[:bin].sum())
    bits = np.uint32(bin << 16 | int(np.searchsorted(lower[bin].cumsum(), inside, side="right")))
    bits = bits & np.uint32(0x7FFFFFFF) if bits >> 31 else ~bits
    return float(np.array(bits, np.uint32).view(np.float32))
