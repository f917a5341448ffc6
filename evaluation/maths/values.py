"""What an expression is worth: exactly while it is rational, else to as many digits as telling numbers apart takes.

Rationals are Fractions of bounded size; the rest are mpmath numbers whose precision grows with the numbers' own size,
so that 3**2025 + sqrt(2) and 3**2025 + sqrt(3) differ. Every operation is checked before it is carried out: nothing
here takes long, whatever the expression. What is too large to write down is `modular`'s.
"""

from collections.abc import Mapping
from fractions import Fraction
from functools import reduce
from math import comb, factorial, gcd, lcm

from erpd_hub.evaluation.maths.nodes import Hopeless, Node, TooLarge, Unreadable, beyond
from erpd_hub.evaluation.maths.numbers import BASE_PRECISION, Value, inexact, is_real, less, magnitude, nearest_integer

_BITS = 24_000  # of an exact numerator or denominator: 2025! has 19,000
_MAGNITUDE = 24_000  # of an inexact number, bits before or after the point
_COST = 3e8  # bit operations of one evaluation, well below a second
_MAX_WHOLE = 10**50  # in a greatest common divisor
_SMALL = 20  # bits of magnitude up to which that precision is enough

Point = Mapping[str, Fraction]


def evaluate(node: Node, point: Point | None = None) -> Value:
    """The value of an expression where its symbols have the point's values.

    Raises:
        Unreadable: it holds something that has no value, or one beyond the bounds.
        ZeroDivisionError, ValueError: it is not defined there.
    """
    import mpmath

    run = _Evaluation(point or {})
    with mpmath.workprec(BASE_PRECISION):
        value = run.of(node)
    if isinstance(value, Fraction) or run.magnitude <= _SMALL:
        return value
    again = _Evaluation(point or {})
    with mpmath.workprec(BASE_PRECISION + 2 * run.magnitude):
        return again.of(node)


class _Evaluation:
    def __init__(self, point: Point) -> None:
        self._point = point
        self._cost = 0.0
        self.magnitude = 0

    def of(self, node: Node) -> Value:
        method = getattr(self, f"_{node.op}", None)
        if method is None:
            raise Unreadable(node.op)
        return self._checked(method(node))

    def _checked(self, value: Value) -> Value:
        if isinstance(value, Fraction):
            bits = max(value.numerator.bit_length(), value.denominator.bit_length())
            if bits > _BITS:
                raise TooLarge("bits")
            self._cost += bits * (50 + bits / 8)
        else:
            size = magnitude(value)
            if size > _MAGNITUDE:
                raise TooLarge("magnitude")
            self.magnitude = max(self.magnitude, size)
            self._cost += 1e5 + 100 * self.magnitude
        if self._cost > _COST:
            raise TooLarge("cost")
        return value

    def _num(self, node: Node) -> Value:
        return node.value

    def _sym(self, node: Node) -> Value:
        if node.value not in self._point:
            raise Unreadable(str(node.value))
        return self._point[str(node.value)]

    def _const(self, node: Node) -> Value:
        import mpmath

        return {"pi": +mpmath.pi, "e": +mpmath.e, "i": mpmath.mpc(0, 1)}[str(node.value)]

    def _pair(self, node: Node) -> tuple[Value, Value]:
        a, b = self.of(node.args[0]), self.of(node.args[1])
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return a, b
        return inexact(a), inexact(b)

    def _add(self, node: Node) -> Value:
        a, b = self._pair(node)
        return a + b

    def _mul(self, node: Node) -> Value:
        a, b = self._pair(node)
        return a * b

    def _div(self, node: Node) -> Value:
        a, b = self._pair(node)
        if b == 0:
            raise ZeroDivisionError
        return a / b

    def _neg(self, node: Node) -> Value:
        return -self.of(node.args[0])

    def _percent(self, node: Node) -> Value:
        return self.of(node.args[0]) / 100

    def _pow(self, node: Node) -> Value:
        base, exponent = self.of(node.args[0]), self._exponent(node.args[1])
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            return self._integer_power(base, exponent.numerator)
        return self._power(base, exponent)

    def _exponent(self, node: Node) -> Value:
        try:
            return self.of(node)
        except TooLarge as error:
            raise Hopeless("tower") from error

    def _integer_power(self, base: Value, exponent: int) -> Value:
        if isinstance(base, Fraction):
            if base == 0 and exponent < 0:
                raise ZeroDivisionError
            size = (max(base.numerator.bit_length(), base.denominator.bit_length()) - 1) * abs(exponent)
            if abs(base) != 1 and base != 0 and size > _BITS:
                raise beyond("power", size)
            return base**exponent if abs(base) != 1 else base ** (exponent % 2)
        if abs(exponent) * max(magnitude(base), 1) > _MAGNITUDE * 40:
            raise beyond("power", abs(exponent) * max(magnitude(base), 1))
        return base**exponent

    def _power(self, base: Value, exponent: Value) -> Value:
        import mpmath

        base, exponent = inexact(base), inexact(exponent)
        if base == 0:
            if is_real(exponent) and exponent.real > 0:
                return Fraction(0)
            raise ZeroDivisionError
        if (magnitude(exponent) > 40 and abs(exponent) > 1) or abs(exponent) * (magnitude(base) + 1) > _MAGNITUDE * 2:
            raise TooLarge("power")
        if not isinstance(base, mpmath.mpc) and base < 0:
            base = mpmath.mpc(base)
        return mpmath.power(base, exponent)

    def _root(self, node: Node) -> Value:
        import mpmath

        radicand, index = self.of(node.args[0]), self.of(node.args[1])
        whole = nearest_integer(index)
        if whole is None or not 1 <= whole <= 1000:
            return self._power(radicand, 1 / inexact(index))
        value = inexact(radicand)
        if is_real(value) and value.real < 0 and whole % 2:
            return -mpmath.root(-value.real, whole)
        return mpmath.root(value, whole) if value != 0 else Fraction(0)

    def _count(self, node: Node, *, limit: int) -> int:
        count = nearest_integer(self.of(node))
        if count is None:
            raise ValueError("no integer")
        if count < 0:
            raise ValueError("negative")
        if count > limit:
            raise beyond("count", count)
        return count

    def _fact(self, node: Node) -> Value:
        return Fraction(factorial(self._count(node.args[0], limit=2500)))

    def _dfact(self, node: Node) -> Value:
        count, product = self._count(node.args[0], limit=2500), 1
        for factor in range(count, 0, -2):
            product *= factor
        return Fraction(product)

    def _binom(self, node: Node) -> Value:
        top, bottom = self._count(node.args[0], limit=_MAX_WHOLE), self._count(node.args[1], limit=_MAX_WHOLE)
        if (size := min(bottom, top - bottom) * top.bit_length()) > 10 * _BITS:
            raise beyond("count", size)
        return Fraction(comb(top, bottom))

    def _max(self, node: Node) -> Value:
        return reduce(lambda a, b: b if less(a, b) else a, self._reals(node))

    def _min(self, node: Node) -> Value:
        return reduce(lambda a, b: b if less(b, a) else a, self._reals(node))

    def _reals(self, node: Node) -> list[Value]:
        values = [self.of(arg) for arg in node.args]
        if not all(map(is_real, values)):
            raise ValueError("complex")
        return values

    def _gcd(self, node: Node) -> Value:
        return Fraction(gcd(*(self._count(arg, limit=_MAX_WHOLE) for arg in node.args)))

    def _lcm(self, node: Node) -> Value:
        return Fraction(lcm(*(self._count(arg, limit=_MAX_WHOLE) for arg in node.args)))

    def _abs(self, node: Node) -> Value:
        return abs(self.of(node.args[0]))

    def _floor(self, node: Node) -> Value:
        return self._rounded(node, up=False)

    def _ceil(self, node: Node) -> Value:
        return self._rounded(node, up=True)

    def _rounded(self, node: Node, *, up: bool) -> Value:
        import mpmath

        value = self.of(node.args[0])
        whole = nearest_integer(value)
        if whole is None:
            if not is_real(value):
                raise ValueError("complex")
            if isinstance(value, Fraction):
                whole = -(-value // 1) if up else value // 1
            else:
                whole = int(mpmath.ceil(value.real) if up else mpmath.floor(value.real))
        return Fraction(whole)

    def _log(self, node: Node) -> Value:
        base = self._logarithm(self.of(node.args[1]))
        if base == 0:
            raise ZeroDivisionError
        return self._logarithm(self.of(node.args[0])) / base

    def _logarithm(self, value: Value) -> Value:
        import mpmath

        if value == 0:
            raise ZeroDivisionError
        return mpmath.log(inexact(value))

    def _call(self, node: Node) -> Value:
        import mpmath

        name, argument = str(node.value), self.of(node.args[0])
        if name in ("ln", "log"):
            return self._logarithm(argument)
        if magnitude(argument) > 60 and abs(argument) > 1:
            raise TooLarge("argument")
        if name == "exp" and abs(argument) > _MAGNITUDE:
            raise TooLarge("argument")
        return getattr(mpmath, name)(inexact(argument))
