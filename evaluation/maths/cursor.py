"""A place in a list of tokens: looking ahead, taking what is expected, and how deep the reading has gone."""

from collections.abc import Iterator
from contextlib import contextmanager

from erpd_hub.evaluation.maths.nodes import Unreadable
from erpd_hub.evaluation.maths.reading import Token

_MAX_DEPTH = 40
_END = Token("end", "")


class Cursor:
    """Tokens and the one that comes next; past the last one stands a token of kind `end`."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens, self._at, self._depth = tokens, 0, 0

    @property
    def peek(self) -> Token:
        return self.ahead(0)

    def ahead(self, count: int) -> Token:
        """The token that comes after `count` others."""
        at = self._at + count
        return self._tokens[at] if at < len(self._tokens) else _END

    def next(self) -> Token:
        token = self.peek
        self._at += 1
        return token

    def sees(self, *texts: str) -> bool:
        """Whether a sign or command of these comes next."""
        return self.peek.kind in ("op", "cmd") and self.peek.text in texts

    def take(self, *texts: str) -> bool:
        """Step over one of these where it comes next."""
        found = self.sees(*texts)
        self._at += found
        return found

    def expect(self, *texts: str) -> str:
        """The one of these that comes next.

        Raises:
            Unreadable: something else comes.
        """
        if not self.sees(*texts):
            raise Unreadable(self.peek.text)
        return self.next().text

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """One level down.

        Raises:
            Unreadable: it is deeper than any final answer.
        """
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unreadable("depth")
        yield
        self._depth -= 1
