"""How far the arithmetic alone moves a log-prob or a signal: the noise floor that a signal must stand above.

A few responses are scored twice more, laid out otherwise and in the other dtype. What two scorings of one checkpoint
differ by is noise, and whitening removes none of it. Pure functions and a running summary; N tokens.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from erpd_hub.errors import ArtifactError
from erpd_hub.signal_statistics import Moments
from erpd_hub.signals import raw_signal

_LARGEST_SHARE = 16
"""One response in so many is scored again at most, so that the noise costs little beside the scoring itself."""
_FEWEST = 8
"""Responses that are scored again even so: hundreds of tokens and more give the deviation to a few per cent."""


class Scored(NamedTuple):
    """(N,) nats each of the same tokens."""

    logprobs: np.ndarray
    other_layout: np.ndarray
    other_dtype: np.ndarray


def noise_rows(rows: int, wanted: int) -> list[int]:
    """Which of so many responses are scored again: spread evenly, the same ones for every checkpoint."""
    count = min(rows, wanted, max(_FEWEST, rows // _LARGEST_SHARE))
    return [(2 * index + 1) * rows // (2 * count) for index in range(count)]


@dataclass
class Noise:
    """Running summary of the differences between two scorings."""

    moments: Moments = field(default_factory=Moments)
    absolute: float = 0.0
    largest: float = 0.0
    flips: int = 0

    def add(self, values: np.ndarray, again: np.ndarray) -> None:
        """Take in (N,) nats of one scoring and of another."""
        first: np.ndarray = values.astype(np.float64)
        second: np.ndarray = again.astype(np.float64)
        differences = second - first
        self.moments.add(differences)
        self.absolute += float(np.abs(differences).sum())
        self.largest = max(self.largest, float(np.abs(differences).max(initial=0.0)))
        self.flips += int(np.count_nonzero(first * second < 0))

    @property
    def tokens(self) -> int:
        return int(self.moments.count[0])

    @property
    def deviation(self) -> float:
        """Standard deviation of the difference, nats."""
        return self.moments.deviation()

    def summary(self) -> dict[str, Any]:
        """JSON values: nats, and the share of tokens whose sign differs."""
        return {
            "tokens": self.tokens,
            "std": self.deviation,
            "mean_absolute": self.absolute / max(self.tokens, 1),
            "largest": self.largest,
            "sign_flips": self.flips / max(self.tokens, 1),
        }


class NoisePair(NamedTuple):
    """Noise of the layout, at the dtype of scoring, and of the dtype."""

    layout: Noise
    dtype: Noise

    def floor(self, scored_in: str) -> float:
        """Nats, the standard deviation that applies: of scoring in bf16 also its distance from fp32, the truth."""
        return max(self.layout.deviation, self.dtype.deviation) if scored_in == "bfloat16" else self.layout.deviation


def measure(shards: Iterable[Mapping[str, Scored]]) -> NoisePair:
    """Noise of a signal, from what its sides scored again: the same tokens of `numerator` and of `denominator`, or of
    the only side.

    Raises:
        ArtifactError: the sides have other numbers of tokens.
    """
    noise = NoisePair(Noise(), Noise())
    for sides in shards:
        if len({len(side.logprobs) for side in sides.values()}) > 1:
            raise ArtifactError("noise: expected the same tokens on both sides, got others; score these rollouts")
        first, layout, dtype = (_signal(sides, name) for name in Scored._fields)
        noise.layout.add(first, layout)
        noise.dtype.add(first, dtype)
    return noise


def _signal(sides: Mapping[str, Scored], name: str) -> np.ndarray:
    values = {side: torch.from_numpy(np.array(getattr(scored, name))) for side, scored in sides.items()}
    return raw_signal(values.get("numerator"), values.get("denominator")).numpy()
