"""Parts of the real line: intervals, unions, finite sets, inequalities of one symbol; compared as sets of numbers."""

from dataclasses import dataclass
from functools import cmp_to_key

from erpd_hub.evaluation.maths.nodes import Node, Unreadable
from erpd_hub.evaluation.maths.numbers import Value, is_real, less, same
from erpd_hub.evaluation.maths.values import evaluate

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "!=": "!="}


@dataclass(frozen=True)
class End:
    """A bound: a number, or beyond all numbers (infinite: -1 or +1)."""

    value: Value = 0
    infinite: int = 0

    def before(self, other: "End") -> bool:
        if self.infinite or other.infinite:
            return self.infinite < other.infinite
        return not self.equals(other) and less(self.value, other.value)

    def equals(self, other: "End") -> bool:
        return self.infinite == other.infinite and (bool(self.infinite) or same(self.value, other.value))


@dataclass(frozen=True)
class Piece:
    low: End
    high: End
    with_low: bool
    with_high: bool


_LINE = Piece(End(infinite=-1), End(infinite=1), False, False)


def as_region(node: Node) -> list[Piece]:
    """The disjoint pieces, in order.

    Raises:
        Unreadable: it is no region with constant bounds.
    """
    return _merged(_pieces(node))


def equal_regions(a: list[Piece], b: list[Piece]) -> bool:
    return len(a) == len(b) and all(
        x.low.equals(y.low) and x.high.equals(y.high) and (x.with_low, x.with_high) == (y.with_low, y.with_high)
        for x, y in zip(a, b, strict=True)
    )


def inequality_symbol(node: Node) -> str | None:
    """The symbol of an inequality between it and constants (`0 < c <= 1`); None for anything else."""
    if node.op != "rel" or not isinstance(node.value, tuple) or not set(node.value) <= set(_FLIPPED):
        return None
    names = [member for member in node.args if member.op == "sym"]
    return str(names[0].value) if len(names) == 1 and len(node.symbols) == 1 and len(node.args) <= 3 else None


def _pieces(node: Node) -> list[Piece]:
    if node.op == "set":
        return [Piece(end, end, True, True) for end in map(_end, node.args)]
    if node.op == "sym" and node.value == "mathbb:R":
        return [_LINE]
    if node.op == "group" and len(node.args) == 2:
        low, high = _end(node.args[0]), _end(node.args[1])
        brackets = str(node.value)
        if not low.before(high):
            raise Unreadable("bounds")
        return [Piece(low, high, brackets[0] == "[", brackets[-1] == "]")]
    if node.op == "setop" and node.value == "union":
        return _merged(_pieces(node.args[0]) + _pieces(node.args[1]))
    if node.op == "setop" and node.value == "minus" and node.args[1].op == "set":
        return _without(_merged(_pieces(node.args[0])), [_end(arg) for arg in node.args[1].args])
    if inequality_symbol(node):
        return _inequality(node)
    if node.op == "rel" and node.value == ("=",) and node.args[0].op == "sym":
        end = _end(node.args[1])
        return [Piece(end, end, True, True)]
    if node.op == "list" and all(item.op == "rel" for item in node.args) and len(node.symbols) == 1:
        return _joined(node)
    raise Unreadable(node.op)


def _joined(node: Node) -> list[Piece]:
    """Statements of one symbol: all of them hold (`x > 1 and x < 3`), or one does (`x < 0 or x = 1`).

    Raises:
        Unreadable: their separators do not say which.
    """
    parts = [_merged(_pieces(item)) for item in node.args]
    united = _merged([piece for part in parts for piece in part])
    if node.value == "or" or any(map(_is_point, node.args)):
        return united
    common = parts[0]
    for part in parts[1:]:
        common = [both for one in common for other in part if (both := _overlap(one, other)) is not None]
    if node.value == "and":
        return common
    if node.value is None and not common:
        return united
    if node.value is None and equal_regions(united, [_LINE]):
        return common
    raise Unreadable("and, or neither")


def _is_point(node: Node) -> bool:
    return node.value == ("=",)


def _overlap(one: Piece, other: Piece) -> Piece | None:
    low, with_low = one.low, one.with_low
    if one.low.equals(other.low):
        with_low = one.with_low and other.with_low
    elif one.low.before(other.low):
        low, with_low = other.low, other.with_low
    high, with_high = one.high, one.with_high
    if one.high.equals(other.high):
        with_high = one.with_high and other.with_high
    elif other.high.before(one.high):
        high, with_high = other.high, other.with_high
    if low.before(high) or (low.equals(high) and with_low and with_high):
        return Piece(low, high, with_low, with_high)
    return None


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
    assert isinstance(node.value, tuple)
    at = next(index for index, member in enumerate(node.args) if member.op == "sym")
    bounds = [(node.value[i], node.args[i + 1]) for i in range(at, len(node.args) - 1) if i == at]
    bounds += [(_FLIPPED[node.value[at - 1]], node.args[at - 1])] if at else []
    if len(bounds) != len(node.value):
        raise Unreadable("chain")
    piece = _LINE
    for sign, member in bounds:
        end = _end(member)
        if sign == "!=":
            return _without([_LINE], [end])
        if sign[0] == "<":
            piece = Piece(piece.low, end, piece.with_low, sign == "<=")
        else:
            piece = Piece(end, piece.high, sign == ">=", piece.with_high)
    if not piece.low.before(piece.high):
        raise Unreadable("bounds")
    return [piece]


def _without(pieces: list[Piece], points: list[End]) -> list[Piece]:
    for point in points:
        found: list[Piece] = []
        for piece in pieces:
            if piece.low.before(point) and point.before(piece.high):
                found.append(Piece(piece.low, point, piece.with_low, False))
                found.append(Piece(point, piece.high, False, piece.with_high))
            else:
                open_low, open_high = piece.low.equals(point), piece.high.equals(point)
                if open_low and open_high:
                    continue
                found.append(
                    Piece(piece.low, piece.high, piece.with_low and not open_low, piece.with_high and not open_high)
                )
        pieces = found
    return pieces


def _merged(pieces: list[Piece]) -> list[Piece]:
    def order(a: Piece, b: Piece) -> int:
        if a.low.equals(b.low):
            return int(b.with_low) - int(a.with_low)
        return -1 if a.low.before(b.low) else 1

    merged: list[Piece] = []
    for piece in sorted(pieces, key=cmp_to_key(order)):
        last = merged[-1] if merged else None
        touches = last is not None and (
            piece.low.before(last.high) or (piece.low.equals(last.high) and (piece.with_low or last.with_high))
        )
        if last is None or not touches:
            merged.append(piece)
        elif last.high.before(piece.high) or (last.high.equals(piece.high) and piece.with_high):
            merged[-1] = Piece(last.low, piece.high, last.with_low, piece.with_high)
    return merged
