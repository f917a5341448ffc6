"""What a tree is like, and the same thing said otherwise: names and values, signs, lists, domains."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from erpd_hub.evaluation.maths.nodes import Node
from erpd_hub.evaluation.maths.number_sets import PREFIX


def opened(node: Node) -> Node:
    """A node without a set of one thing around it, and with `x = 1, 2` and `a ± b` written out.

    A set whose one thing is a set is another one: `{{1, 2}}` is not `{1, 2}`.
    """
    if node.op == "set" and len(node.args) == 1 and node.args[0].op not in ("dots", "set"):
        return opened(node.args[0])
    if node.op == "rel" and node.value == ("in",):
        return opened(node.args[1])
    node = without_domains(node)
    if node.op == "list" and node.args[0].op == "rel" and all(item.op != "rel" for item in node.args[1:]):
        first = node.args[0]
        if is_equality(first):
            node = replace(node, args=(value_of(first), *node.args[1:]))
        elif first.value == ("in",):
            return node
    if node.op in ("list", "set"):
        return replace(node, args=tuple(part for item in node.args for part in both_signs(item)))
    signs = both_signs(value_of(node) if node.op == "rel" and is_equality(node) else node)
    return Node("list", signs) if len(signs) > 1 else node


def without_domains(node: Node) -> Node:
    """A list without `k \\in \\mathbb{R}` beside what holds k."""
    if node.op != "list":
        return node
    domains = [item for item in node.args if item.value == ("in",) and str(item.args[1].value).startswith("mathbb:")]
    kept = tuple(item for item in node.args if item not in domains)
    if not domains or not kept or not all(item.symbols & kept[0].symbols for item in domains):
        return node
    return kept[0] if len(kept) == 1 else replace(node, args=kept)


def both_signs(node: Node) -> tuple[Node, ...]:
    """The two things that one with a single ± stands for (of several, the signs go together)."""
    found = sum(below.op == "pm" for below in node.walk())
    if not found or found > 2:
        return (node,)
    return signed(node, 1), signed(node, -1)


def signed(node: Node, sign: int) -> Node:
    args = tuple(signed(arg, sign) for arg in node.args)
    if node.op != "pm":
        return replace(node, args=args)
    assert isinstance(node.value, int)
    right = args[1] if node.value * sign > 0 else Node("neg", (args[1],))
    return Node("add", (args[0], right))


def is_equality(node: Node) -> bool:
    return node.op == "rel" and isinstance(node.value, tuple) and set(node.value) <= {"=", "~"}


def value_of(node: Node) -> Node:
    """What an equality ends in; before an approximation, and the other side of `5 = x`."""
    assert isinstance(node.value, tuple)
    end = next((i for i, sign in enumerate(node.value) if sign == "~"), len(node.value))
    last = node.args[end or is_name(node.args[0])]  # `x = 1/3 ~ 0.33` and `1/3 ~ 0.33` are 1/3
    if last.op == "sym" and not node.args[0].symbols:
        return node.args[0]
    return last


def repeated(node: Node) -> Node | None:
    """`x = y = z = 2` as (2, 2, 2); None where a member before the last is no name of its own."""
    *names, value = node.args
    if not all(name.op == "sym" for name in names) or len({name.value for name in names}) != len(names):
        return None
    return Node("group", (value,) * len(names), "()")


def is_name(node: Node) -> bool:
    """A symbol, a tuple of symbols, or `f(x)`, which reads as a product of two."""
    if node.op == "group":
        return all(arg.op == "sym" for arg in node.args)
    if node.op == "mul":
        return node.args[0].op == "sym" and (node.args[1].op in ("sym", "num") or is_name(node.args[1]))
    return node.op == "sym"


def may_be_asked(node: Node) -> bool:
    """Whether a problem may ask for what a node stands for: a name, a function's value, `m + 2n`, `AB^2`, `a/b`.

    A single unknown times or to the power of something is a step on the way.
    """
    if node.op == "neg" or (node.op == "call" and node.args[0].op == "neg"):
        return may_be_asked(node.args[0])
    if node.op == "group":
        return all(arg.op in ("sym", "dots") for arg in node.args)
    if is_name(node) or node.op in ("abs", "floor", "ceil", "call", "log"):
        return True
    if node.op == "add":
        return len(node.symbols) > 1 and all(map(_is_linear_term, _terms(node)))
    return len(node.symbols) > 1 and all(
        below.op in ("mul", "div", "neg", "num", "const", "sym") or (below.op == "pow" and below.args[1].op == "num")
        for below in node.walk()
    )


def _terms(node: Node) -> list[Node]:
    return [term for arg in node.args for term in _terms(arg)] if node.op in ("add", "neg") else [node]


def _is_linear_term(node: Node) -> bool:
    if node.op == "mul":
        return node.args[0].op in ("num", "sym") and _is_linear_term(node.args[1])
    return node.op in ("num", "sym")


def name_of(node: Node) -> Node | None:
    return node.args[0] if is_equality(node) and is_name(node.args[0]) else None


def valued(items: Sequence[Node]) -> list[Node]:
    """Items without their names and in the names' alphabetical order: `y = 2, x = 1` is (1, 2)."""
    names = [str(name.value) for item in items if (name := name_of(item)) is not None]
    if len(names) != len(items) or len(names) != len(set(names)):
        return list(items)
    return [value_of(item) for item in sorted(items, key=lambda item: str(item.args[0].value))]


def items_of(node: Node) -> tuple[Node, ...]:
    return node.args if node.op in ("list", "set", "group") else (node,)


def is_interval(node: Node) -> bool:
    """Whether a node can only be an interval."""
    if node.op != "group" or len(node.args) != 2:
        return False
    return node.value in ("[)", "(]") or any(below.op == "inf" for below in node.walk())


def has_dots(node: Node) -> bool:
    return any(below.op == "dots" for below in node.walk())


def dotted(items: Sequence[Node]) -> tuple[list[Node], Node] | None:
    at = [index for index, item in enumerate(items) if item.op == "dots"]
    if len(at) != 1 or at[0] != len(items) - 2:
        return None
    return list(items[: at[0]]), items[-1]


def head_of(built: Node) -> Node:
    """What a set is of, without the larger set that it is taken from."""
    head = built.args[0]
    return head.args[0] if head.op == "rel" and head.value == ("in",) else head


def difference(node: Node) -> Node:
    return Node("add", (node.args[0], Node("neg", (node.args[1],))))


def reversed(node: Node) -> Node:
    assert isinstance(node.value, tuple)
    turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
    return Node("rel", node.args[::-1], tuple(turned.get(sign, sign) for sign in node.value[::-1]))


def renamed(node: Node, names: dict[str, str]) -> Node:
    value = names.get(str(node.value), node.value) if node.op == "sym" else node.value
    return replace(node, args=tuple(renamed(arg, names) for arg in node.args), value=value)


def is_set(node: Node) -> bool:
    return node.op == "sym" and str(node.value).startswith(PREFIX)


def is_whole_set(node: Node) -> bool:
    return is_set(node) and str(node.value).startswith(f"{PREFIX}Z")


def is_large(gold: Node) -> bool:
    """Whether a gold is a number of 1 or more, also a mixed one, so that it may be one of percents."""
    whole = gold.args[0] if gold.op == "add" else gold
    return isinstance(whole.value, Fraction) and abs(whole.value) >= 1


def is_named_whole(function: Node, named: Node) -> bool:
    """Whether one is `f` and the other `f(x)`."""
    return function.op == "sym" and named.op == "mul" and named.args[0] == function and named.args[1].op == "sym"
