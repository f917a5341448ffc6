"""What stands between brackets and bars, and the arguments of commands. Each bracket is read once.

A bracket may be looked at before it is known what it belongs to: `f(0)` is a name, `f(x)` a product, `C(10, 3)` a
number. What was read is kept, so that a nest of them takes no longer than its text.
"""

from abc import abstractmethod
from fractions import Fraction

from erpd_hub.evaluation.maths.cursor import Cursor
from erpd_hub.evaluation.maths.nodes import Node, Unreadable
from erpd_hub.evaluation.maths.reading import Token

_CLOSING = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",), "{": ("}",)}


class Brackets(Cursor):
    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self.angle = 0  # inside a trigonometric function degrees are angles
        self.bars = 0  # open bars of absolute values, where one more closes
        self._read: dict[tuple[int, bool], tuple[Node, int]] = {}

    @abstractmethod
    def list_(self) -> Node:
        """Statements up to what separates none."""

    @abstractmethod
    def sum_(self) -> Node:
        """One sum."""

    @abstractmethod
    def primary(self) -> Node:
        """One number, symbol, function or bracket, without what is put behind it."""

    def look_into(self) -> tuple[Node, int]:
        """The bracket that comes next and where it ends; it is not stepped over."""
        at = self._at
        node = self.bracketed()
        end, self._at = self._at, at
        return node, end

    def bracketed(self) -> Node:
        """The bracket that comes next."""
        key = self._at, self.angle > 0
        if key not in self._read:
            node = self._bracketed(self.next().text)
            self._read[key] = node, self._at
        node, self._at = self._read[key]
        return node

    def _bracketed(self, opening: str) -> Node:
        if opening == "|":
            return self._absolute()
        if opening not in _CLOSING:
            raise Unreadable(opening)
        if self.take(*_CLOSING[opening]):
            if opening == "\\{":
                return Node("set")
            raise Unreadable("empty brackets")
        bars, self.bars = self.bars, int(opening == "\\{")  # there a bar may begin a condition
        inner = self.list_()
        self.bars = bars
        if opening == "{" and self.take("choose"):
            inner = Node("binom", (inner, self.sum_()))
        if opening == "\\{" and self.take(":", "|", "mid"):
            inner = Node("builder", (inner, self.list_()))
        return _closed(inner, opening, self.expect(*_CLOSING[opening]))

    def _absolute(self) -> Node:
        self.bars += 1
        inner = self.sum_()
        self.expect("|")
        self.bars -= 1
        return Node("abs", (inner,))

    def group_argument(self) -> Node:
        """A command's argument: `{...}`, or one digit or letter (`\\frac12`)."""
        if self.take("{"):
            inner = self.list_()
            self.expect("}")
            return inner
        token = self.peek
        if token.kind == "num" and token.value is not None and len(token.text) > 1 and token.text.isdigit():
            digits = token.text[0], token.text[1:]
            self._tokens[self._at : self._at + 1] = [token._replace(text=part, value=Fraction(part)) for part in digits]
        return self.primary()

    def raw_argument(self) -> str:
        """A subscript as text."""
        if not self.take("{"):
            return self.next().text
        parts = []
        while not self.sees("}"):
            if self.peek.kind == "end" or self.peek.text == "{":
                raise Unreadable("subscript")
            parts.append(self.next().text)
        self.next()
        return "".join(part for part in parts if part != ",")


def _closed(inner: Node, opening: str, closing: str) -> Node:
    if inner.op == "builder":
        return inner
    if opening == "\\{":
        return Node("set", inner.args if inner.op == "list" else (inner,))
    if inner.op == "list" and opening in "([":
        return Node("group", inner.args, opening + closing)
    if {opening, closing} == {"(", "]"} or {opening, closing} == {"[", ")"}:
        raise Unreadable("brackets that do not match")
    return inner
