"""From tokens to a tree: recursive descent with bounded depth, each token looked at a bounded number of times.

list      statement (("," | ";" | "and" | "or") statement)*
statement union (relation union)*              chains: 0 < c <= 1
union     sum (("cup" | "cap" | "setminus") sum)*
sum       term (("+" | "-" | "pm") term)*
term      signed (("cdot" | "/" | nothing) signed)*
signed    ("+" | "-" | "pm")* power
power     primary postfix*                     ^ ! !! % degrees
"""

from fractions import Fraction

from erpd_hub.evaluation.maths.nodes import Node, Unreadable, number
from erpd_hub.evaluation.maths.reading import Token, tokenise
from erpd_hub.evaluation.maths.trimming import (
    without_clause,
    without_lead,
    without_quantifiers,
    without_trail,
    without_units,
)
from erpd_hub.evaluation.maths.words import SEPARATORS

_MAX_DEPTH = 40
_MAX_TOKENS = 800
_RELATIONS = {"=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "approx": "~", "in": "in", "equiv": "="}
_SET_SIGNS = {"cup": "union", "cap": "intersection", "setminus": "minus"}
_SEPARATORS = (*SEPARATORS, ";")
_END = Token("end", "")
_DEGREE = Node("div", (Node("const", (), "pi"), number(180)))
_CLOSING = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",), "{": ("}",)}


def read(text: str, *, drop_words: bool = False) -> Node:
    """The tree of an answer; with `drop_words` without units and nouns after it.

    Raises:
        Unreadable: there is no certain reading.
    """
    tokens = without_quantifiers(without_trail(without_clause(without_lead(tokenise(text)))))
    if drop_words:
        tokens = without_units(tokens)
    if not tokens or len(tokens) > _MAX_TOKENS:
        raise Unreadable("size")
    parser = _Parser(tokens)
    tree = parser.list_(end="end")
    if parser.peek.kind != "end":
        raise Unreadable(parser.peek.text)
    return tree


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens, self._at, self._depth = tokens, 0, 0
        self._angle = 0  # inside a trigonometric function degrees are angles
        self._bars = 0

    @property
    def peek(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _next(self) -> Token:
        token = self.peek
        self._at += 1
        return token

    def _is(self, *texts: str) -> bool:
        return self.peek.kind in ("op", "cmd") and self.peek.text in texts

    def _take(self, *texts: str) -> bool:
        if self._is(*texts):
            self._at += 1
            return True
        return False

    def _expect(self, *texts: str) -> str:
        if not self._is(*texts):
            raise Unreadable(self.peek.text)
        return self._next().text

    def list_(self, end: str) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unreadable("depth")
        items, between = [self._statement()], set()
        while self._is(*_SEPARATORS):
            while self._is(*_SEPARATORS):  # `1, 2, and 3`
                between.add(self._next().text)
            if self.peek.kind == "end" or self._is(")", "]", "}", "\\}"):
                break
            items.append(self._statement())
        self._depth -= 1
        words = sorted(between - {",", ";"})
        return items[0] if len(items) == 1 else Node("list", tuple(items), " ".join(words) or None)

    def _statement(self) -> Node:
        self._take("=", "approx")
        members, signs = [self._union()], []
        while self.peek.kind in ("op", "cmd") and self.peek.text in _RELATIONS:
            signs.append(_RELATIONS[self._next().text])
            self._take("=")
            members.append(self._residue(self._union()))
        return Node("rel", tuple(members), tuple(signs)) if signs else members[0]

    def _residue(self, node: Node) -> Node:
        """`3` and the `(mod 4)` after it."""
        bracket = self.peek.text == "(" and [t.text for t in self._tokens[self._at + 1 : self._at + 2]] == ["mod"]
        self._at += bracket
        if not self._take("mod", "pmod"):
            return node
        node = Node("mod", (node, self._primary()))
        if bracket:
            self._expect(")")
        return node

    def _union(self) -> Node:
        left = self._sum()
        while self.peek.kind == "cmd" and self.peek.text in _SET_SIGNS:
            sign = _SET_SIGNS[self._next().text]
            left = Node("setop", (left, self._sum()), sign)
        return left

    def _sum(self) -> Node:
        left = self._term()
        while self._is("+", "-", "pm", "mp"):
            sign = self._next().text
            right = self._term()
            if sign == "-":
                right = Node("neg", (right,))
            left = Node("add", (left, right)) if sign in "+-" else Node("pm", (left, right), 1 if sign == "pm" else -1)
        return left

    def _term(self) -> Node:
        left = self._signed()
        while True:
            if self._take("cdot", "times"):
                left = Node("mul", (left, self._signed()))
            elif self._take("/", "div"):
                left = Node("div", (left, self._signed()))
            elif self._starts_factor():
                left = self._beside(left)
            else:
                return left

    def _beside(self, left: Node) -> Node:
        """`left` and what stands beside it without a sign: a product, or a mixed number."""
        before, at = self._tokens[self._at - 1], self._at
        spaced = self.peek.spaced
        if self.peek.text == "scale":
            return Node("mul", (left, number(self._next().value or 1)))
        mixed = spaced and left.op in ("num", "neg") and self._tokens[at + 1 : at + 2] == [Token("op", "/")]
        if before.kind == "num" and self.peek.kind == "num" and not mixed:
            raise Unreadable("two numbers side by side")
        right = self._power()
        whole = left.args[0] if left.op == "neg" else left
        if before.kind != "num" or not _is_whole(whole):
            return Node("mul", (left, right))
        if self._tokens[at].kind == "num":  # `1 2/3`
            self._expect("/")
            right = Node("div", (right, self._power()))
        elif self._tokens[at].text != "frac" or not _proper(right):
            return Node("mul", (left, right))
        total = Node("add", (whole, right))
        return Node("neg", (total,)) if left.op == "neg" else total

    def _starts_factor(self) -> bool:
        token = self.peek
        if token.kind in ("num", "sym", "func", "word?"):
            return True
        if token.kind == "op":
            if token.text == "(" and self._tokens[self._at + 1 : self._at + 2] == [Token("cmd", "mod")]:
                return False
            return token.text in ("(", "[", "{") or (token.text == "|" and not self._bars)
        return token.kind == "cmd" and token.text in _PRIMARY_COMMANDS

    def _signed(self) -> Node:
        if self._take("+"):
            return self._signed_deeper()
        if self._take("-"):
            return Node("neg", (self._signed_deeper(),))
        if self._is("pm", "mp"):
            sign = 1 if self._next().text == "pm" else -1
            return Node("pm", (number(0), self._signed_deeper()), sign)
        return self._power()

    def _signed_deeper(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unreadable("depth")
        node = self._signed()
        self._depth -= 1
        return node

    def _power(self) -> Node:
        base = self._primary()
        while True:
            if self._is("^"):
                base = self._raised(base)
            elif self._take("!!"):
                base = Node("dfact", (base,))
            elif self._take("!"):
                base = Node("fact", (base,))
            elif self._take("%"):
                base = Node("percent", (base,))
            elif self._take("circ"):
                base = self._degrees(base)
            elif self._take("'"):
                raise Unreadable("prime")
            else:
                return base

    def _raised(self, base: Node) -> Node:
        self._at += 1
        if self._take("circ"):
            return self._degrees(base)
        if self._is("{") and [t.text for t in self._tokens[self._at + 1 : self._at + 3]] == ["circ", "}"]:
            self._at += 3
            return self._degrees(base)
        return Node("pow", (base, self._exponent()))

    def _degrees(self, base: Node) -> Node:
        return Node("mul", (base, _DEGREE)) if self._angle else base

    def _exponent(self) -> Node:
        """A group or one signed factor; `2^3^2` is 2^(3^2)."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Unreadable("depth")
        if self._take("-"):
            node = Node("neg", (self._exponent(),))
        else:
            self._take("+")
            node = self._primary()
            if self._is("^"):
                node = self._raised(node)
            elif self._take("!"):
                node = Node("fact", (node,))
        self._depth -= 1
        return node

    def _primary(self) -> Node:
        token = self._next()
        if token.kind == "num" and self._is("_"):
            self._at += 1
            return Node("based", (), f"{token.text}_{self._raw_argument()}")
        if token.kind == "num":
            return Node("num", (), token.value, token.decimals)
        if token.kind == "sym":
            return self._symbol(token.text)
        if token.kind == "word?":
            letters = [Node("const", (), x) if x in ("e", "i") else Node("sym", (), x) for x in token.text]
            letters[-1] = self._symbol(token.text[-1]) if letters[-1].op == "sym" else letters[-1]
            product = letters[0]
            for letter in letters[1:]:
                product = Node("mul", (product, letter))
            return product
        if token.kind == "func":
            return self._function(token.text)
        if token.kind == "op":
            return self._bracketed(token.text)
        if token.kind == "cmd" and token.text in _PRIMARY_COMMANDS:
            return _PRIMARY_COMMANDS[token.text](self, token.text)
        raise Unreadable(token.text)

    def _symbol(self, name: str) -> Node:
        if name == "C" and self._is("(") and (node := self._combination()):
            return node
        while self._is("_", "'"):
            name += self._next().text
            name += self._raw_argument() if name.endswith("_") else ""
        if (name[0] in "fgh" or "'" in name) and self._is("(") and (value := self._value_at()):
            name += value
        return Node("sym", (), name)

    def _value_at(self) -> str | None:
        """The bracket of `f(0)`, a value of a function; None, and nothing read, where it holds a symbol."""
        at = self._at
        self._at += 1
        inner = self.list_(end=")")
        if not inner.symbols and self._take(")"):
            return "".join(token.text for token in self._tokens[at : self._at])
        self._at = at
        return None

    def _combination(self) -> Node | None:
        """`C(10, 3)`; None, and nothing read, where it is something else."""
        at = self._at
        self._at += 1
        inner = self.list_(end=")")
        if inner.op == "list" and len(inner.args) == 2 and self._take(")"):
            return Node("binom", inner.args)
        self._at = at
        return None

    def _raw_argument(self) -> str:
        """A subscript as text."""
        if not self._take("{"):
            return self._next().text
        parts = []
        while not self._is("}"):
            if self.peek.kind == "end" or self.peek.text == "{":
                raise Unreadable("subscript")
            parts.append(self._next().text)
        self._at += 1
        return "".join(part for part in parts if part != ",")

    def _function(self, name: str) -> Node:
        """A function and its argument; without brackets that is the product beside it."""
        base: Node | None = None
        power: Node | None = None
        while self._is("_", "^"):
            if self._next().text == "_":
                base = self._primary()
            else:
                power = self._exponent()
        if name not in ("ln", "log", "exp"):
            self._angle += 1
        argument = self._argument()
        if name not in ("ln", "log", "exp"):
            self._angle -= 1
        node = Node("log", (argument, base)) if base is not None else Node("call", (argument,), name)
        if power is None:
            return node
        if power == Node("neg", (number(1),)) and node.value in ("sin", "cos", "tan"):
            return Node("call", node.args, f"a{name}")
        return Node("pow", (node, power))

    def _argument(self) -> Node:
        if self._is("(", "{", "["):
            return self._bracketed(self._next().text)  # a power after it is the function's: sin(x)^2
        node = self._signed()
        while self._starts_factor() and self.peek.kind != "func" and not self._is("("):
            node = Node("mul", (node, self._power()))
        return node

    def _bracketed(self, opening: str) -> Node:
        if opening == "|":
            return self._absolute()
        if opening not in _CLOSING:
            raise Unreadable(opening)
        if self._take(*_CLOSING[opening]):
            if opening == "\\{":
                return Node("set")
            raise Unreadable("empty brackets")
        bars, self._bars = self._bars, int(opening == "\\{")  # there a bar may begin a condition
        inner = self.list_(end=_CLOSING[opening][0])
        self._bars = bars
        if opening == "{" and self._take("choose"):
            inner = Node("binom", (inner, self._sum()))
        if opening == "\\{" and self._take(":", "|", "mid"):
            inner = Node("builder", (inner, self.list_(end="\\}")))
        closing = self._expect(*_CLOSING[opening])
        if inner.op == "builder":
            return inner
        if opening == "\\{":
            return Node("set", inner.args if inner.op == "list" else (inner,))
        if inner.op == "list" and opening in "([":
            return Node("group", inner.args, opening + closing)
        if {opening, closing} == {"(", "]"} or {opening, closing} == {"[", ")"}:
            raise Unreadable("brackets that do not match")
        return inner

    def _absolute(self) -> Node:
        self._bars += 1
        inner = self._sum()
        self._expect("|")
        self._bars -= 1
        return Node("abs", (inner,))

    def group_argument(self) -> Node:
        """A command's argument: `{...}`, or one digit or letter (`\\frac12`)."""
        if self._take("{"):
            inner = self.list_(end="}")
            self._expect("}")
            return inner
        token = self.peek
        if token.kind == "num" and token.value is not None and len(token.text) > 1 and token.text.isdigit():
            self._tokens[self._at] = token._replace(text=token.text[1:], value=Fraction(int(token.text[1:])))
            return number(int(token.text[0]))
        return self._primary()

    def root(self, name: str) -> Node:
        index = number(3) if name == "cbrt" else number(2)
        if name == "sqrt" and self._take("["):
            index = self._sum()
            self._expect("]")
        return Node("root", (self._primary(), index))

    def fraction(self, name: str) -> Node:
        top = self.group_argument()
        if name == "binom" and top.op == "list" and len(top.args) == 2:
            return Node("binom", top.args)
        return Node("div" if name == "frac" else "binom", (top, self.group_argument()))

    def constant(self, name: str) -> Node:
        return self._symbol(name) if self._is("_") else Node("const", (), name)

    def rounded(self, name: str) -> Node:
        if name in ("floor", "ceil"):
            return Node(name, (self.group_argument() if self._is("{") else self._primary(),))
        inner = self._sum()
        self._expect({"lfloor": "rfloor", "lceil": "rceil"}[name])
        return Node("floor" if name == "lfloor" else "ceil", (inner,))

    def accented(self, name: str) -> Node:
        return self._symbol(f"{name}:{self._raw_argument()}")


def _is_whole(node: Node) -> bool:
    return node.op == "num" and isinstance(node.value, Fraction) and node.value.denominator == 1 and not node.decimals


def _proper(node: Node) -> bool:
    """Whether a node is a fraction of digits below 1, as in a mixed number."""
    if node.op != "div" or any(arg.op != "num" for arg in node.args):
        return False
    top, bottom = (arg.value for arg in node.args)
    return top < bottom  # type: ignore[operator]


_PRIMARY_COMMANDS = {
    "sqrt": _Parser.root,
    "cbrt": _Parser.root,
    "frac": _Parser.fraction,
    "binom": _Parser.fraction,
    "pi": _Parser.constant,
    "e": _Parser.constant,
    "i": _Parser.constant,
    "infty": lambda parser, name: Node("inf"),
    "ldots": lambda parser, name: Node("dots"),
    "emptyset": lambda parser, name: Node("set"),
    "lfloor": _Parser.rounded,
    "lceil": _Parser.rounded,
    "floor": _Parser.rounded,
    "ceil": _Parser.rounded,
    "abs": lambda parser, name: Node("abs", (parser.group_argument(),)),
    "bar": _Parser.accented,
    "underbrace": _Parser.accented,
    "mathbb": _Parser.accented,
}
