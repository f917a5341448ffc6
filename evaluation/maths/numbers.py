"""Numbers as values have them: a Fraction while it is rational, else an mpmath number; compared as far as they go."""

from fractions import Fraction
from typing import Any

from erpd_hub.evaluation.maths.nodes import Unreadable

Value = Any  # Fraction, or an mpmath number
BASE_PRECISION = 260  # bits; more where numbers are larger


def same(a: Value, b: Value) -> bool:
    """Whether two values are the same number, as far as their digits tell."""
    import mpmath

    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    precision = BASE_PRECISION + 2 * max(magnitude(a), magnitude(b))
    with mpmath.workprec(precision):
        a, b = inexact(a), inexact(b)
        scale = min(max(abs(a), abs(b)), 1)  # the precision grew with the numbers, so their last digits count as well
        return bool(abs(a - b) <= scale * mpmath.mpf(2) ** -(BASE_PRECISION - 80))


def is_real(value: Value) -> bool:
    """Whether a value has no imaginary part to speak of."""
    import mpmath

    if not isinstance(value, mpmath.mpc):
        return True
    return bool(abs(value.imag) <= max(abs(value.real), 1) * mpmath.mpf(2) ** -180)


def inexact(value: Value) -> Value:
    import mpmath

    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return value


def magnitude(value: Value) -> int:
    """Bits before the point, or zeros after it."""
    import mpmath

    if isinstance(value, Fraction):
        return abs(value.numerator.bit_length() - value.denominator.bit_length())
    size = mpmath.mag(value)
    if size == mpmath.ninf:  # zero
        return 0
    if not isinstance(size, int):
        raise Unreadable("not a number")
    return abs(size)


def nearest_integer(value: Value) -> int | None:
    """The integer that a value is, None where it is none."""
    import mpmath

    if isinstance(value, Fraction):
        return value.numerator if value.denominator == 1 else None
    if not is_real(value):
        return None
    nearest = int(mpmath.nint(value.real))
    return nearest if abs(value - nearest) < mpmath.mpf(2) ** -120 else None


def divided(a: Value, b: Value) -> Value:
    """a / b at the precision that their size needs."""
    import mpmath

    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a / b
    with mpmath.workprec(BASE_PRECISION + 2 * max(magnitude(a), magnitude(b))):
        return inexact(a) / inexact(b)


def less(a: Value, b: Value) -> bool:
    """Whether a real value is below another that is not the same."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a < b
    return bool(inexact(a).real < inexact(b).real)
