"""Parts of the real line as pieces from one end to another: joined, cut, compared."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cmp_to_key

from erpd_hub.evaluation.maths.numbers import Value, less, same


@dataclass(frozen=True)
class End:
    """A bound: a number, or beyond all numbers (infinite: -1 or +1)."""

    value: Value = Fraction(0)
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


LINE = Piece(End(infinite=-1), End(infinite=1), False, False)


def equal_regions(a: list[Piece], b: list[Piece]) -> bool:
    return len(a) == len(b) and all(
        x.low.equals(y.low) and x.high.equals(y.high) and (x.with_low, x.with_high) == (y.with_low, y.with_high)
        for x, y in zip(a, b, strict=True)
    )


def below(end: End, closed: bool) -> Piece:
    return Piece(LINE.low, end, False, closed)


def above(end: End, closed: bool) -> Piece:
    return Piece(end, LINE.high, closed, False)


def common(one: list[Piece], other: list[Piece]) -> list[Piece]:
    return [both for a in one for b in other if (both := overlap(a, b)) is not None]


def overlap(one: Piece, other: Piece) -> Piece | None:
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


def without(pieces: list[Piece], points: list[End]) -> list[Piece]:
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


def merged(pieces: list[Piece]) -> list[Piece]:
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
