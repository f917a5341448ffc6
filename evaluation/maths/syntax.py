"""From tokens to a tree: recursive descent of bounded depth, in time that grows with the text's length alone.

list      statement (("," | ";" | "and" | "or") statement)*
statement union (relation union)*              chains: 0 < c <= 1; with `(mod 4)` behind a member
union     sum (("cup" | "cap" | "setminus") sum)*
sum       term (("+" | "-" | "pm") term)*
term      signed (("cdot" | "/" | nothing) signed)*
signed    ("+" | "-" | "pm")* power
power     primary postfix*                     ^ ! !! % degrees
"""

from fractions import Fraction

from erpd_hub.evaluation.maths.nodes import Node, Unreadable, number
from erpd_hub.evaluation.maths.primaries import PRIMARY_COMMANDS, Primaries
from erpd_hub.evaluation.maths.reading import Token, tokenise
from erpd_hub.evaluation.maths.trimming import without_units, without_words
from erpd_hub.evaluation.maths.words import REFUSED, SEPARATORS

_MAX_TOKENS = 800
_RELATIONS = {"=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "approx": "~", "in": "in", "equiv": "="}
_SET_SIGNS = {"cup": "union", "cap": "intersection", "setminus": "minus"}
_SEPARATORS = (*SEPARATORS, ";")
_DEGREE = Node("div", (Node("const", (), "pi"), number(180)))
_MODULO = ("mod", "pmod")


def read(text: str, *, drop_words: bool = False, said: frozenset[str] = frozenset(), prose: bool = False) -> Node:
    """The tree of an answer.

    Args:
        drop_words: Without units and nouns after it.
        said: Words of the other side, which may stand in a clause too.
        prose: It is a text with words, so that `no` and `all` are no products of letters.

    Raises:
        Unreadable: there is no certain reading.
    """
    tokens = without_words(tokenise(text), said=said)
    if prose and any(token.kind == "word?" and token.text.casefold() in REFUSED for token in tokens):
        raise Unreadable("words")
    if drop_words:
        tokens = without_units(tokens)
    if not tokens or len(tokens) > _MAX_TOKENS:
        raise Unreadable("size")
    parser = _Parser(tokens)
    tree = parser.list_()
    if parser.peek.kind != "end":
        raise Unreadable(parser.peek.text)
    return tree


class _Parser(Primaries):
    def list_(self) -> Node:
        with self.deeper():
            items, between = [self._statement()], set()
            while self.sees(*_SEPARATORS):
                while self.sees(*_SEPARATORS):  # `1, 2, and 3`
                    between.add(self.next().text)
                if self.peek.kind == "end" or self.sees(")", "]", "}", "\\}"):
                    break
                items.append(self._statement())
        words = sorted(between - {",", ";"})
        return items[0] if len(items) == 1 else Node("list", tuple(items), " ".join(words) or None)

    def _statement(self) -> Node:
        self.take("=", "approx")
        members, signs = [self._residue(self._union())], []
        while self.peek.kind in ("op", "cmd") and self.peek.text in _RELATIONS:
            signs.append(_RELATIONS[self.next().text])
            self.take("=")
            members.append(self._residue(self._union()))
        return Node("rel", tuple(members), tuple(signs)) if signs else members[0]

    def _residue(self, node: Node) -> Node:
        """`3` and the `(mod 4)` after it."""
        bracket = self._sees_bracketed_modulus()
        if bracket:
            self.next()
        if not self.take(*_MODULO):
            return node
        node = Node("mod", (node, self.primary()))
        if bracket:
            self.expect(")")
        return node

    def _sees_bracketed_modulus(self) -> bool:
        return self.sees("(") and self.ahead(1).kind == "cmd" and self.ahead(1).text in _MODULO

    def _union(self) -> Node:
        left = self.sum_()
        while self.peek.kind == "cmd" and self.peek.text in _SET_SIGNS:
            sign = _SET_SIGNS[self.next().text]
            left = Node("setop", (left, self.sum_()), sign)
        return left

    def sum_(self) -> Node:
        left = self._term()
        while self.sees("+", "-", "pm", "mp"):
            sign = self.next().text
            right = self._term()
            if sign == "-":
                right = Node("neg", (right,))
            left = Node("add", (left, right)) if sign in "+-" else Node("pm", (left, right), 1 if sign == "pm" else -1)
        return left

    def _term(self) -> Node:
        left = self.signed()
        while True:
            if self.take("cdot", "times"):
                left = Node("mul", (left, self.signed()))
            elif self.take("/", "div"):
                left = Node("div", (left, self.signed()))
            elif self.starts_factor():
                left = self._beside(left)
            else:
                return left

    def _beside(self, left: Node) -> Node:
        """`left` and what stands beside it without a sign: a product, or a mixed number."""
        before, first = self._tokens[self._at - 1], self.peek
        if first.text == "scale":
            return Node("mul", (left, number(self.next().value or 1)))
        whole = left.args[0] if left.op == "neg" else left
        mixed = first.spaced and left.op in ("num", "neg") and self.ahead(1) == Token("op", "/")
        if before.kind == "num" and first.kind == "num" and not mixed:
            raise Unreadable("two numbers side by side")
        if before.kind != "num" or not _is_whole(whole) or not (first.kind == "num" or first.text == "frac"):
            return Node("mul", (left, self.power()))
        part = self.primary()
        if first.kind == "num":  # `1 2/3`
            self.expect("/")
            part = Node("div", (part, self.primary()))
            if self._sees_raised():
                raise Unreadable("power of a mixed number")
        elif not _proper(part) or self._sees_raised():
            return Node("mul", (left, self._postfixed(part)))
        total = Node("add", (whole, part))
        return self._postfixed(Node("neg", (total,)) if left.op == "neg" else total)

    def _sees_raised(self) -> bool:
        """Whether a power or factorial follows, of the fraction alone."""
        return self.sees("!", "!!") or (self.sees("^") and "circ" not in (self.ahead(1).text, self.ahead(2).text))

    def starts_factor(self) -> bool:
        token = self.peek
        if token.kind in ("num", "sym", "func", "word?"):
            return True
        if token.kind == "op":
            return token.text in ("[", "{") or (
                not self._sees_bracketed_modulus() if token.text == "(" else token.text == "|" and not self.bars
            )
        return token.kind == "cmd" and token.text in PRIMARY_COMMANDS

    def signed(self) -> Node:
        sign = self.peek.text
        if not self.take("+", "-", "pm", "mp"):
            return self.power()
        with self.deeper():
            node = self.signed()
        if sign in "+-":
            return Node("neg", (node,)) if sign == "-" else node
        return Node("pm", (number(0), node), 1 if sign == "pm" else -1)

    def power(self) -> Node:
        return self._postfixed(self.primary())

    def _postfixed(self, base: Node) -> Node:
        while True:
            if self.sees("^"):
                base = self._raised(base)
            elif self.take("!!"):
                base = Node("dfact", (base,))
            elif self.take("!"):
                base = Node("fact", (base,))
            elif self.take("%"):
                base = Node("percent", (base,))
            elif self.take("circ"):
                base = self._degrees(base)
            elif self.take("'"):
                raise Unreadable("prime")
            else:
                return base

    def _raised(self, base: Node) -> Node:
        self.expect("^")
        if self.take("circ"):
            return self._degrees(base)
        if self.sees("{") and (self.ahead(1).text, self.ahead(2).text) == ("circ", "}"):
            self._at += 3
            return self._degrees(base)
        return Node("pow", (base, self.exponent()))

    def _degrees(self, base: Node) -> Node:
        return Node("mul", (base, _DEGREE)) if self.angle else base

    def exponent(self) -> Node:
        """A group or one signed factor; `2^3^2` is 2^(3^2)."""
        with self.deeper():
            if self.take("-"):
                return Node("neg", (self.exponent(),))
            self.take("+")
            node = self.primary()
            if self.sees("^"):
                return self._raised(node)
            return Node("fact", (node,)) if self.take("!") else node


def _is_whole(node: Node) -> bool:
    return node.op == "num" and isinstance(node.value, Fraction) and node.value.denominator == 1 and not node.decimals


def _proper(node: Node) -> bool:
    """Whether a node is a fraction of digits below 1, as in a mixed number."""
    if node.op != "div" or any(arg.op != "num" for arg in node.args):
        return False
    top, bottom = (arg.value for arg in node.args)
    return top < bottom  # type: ignore[operator]
