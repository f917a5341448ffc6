"""Residue classes: `3 (mod 4)` against itself, `4k + 3`, and the number that is asked for modulo 1000."""

from fractions import Fraction

from erpd_hub.evaluation.maths.equality import equal_expressions, is_expression
from erpd_hub.evaluation.maths.nodes import Node, Unreadable
from erpd_hub.evaluation.maths.numbers import Value
from erpd_hub.evaluation.maths.values import evaluate


def congruent(gold: Node, answer: Node) -> bool | None:
    """Whether two, one of them a residue, say the same; a number alone is one of its last digits."""
    if gold.op == "num":
        if answer.op != "mod" or not is_expression(answer.args[0]) or not _keeps_last_digits(answer.args[1]):
            return None
        reduced = residue_of(Node("mod", (gold, answer.args[1])))
        return reduced is not None and reduced[0] == gold.value and equal_expressions(gold, answer.args[0])
    one, other = residue_of(gold), residue_of(answer)
    return one == other if one and other else None


def _keeps_last_digits(modulus: Node) -> bool:
    """Whether a modulus is a power of ten, as where a problem asks for the last digits."""
    return modulus.op == "num" and str(modulus.value) == "1" + "0" * (len(str(modulus.value)) - 1)


def residue_of(node: Node) -> tuple[Value, Value] | None:
    """Residue and modulus of the integers that an expression stands for; None where it is not linear in one symbol."""
    try:
        if node.op == "mod":
            residue, modulus = evaluate(node.args[0]), evaluate(node.args[1])
        else:
            (name,) = node.symbols
            first, second, third = (evaluate(node, {name: Fraction(index)}) for index in range(3))
            residue, modulus = first, abs(second - first)
            if third - second != second - first:
                return None
    except (Unreadable, ValueError, ZeroDivisionError):
        return None
    return (residue % modulus, modulus) if isinstance(modulus, Fraction) and modulus > 0 else None
