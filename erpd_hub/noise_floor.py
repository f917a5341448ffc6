"""Whether a signal stands above the noise of its scoring. No torch: advice on a finished run asks too."""

import math

ROUNDING = 16 * 2.0**-23
"""Nats, about 2e-6: the last bit of a log-prob, which is a logit less a logsumexp, of up to 16 or so in float32.
Two layouts may add up in the same order and agree to the last bit; a measured floor of 0 makes no signal of that."""


def least_floor(measured: float) -> float:
    """Nats: the noise floor to hold a signal against, which is never below what float32 rounds away."""
    return max(measured, ROUNDING)


def drowned(deviation: float, floor: float, ratio: float) -> bool:
    """Whether a signal of this standard deviation does not stand `ratio` times above the measured floor, or above
    rounding where that is higher."""
    return not deviation >= ratio * least_floor(floor) or deviation == 0  # so that NaN does not stand above anything


def signal_to_noise(deviation: float, floor: float) -> float | None:
    """None where two scorings agreed to the last bit."""
    return deviation / floor if floor and math.isfinite(floor) else None
