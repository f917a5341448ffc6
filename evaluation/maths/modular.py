"""Numbers that are too large to write down, told apart by what they leave modulo three primes."""

from fractions import Fraction

from erpd_hub.evaluation.maths.nodes import Node, Unreadable
from erpd_hub.evaluation.maths.values import evaluate

PRIMES = (
    105265364915032298262831382974951816179,
    119006548121312113756930574811250473047,
    152312274433322098608017123824601390999,
)
"""Primes p of 127 bits drawn at random with (p - 1) / 2 prime as well: no power of a small number is soon 1."""


def residue(node: Node, prime: int) -> int:
    """The value of an integer expression, or a quotient of such, modulo a prime.

    Raises:
        Unreadable: the expression holds anything but numbers, sums, products, quotients and powers.
        ZeroDivisionError: a denominator is a multiple of the prime.
    """
    if node.op == "num":
        assert isinstance(node.value, Fraction)
        return node.value.numerator * _inverse(node.value.denominator, prime) % prime
    if node.op == "pow":
        exponent = evaluate(node.args[1])
        if not isinstance(exponent, Fraction) or exponent.denominator != 1 or exponent < 0:
            raise Unreadable("exponent")
        return pow(residue(node.args[0], prime), exponent.numerator, prime)
    if node.op not in ("add", "mul", "neg", "div"):
        raise Unreadable(node.op)
    parts = [residue(arg, prime) for arg in node.args]
    if node.op == "add":
        return sum(parts) % prime
    if node.op == "neg":
        return -parts[0] % prime
    return parts[0] * (_inverse(parts[1], prime) if node.op == "div" else parts[1]) % prime


def _inverse(value: int, prime: int) -> int:
    if value % prime == 0:
        raise ZeroDivisionError
    return pow(value, -1, prime)
