"""Trees as parts of the real line: intervals, unions, finite sets, inequalities of one symbol, named sets."""

from fractions import Fraction
from math import ceil, floor

from erpd_hub.evaluation.maths.nodes import Node, Unreadable
from erpd_hub.evaluation.maths.number_sets import PREFIX
from erpd_hub.evaluation.maths.numbers import is_real, less
from erpd_hub.evaluation.maths.pieces import LINE, End, Piece, above, below, common, equal_regions, merged, without
from erpd_hub.evaluation.maths.values import evaluate

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "!=": "!="}
_REALS, _WHOLES = f"{PREFIX}R", f"{PREFIX}Z"


def same_regions(a: Node, b: Node) -> bool | None:
    """Whether two hold the same numbers; None where one is no region with constant bounds."""
    try:
        return equal_regions(merged(_pieces(a)), merged(_pieces(b)))
    except (Unreadable, ValueError, ZeroDivisionError):
        return None


def same_wholes(a: Node, b: Node) -> bool | None:
    """Whether two hold of the same integers (`n > 2` is `n \\ge 3`); None where one is no inequality or named set."""
    try:
        return equal_regions(*([_of_wholes(piece) for piece in merged(_pieces(_as_reals(node)))] for node in (a, b)))
    except (Unreadable, ValueError, ZeroDivisionError):
        return None


def _as_reals(node: Node) -> Node:
    """A named set of integers as that of real numbers; the integers of both are the same."""
    if node.op == "sym" and str(node.value).startswith(_WHOLES):
        return Node("sym", (), _REALS + str(node.value).removeprefix(_WHOLES))
    if not inequality_symbol(node):
        raise Unreadable(node.op)
    return node


def _of_wholes(piece: Piece) -> Piece:
    """A piece from its first integer to its last."""
    if not all(end.infinite or isinstance(end.value, Fraction) for end in (piece.low, piece.high)):
        raise Unreadable("bound")
    low, high = piece.low, piece.high
    if not low.infinite:
        low = End(Fraction(floor(low.value) + 1 if not piece.with_low else ceil(low.value)))
    if not high.infinite:
        high = End(Fraction(ceil(high.value) - 1 if not piece.with_high else floor(high.value)))
    return Piece(low, high, not low.infinite, not high.infinite)


def inequality_symbol(node: Node) -> str | None:
    """The symbol of an inequality between it and constants (`0 < c <= 1`); None for anything else."""
    if node.op != "rel" or not isinstance(node.value, tuple) or not set(node.value) <= set(_FLIPPED):
        return None
    if len(node.symbols) != 1 or len(node.args) > 3:
        return None
    bounded = [member for member in node.args if member.symbols]
    known = len(bounded) == 1 and (bounded[0].op == "sym" or (bounded[0].op == "abs" and _line(bounded[0].args[0])))
    return min(node.symbols) if known else None


def _line(node: Node) -> tuple[Fraction, Fraction] | None:
    """a and b of a x + b; None where an expression of one symbol is no such line."""
    (name,) = node.symbols
    try:
        zero, one, two, half = (evaluate(node, {name: Fraction(at, 2)}) for at in (0, 2, 4, 1))
    except (Unreadable, ValueError, ZeroDivisionError):
        return None
    values = zero, one, two, half
    if not all(isinstance(value, Fraction) for value in values) or one == zero:
        return None
    straight = two - one == one - zero == 2 * (half - zero)
    return (one - zero, zero) if straight else None


def _pieces(node: Node) -> list[Piece]:
    if node.op == "set":
        return [Piece(end, end, True, True) for end in map(_end, node.args)]
    if node.op == "sym" and str(node.value).startswith(_REALS):
        return _bounded(str(node.value).removeprefix(_REALS))
    if node.op == "group" and len(node.args) == 2:
        low, high = _end(node.args[0]), _end(node.args[1])
        brackets = str(node.value)
        if not low.before(high):
            raise Unreadable("bounds")
        return [Piece(low, high, brackets[0] == "[", brackets[-1] == "]")]
    if node.op == "setop" and node.value == "union":
        return merged(_pieces(node.args[0]) + _pieces(node.args[1]))
    if node.op == "setop" and node.value == "minus" and node.args[1].op == "set":
        return without(merged(_pieces(node.args[0])), [_end(arg) for arg in node.args[1].args])
    if inequality_symbol(node):
        return _inequality(node)
    if node.op == "rel" and node.value == ("=",) and node.args[0].op == "sym":
        end = _end(node.args[1])
        return [Piece(end, end, True, True)]
    if node.op == "list" and all(item.op == "rel" for item in node.args) and len(node.symbols) == 1:
        return _joined(node)
    raise Unreadable(node.op)


def _bounded(mark: str) -> list[Piece]:
    """The real numbers, or those on one side of 0."""
    zero = End(Fraction(0))
    found = {
        "": [LINE], ">0": [above(zero, False)], ">=0": [above(zero, True)], "<0": [below(zero, False)],
        "<=0": [below(zero, True)], "!=0": without([LINE], [zero]),
    }  # fmt: skip
    if mark not in found:
        raise Unreadable(mark)
    return found[mark]


def _joined(node: Node) -> list[Piece]:
    """Statements of one symbol: all of them hold (`x > 1 and x < 3`), or one does (`x < 0 or x = 1`).

    Raises:
        Unreadable: their separators do not say which.
    """
    parts = [merged(_pieces(item)) for item in node.args]
    united = merged([piece for part in parts for piece in part])
    if node.value == "or" or any(map(_is_point, node.args)):
        return united
    held = parts[0]
    for part in parts[1:]:
        held = common(held, part)
    if node.value == "and":
        return held
    if node.value is None and not held:
        return united
    if node.value is None and equal_regions(united, [LINE]):
        return held
    raise Unreadable("and, or neither")


def _is_point(node: Node) -> bool:
    return node.value == ("=",)


def _end(node: Node) -> End:
    if node.op == "inf":
        return End(infinite=1)
    if node.op == "neg" and node.args[0].op == "inf":
        return End(infinite=-1)
    value = evaluate(node)
    if not is_real(value):
        raise Unreadable("complex bound")
    return End(value)


def _inequality(node: Node) -> list[Piece]:
    """The region where every relation of a chain holds.

    Raises:
        Unreadable: that is nowhere.
    """
    assert isinstance(node.value, tuple)
    pieces = [LINE]
    for left, sign, right in zip(node.args, node.value, node.args[1:], strict=False):
        if left.symbols and right.symbols:
            raise Unreadable("chain")
        held = _side(left, sign, right) if left.symbols else _side(right, _FLIPPED[sign], left)
        pieces = common(pieces, held)
    if not pieces or any(not piece.low.before(piece.high) for piece in pieces):
        raise Unreadable("bounds")
    return pieces


def _side(member: Node, sign: str, bound: Node) -> list[Piece]:
    """Where a symbol, or the absolute value of a line in it, lies on its side of a bound."""
    end, closed = _end(bound), sign.endswith("=")
    if member.op == "sym":
        if sign == "!=":
            return without([LINE], [end])
        return [below(end, closed) if sign[0] == "<" else above(end, closed)]
    line = _line(member.args[0])
    if line is None or end.infinite or sign == "!=" or not less(Fraction(0), end.value):
        raise Unreadable("bound of an absolute value")
    slope, offset = line
    low, high = sorted(((-end.value - offset) / slope, (end.value - offset) / slope))
    if sign[0] == "<":
        return common([above(End(low), closed)], [below(End(high), closed)])
    return [below(End(low), closed), above(End(high), closed)]
