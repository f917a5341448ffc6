"""Whether two expressions are the same: True, False, or None where that cannot be told.

Constants are compared exactly. Expressions with symbols are compared at points: equal at all of them is equal, which
for the sums, products, powers and roots of final answers is as good as certain, and one difference is proof.
"""

from collections.abc import Callable
from fractions import Fraction
from random import Random

from erpd_hub.evaluation.maths.modular import PRIMES, residue
from erpd_hub.evaluation.maths.nodes import Node, TooLarge, Unreadable
from erpd_hub.evaluation.maths.numbers import Value, divided, is_real, nearest_integer, same
from erpd_hub.evaluation.maths.values import Point, evaluate

_NUMBER_POINTS = 8
_INTEGER_POINTS = 14
_INTEGER_OPS = frozenset(("fact", "dfact", "binom", "gcd", "lcm"))
_STEP_OPS = frozenset(("floor", "ceil"))
_REAL_NAMES = frozenset("xyztrs")
_WHOLE_NAMES = frozenset("ijklmnpqKLMN")
_MAX_SYMBOLS = 8
_DIGITS = 6  # of a decimal that stands for the number that it rounds
_EXPRESSIONS = frozenset(
    (
        "num", "sym", "const", "add", "mul", "div", "neg", "pow", "root", "fact", "dfact", "binom", "call",
        "log", "abs", "max", "min", "gcd", "lcm",
        "floor", "ceil", "percent",
    )
)  # fmt: skip


def is_expression(node: Node) -> bool:
    """Whether a node is a number, once its symbols are."""
    return all(below.op in _EXPRESSIONS for below in node.walk())


def equal_expressions(gold: Node, answer: Node) -> bool | None:
    """Whether two expressions are the same, wherever both are defined."""
    if gold == answer:
        return True
    symbols = gold.symbols | answer.symbols
    try:
        if not symbols:
            return _equal_constants(gold, answer)
        if len(symbols) > _MAX_SYMBOLS:
            return None
        return _equal_at_points(gold, answer, same)
    except (Unreadable, ValueError, ZeroDivisionError, ArithmeticError, TypeError):
        return None


def proportional(gold: Node, answer: Node) -> bool | None:
    """Whether one expression is a non-zero constant times the other: both say the same when set to 0."""
    ratios: list[Value] = []

    def same_ratio(a: Value, b: Value) -> bool:
        if a == 0 or b == 0:
            return bool(a == b)
        ratios.append(divided(a, b))
        return same(ratios[0], ratios[-1])

    if gold.symbols != answer.symbols or not gold.symbols:
        return None
    try:
        return _equal_at_points(gold, answer, same_ratio)
    except (Unreadable, ValueError, ZeroDivisionError, ArithmeticError, TypeError):
        return None


def _equal_constants(gold: Node, answer: Node) -> bool | None:
    try:
        a, b = evaluate(gold), evaluate(answer)
    except TooLarge:
        return all(residue(gold, prime) == residue(answer, prime) for prime in PRIMES)
    if same(a, b):
        return True
    return _is_rounding(answer, a, b) or _is_rounding(gold, b, a)


def _is_rounding(decimal: Node, exact: Value, written: Value) -> bool:
    """Whether a decimal is what another number rounds to, and neither of them is an integer.

    It must have six places and six significant digits.
    """
    if decimal.op == "neg":
        return _is_rounding(decimal.args[0], -exact, -written)
    if decimal.op != "num" or decimal.decimals < _DIGITS or not is_real(exact) or nearest_integer(exact) is not None:
        return False
    if isinstance(exact, Fraction) and exact.denominator <= 10**6 and _terminates(exact):
        return False  # it could have been written out
    unit = Fraction(1, 10**decimal.decimals)
    if written.denominator == 1 or abs(written) < 10 ** (_DIGITS - 1) * unit:
        return False
    return abs(_as_fraction(exact) - written) <= unit / 2


def _terminates(value: Fraction) -> bool:
    """Whether a fraction has at most six decimals."""
    return 10**6 % value.denominator == 0


def _as_fraction(value: Value) -> Fraction:
    if isinstance(value, Fraction):
        return value
    return Fraction(int(value.real * 2**200), 2**200)


def _equal_at_points(gold: Node, answer: Node, equal: Callable[[Value, Value], bool]) -> bool | None:
    """Compared at each point where both are real; where there are too few of these, at the complex ones."""
    real: list[bool] = []
    other: list[bool] = []
    for point in _points(gold, answer):
        try:
            a, b = evaluate(gold, point), evaluate(answer, point)
        except (ValueError, ZeroDivisionError):
            continue
        if is_real(a) and is_real(b):
            real.append(equal(a, b))
            if not real[-1]:
                return False
        else:
            other.append(equal(a, b))
    found = real if len(real) >= 2 else real + other
    return all(found) if len(found) >= 2 else None


def _points(gold: Node, answer: Node) -> list[Point]:
    """Points with the same symbols' values each time: numbers between 1 and 5, integers where only these make sense.

    Under a factorial every symbol counts something. Under a floor, or as an exponent of -1, only those do that have an
    integer's name: of another letter an answer without the floor would be equal.
    """
    names = sorted(gold.symbols | answer.symbols)
    nodes = gold.walk() + answer.walk()
    ops = {node.op for node in nodes}
    random = Random(20_260_525)
    counted, steps = bool(ops & _INTEGER_OPS), bool(ops & _STEP_OPS)
    jumps = steps or any(_alternates(node) for node in nodes)
    whole = set(names) if counted else set(names) & _WHOLE_NAMES if jumps else set()
    points: list[Point] = []
    if counted or jumps:
        top = 10**4 if steps and not counted else 12
        small = [{name: Fraction(random.randint(1, 9)) for name in names} for _ in range(_INTEGER_POINTS)]
        points += small + [{name: Fraction(random.randint(1, top)) for name in names} for _ in range(_INTEGER_POINTS)]
    if whole < set(names):
        numbers = [{name: _number(random, whole=name in whole) for name in names} for _ in range(_NUMBER_POINTS)]
        points += numbers
        if ops & {"abs", "max", "min"} or steps or any(_is_even_root_of_a_power(node) for node in nodes):
            points += [
                {name: value if name in whole else -value for name, value in point.items()} for point in numbers[-4:]
            ]
    return points


def _number(random: Random, *, whole: bool) -> Fraction:
    return Fraction(random.randint(1, 12)) if whole else Fraction(random.randint(101, 499), 100)


def _is_even_root_of_a_power(node: Node) -> bool:
    """Whether a node is the root of an even power of real unknowns: of x^2 it is x only where that is positive."""
    if node.op != "root" or node.args[1].op != "num" or not _is_even(node.args[1]) or not node.symbols <= _REAL_NAMES:
        return False
    return any(below.op == "pow" and below.symbols and _is_even(below.args[1]) for below in node.args[0].walk())


def _is_even(node: Node) -> bool:
    return isinstance(node.value, Fraction) and node.value.denominator == 1 and node.value.numerator % 2 == 0


def _alternates(node: Node) -> bool:
    """Whether a node is a power of a negative number, such as (-1)^n."""
    return node.op == "pow" and node.args[0].op == "neg" and bool(node.args[1].symbols)
