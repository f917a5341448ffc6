"""Whether a tree holds a number that no algebra could work with, such as `9^{9^{9^{9}}}` or `(10^{10})!`."""

from erpd_hub.evaluation.maths.nodes import Hopeless, Node, Unreadable
from erpd_hub.evaluation.maths.values import evaluate

_LARGE = ("pow", "fact", "dfact", "binom")
_MOST = 40  # numbers looked at, of the outermost ones first


def is_hopeless(node: Node) -> bool:
    """Whether a constant in a tree is as large as that."""
    large = [below for below in node.walk() if below.op in _LARGE and not below.symbols]
    return any(map(_is_hopeless, large[:_MOST]))


def _is_hopeless(constant: Node) -> bool:
    try:
        evaluate(constant)
    except Hopeless:
        return True
    except (Unreadable, ValueError, ArithmeticError, TypeError):
        return False
    return False
