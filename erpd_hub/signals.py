"""Stage 2's reward signal: the raw log-ratio, and how it becomes advantages: sign mask, whitening, fixed or evolving.

Pure functions of tensors; N tokens of the whole batch, or B sequences of T tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from erpd_hub.config.training import Keep
from erpd_hub.estimators import masked_mean
from erpd_hub.losses.batch import TokenBatch

_LEAST_DEVIATION = 1e-4
"""Standard deviation, nats, below which a signal is not worth whitening: scoring the same checkpoint twice in fp32
differs by about 1e-6, a real signal has 0.05 and more, and whitening would blow either up to 1. (The noise floor that a
`signal` step is held against is another matter: it is measured, see `erpd_hub.noise`.)"""


def raw_signal(numerator: Tensor | None, denominator: Tensor | None) -> Tensor:
    """r_t = log pi_num - log pi_den of the taken tokens, nats; a None side drops its term [P Table 7]."""
    if numerator is None:
        assert denominator is not None, "a signal needs a numerator or a denominator"
        return -denominator
    return numerator if denominator is None else numerator - denominator


@dataclass(frozen=True)
class Whitening:
    """values -> (values - shift) * scale; a scale of 0 says that the values hardly vary."""

    shift: float = 0.0
    scale: float = 1.0

    @classmethod
    def of_moments(cls, mean: float, variance: float, *, shift_mean: bool, eps: float = 1e-8) -> "Whitening":
        """rsqrt(variance + eps) as the scale [S verl], and 0 below the least deviation."""
        scale = 0.0 if variance**0.5 < _LEAST_DEVIATION else (variance + eps) ** -0.5
        return cls(mean if shift_mean else 0.0, scale)

    @classmethod
    def fit(cls, values: Tensor, mask: Tensor, *, shift_mean: bool) -> "Whitening":
        """Mean and rsqrt(var + eps) over the masked entries, var unbiased [S verl].

        Without `shift_mean` the values are only scaled, so every sign stays (verl adds the raw mean back after shifting
        and scaling, which turns most signs). What hardly varies, as the signal of equal checkpoints, becomes zero.
        """
        exact = values.double()
        mean = masked_mean(exact, mask)
        variance = torch.where(mask, (exact - mean) ** 2, 0.0).sum() / (mask.sum() - 1).clamp(min=1)
        return cls.of_moments(mean.item(), variance.item(), shift_mean=shift_mean)

    def __call__(self, values: Tensor) -> Tensor:
        return ((values.double() - self.shift) * self.scale).to(values.dtype)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool) -> Tensor:
    """Values whitened over the masked entries; 0 outside the mask."""
    return torch.where(mask, Whitening.fit(values, mask, shift_mean=shift_mean)(values), 0.0)


def keep_signs(values: Tensor, outcomes: Tensor, *, right: Keep, wrong: Keep) -> Tensor:
    """max(r, 0) or min(r, 0) on the tokens of right and of wrong responses [P Table 12]; a removed value becomes 0.

    Args:
        outcomes: Of each value's response, of a shape that broadcasts; an ungraded response (NaN) keeps all.
    """
    kept = torch.where(outcomes == 1, _signs(values, right), values)
    return torch.where(outcomes == 0, _signs(values, wrong), kept)


@dataclass(frozen=True)
class Shaping:
    """How a raw signal becomes advantages."""

    right: Keep = "all"
    wrong: Keep = "all"
    whiten: bool = True
    mask_first: bool = True
    """Mask, then whiten, as in the paper: the removed tokens count as zeros in mean and scale [P Table 12]. The other
    order leaves the other tokens' advantages as they are without a mask."""
    shift_mean: bool = True

    def counted(self, values: Tensor, outcomes: Tensor) -> Tensor:
        """What mean and scale are taken of: the masked signal, or all of it."""
        return self.kept(values, outcomes) if self.mask_first else values

    def kept(self, values: Tensor, outcomes: Tensor) -> Tensor:
        """The signal under the sign mask."""
        return keep_signs(values, outcomes, right=self.right, wrong=self.wrong)

    def apply(self, values: Tensor, outcomes: Tensor, whitening: Whitening) -> Tensor:
        """Advantages from a raw signal, by the sign of the raw signal in either order."""
        kept = self.kept(values, outcomes)
        if self.mask_first:
            return whitening(kept)
        return torch.where((kept == 0) & (values != 0), 0.0, whitening(values))


@dataclass(frozen=True)
class Evolving:
    """Advantages from r_t = sg[log pi_num - log pi_student], computed anew at each forward pass [P Fig. 7].

    Times rho this is the gradient of -KL(student || numerator). The whitening is that of log pi_num - log pi_old and
    stays: fitted anew at each step it would undo what makes this signal fade as the student comes close [I].
    """

    shaping: Shaping
    whitening: Whitening

    def __call__(self, batch: TokenBatch) -> Tensor:
        assert batch.numerator_logprobs is not None, "an evolving signal needs the numerator's log-probs"
        signal = batch.numerator_logprobs - batch.logprobs.detach()
        return self.shaping.apply(signal, batch.labels[:, None], self.whitening)


def _signs(values: Tensor, keep: Keep) -> Tensor:
    if keep == "all":
        return values
    return values.clamp(min=0.0) if keep == "positive" else values.clamp(max=0.0)
