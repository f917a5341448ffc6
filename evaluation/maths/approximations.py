"""Whether what an answer says is about the same is so: `2\\pi \\approx 6.28`, but not `5 \\approx 99`."""

from erpd_hub.evaluation.maths.nodes import Node, Unreadable
from erpd_hub.evaluation.maths.numbers import inexact
from erpd_hub.evaluation.maths.values import evaluate

_NEAR = 0.05  # of the number: what two digits leave open
_SCALES = (1, 57.29577951308232)  # an angle in radians may be written in degrees


def approximations_hold(node: Node) -> bool:
    """Whether no constant in a tree is said to be about another one that it is not."""
    for relation in node.walk():
        if relation.op == "rel" and isinstance(relation.value, tuple):
            for exact, sign, written in zip(relation.args, relation.value, relation.args[1:], strict=False):
                if sign == "~" and not exact.symbols and not _near(exact, written):
                    return False
    return True


def _near(exact: Node, written: Node) -> bool:
    """Whether a number is another's digits, rounded or cut off, or close to it; so also where one has no value."""
    try:
        a, b = inexact(evaluate(exact)), inexact(evaluate(written))
        unit = 10.0**-written.decimals if written.op == "num" else 0.0
        close = any(abs(a * scale - b) <= abs(a * scale) * _NEAR for scale in _SCALES)
        return bool(close or abs(a - b) <= unit / 2 or abs(b) <= abs(a) < abs(b) + unit)
    except (Unreadable, ValueError, ArithmeticError, TypeError):
        return True
