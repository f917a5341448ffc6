"""Quantiles of any number of float32 values in fixed memory, from counts of their order-preserving bits.

Counts of the upper 16 bits give a quantile cut off to 7 bits of mantissa; those of the lower 16 bits within the bin
that holds its rank make it exact.
"""

from collections.abc import Sequence

import numpy as np

HALF = 1 << 16
"""Bins of either half."""


def ordered_bits(values: np.ndarray) -> np.ndarray:
    """uint32 that are ordered as the float32 values are: the sign bit set, or for a negative value all bits turned."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def ranks(counts: np.ndarray, quantiles: Sequence[float]) -> list[int]:
    """Rank of each quantile among the counted values."""
    return [round(quantile * max(int(counts.sum()) - 1, 0)) for quantile in quantiles]


def bin_of(counts: np.ndarray, rank: int) -> int:
    """The bin that holds a rank."""
    return min(int(np.searchsorted(counts.cumsum(), rank, side="right")), HALF - 1)


def exact_value(upper: np.ndarray, lower: dict[int, np.ndarray], rank: int) -> float:
    """The value at a rank, from the counts of the upper halves and, for its bin, those of the lower ones."""
    bin = bin_of(upper, rank)
    return _value(bin << 16 | bin_of(lower[bin], rank - int(upper[:bin].sum())))


def cut_value(upper: np.ndarray, rank: int) -> float:
    """The value at a rank, from the upper halves alone: cut off towards zero, by at most 0.8 % of it."""
    bin = bin_of(upper, rank)
    return _value(bin << 16 | (0 if bin >> 15 else 0xFFFF))


def _value(ordered: int) -> float:
    bits = np.uint32(ordered)
    bits = bits & np.uint32(0x7FFFFFFF) if bits >> 31 else ~bits
    return float(np.array(bits, np.uint32).view(np.float32))
