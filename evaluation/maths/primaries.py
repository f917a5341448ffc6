"""The smallest parts of an expression: numbers, symbols, functions with their arguments, fractions, roots."""

from abc import abstractmethod

from erpd_hub.evaluation.maths.brackets import Brackets
from erpd_hub.evaluation.maths.nodes import Node, Unreadable, number
from erpd_hub.evaluation.maths.number_sets import set_name

_OF_REALS = ("ln", "log", "exp")  # functions whose argument is no angle
_EXTREMES = ("max", "min", "gcd", "lcm")


class Primaries(Brackets):
    @abstractmethod
    def signed(self) -> Node:
        """A factor with its signs."""

    @abstractmethod
    def power(self) -> Node:
        """A primary with what is put behind it."""

    @abstractmethod
    def exponent(self) -> Node:
        """What follows a `^`."""

    @abstractmethod
    def starts_factor(self) -> bool:
        """Whether a factor comes next."""

    def primary(self) -> Node:
        token = self.peek
        if token.kind == "op":
            return self.bracketed()
        self.next()
        if token.kind == "num" and self.take("_"):
            return Node("based", (), f"{token.text}_{self.raw_argument()}")
        if token.kind == "num":
            return Node("num", (), token.value, token.decimals)
        if token.kind == "sym":
            return self.symbol(token.text)
        if token.kind == "word?":
            return self._letters(token.text)
        if token.kind == "func":
            return self._function(token.text)
        if token.kind == "cmd" and token.text in PRIMARY_COMMANDS:
            return PRIMARY_COMMANDS[token.text](self, token.text)
        raise Unreadable(token.text)

    def _letters(self, text: str) -> Node:
        """Symbols side by side."""
        letters = [Node("const", (), x) if x in ("e", "i") else Node("sym", (), x) for x in text]
        letters[-1] = self.symbol(text[-1]) if letters[-1].op == "sym" else letters[-1]
        product = letters[0]
        for letter in letters[1:]:
            product = Node("mul", (product, letter))
        return product

    def symbol(self, name: str) -> Node:
        """A symbol with its subscripts and primes; `C(10, 3)` is a number and `f(0)` one name."""
        if name == "C" and self.sees("("):
            inner, end = self.look_into()
            if inner.op == "group" and inner.value == "()" and len(inner.args) == 2:
                self._at = end
                return Node("binom", inner.args)
        while self.sees("_", "'"):
            name += self.next().text
            name += self.raw_argument() if name.endswith("_") else ""
        if (name[0] in "fgh" or "'" in name) and self.sees("("):
            inner, end = self.look_into()
            if not inner.symbols and self._tokens[end - 1].text == ")":
                name += "".join(token.text for token in self._tokens[self._at : end])
                self._at = end
        return Node("sym", (), name)

    def _function(self, name: str) -> Node:
        """A function and its argument; without brackets that is the product beside it."""
        base: Node | None = None
        power: Node | None = None
        while self.sees("_", "^"):
            if self.next().text == "_":
                base = self.primary()
            else:
                power = self.exponent()
        self.angle += name not in _OF_REALS
        argument = self._argument()
        self.angle -= name not in _OF_REALS
        node = Node("log", (argument, base)) if base is not None else Node("call", (argument,), name)
        if power is None:
            return node
        if power == Node("neg", (number(1),)) and node.value in ("sin", "cos", "tan"):
            return Node("call", node.args, f"a{name}")
        return Node("pow", (node, power))

    def _argument(self) -> Node:
        if self.sees("(", "{", "["):
            return self.bracketed()  # a power after it is the function's: sin(x)^2
        node = self.signed()
        while self.starts_factor() and self.peek.kind != "func" and not self.sees("("):
            node = Node("mul", (node, self.power()))
        return node

    def root(self, name: str) -> Node:
        index = number(3) if name == "cbrt" else number(2)
        if name == "sqrt" and self.take("["):
            index = self.sum_()
            self.expect("]")
        return Node("root", (self.primary(), index))

    def fraction(self, name: str) -> Node:
        top = self.group_argument()
        if name == "binom" and top.op in ("list", "group") and len(top.args) == 2:
            return Node("binom", top.args)
        return Node("div" if name == "frac" else "binom", (top, self.group_argument()))

    def constant(self, name: str) -> Node:
        return self.symbol(name) if self.sees("_") else Node("const", (), name)

    def rounded(self, name: str) -> Node:
        if name in ("floor", "ceil"):
            return Node(name, (self.group_argument() if self.sees("{") else self.primary(),))
        inner = self.sum_()
        self.expect({"lfloor": "rfloor", "lceil": "rceil"}[name])
        return Node("floor" if name == "lfloor" else "ceil", (inner,))

    def extreme(self, name: str) -> Node:
        """`\\max\\{a, b\\}`; without brackets the name of what is asked for: `\\max f = 8`."""
        if self.take("_"):
            self.raw_argument()
        if not self.sees("(", "\\{"):
            return Node("sym", (), name)
        inner = self.bracketed()
        if inner.op not in ("group", "set") or len(inner.args) < 2:
            raise Unreadable(name)
        return Node(name, inner.args)

    def angled(self, name: str) -> Node:
        """`\\langle 2, 3 \\rangle`, a tuple."""
        inner = self.list_()
        self.expect("rangle")
        if inner.op != "list":
            raise Unreadable(name)
        return Node("group", inner.args, "()")

    def accented(self, name: str) -> Node:
        return self.symbol(f"{name}:{self.raw_argument()}")

    def set_of_numbers(self, name: str) -> Node:
        letter, mark = self.raw_argument(), ""
        if self.take("_"):
            mark = self.raw_argument()
        signs = ("+", "-", "cdot", "times")
        if self.sees("^") and self.ahead(1).text in signs:
            self.next()
            mark = self.next().text + mark
        elif self.sees("^") and self.ahead(1).text == "{" and self.ahead(2).text in signs:
            self.next()
            mark = self.raw_argument() + mark
        return self.symbol(set_name(letter, mark))


PRIMARY_COMMANDS = {
    **dict.fromkeys(("sqrt", "cbrt"), Primaries.root),
    **dict.fromkeys(("frac", "binom"), Primaries.fraction),
    **dict.fromkeys(("pi", "e", "i"), Primaries.constant),
    **dict.fromkeys(("lfloor", "lceil", "floor", "ceil"), Primaries.rounded),
    **dict.fromkeys(_EXTREMES, Primaries.extreme),
    **dict.fromkeys(("bar", "underbrace"), Primaries.accented),
    "mathbb": Primaries.set_of_numbers,
    "langle": Primaries.angled,
    "infty": lambda parser, name: Node("inf"),
    "ldots": lambda parser, name: Node("dots"),
    "emptyset": lambda parser, name: Node("set"),
    "abs": lambda parser, name: Node("abs", (parser.group_argument(),)),
}
