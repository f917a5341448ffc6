"""What a final answer is read into: one small tree, of expressions and of what holds them.

`Node.op` says what a node is; `args` are its parts. Expressions: `num` (value: Fraction, exact), `sym`, `const` (pi, e,
i), `inf`, `add`, `mul`, `div`, `neg`, `pow`, `root` (radicand, index), `pm` (left, right; value +1 for ±, -1 for ∓),
`fact`, `dfact`, `binom`, `call` (value: the function's name), `log` (of, base), `abs`, `floor`, `ceil`, `percent`.
`based` (value: digits and base, `2215_6`). What holds expressions: `list` (no brackets; value: the words between,
`and`, `or`, `and or` or None), `set`, `group` (value: its two
brackets, as in `(1, 2]`), `rel` (value: the relations between its members), `setop` (value: union, intersection or
minus), `builder` (head and condition: `\\{x : x > 0\\}`), `dots`.
"""

from dataclasses import dataclass
from fractions import Fraction

_HOPELESS = 10_000_000  # bits of a number, or factors of a product, that no algebra gets through in seconds


class Unreadable(Exception):
    """A text that this reader has no certain reading of."""


class TooLarge(Unreadable):
    """A number beyond the bounds."""


class Hopeless(TooLarge):
    """A number that no other algebra could work with either, such as a tower of powers."""


def beyond(what: str, size: int) -> TooLarge:
    """The error of a number or a product of this size."""
    return Hopeless(what) if size > _HOPELESS else TooLarge(what)


@dataclass(frozen=True, slots=True)
class Node:
    op: str
    args: tuple["Node", ...] = ()
    value: Fraction | str | int | tuple[str, ...] | None = None
    decimals: int = 0
    """Digits after the point of a `num` written as a decimal; it may stand for the number that it rounds."""

    def walk(self) -> list["Node"]:
        """The node and all below it."""
        found = [self]
        for node in found:
            found.extend(node.args)
        return found

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(str(node.value) for node in self.walk() if node.op == "sym")


def number(value: int | Fraction) -> Node:
    return Node("num", (), Fraction(value))
