"""Whether one tree says what another says: lists, sets, tuples, intervals, equations and what they hold.

Lists without brackets are unordered; a tuple is ordered and is no set; an interval has its brackets.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import permutations

from erpd_hub.evaluation.maths.equality import equal_expressions, is_expression, proportional
from erpd_hub.evaluation.maths.nodes import Node
from erpd_hub.evaluation.maths.opinions import Opinion, all_of
from erpd_hub.evaluation.maths.regions import inequality_symbol, same_regions, same_wholes
from erpd_hub.evaluation.maths.residues import congruent
from erpd_hub.evaluation.maths.shapes import (
    difference,
    dotted,
    has_dots,
    head_of,
    is_equality,
    is_interval,
    is_large,
    is_name,
    is_named_whole,
    is_set,
    is_whole_set,
    items_of,
    may_be_asked,
    name_of,
    opened,
    renamed,
    repeated,
    reversed,
    value_of,
    valued,
)

_MAX_ITEMS = 40


def compare_trees(gold: Node, answer: Node) -> Opinion:
    """Whether an answer's tree says what the gold's says."""
    if gold == answer:
        return True
    gold, answer = opened(gold), opened(answer)
    if "builder" in (gold.op, answer.op):
        return _built(gold, answer)
    if is_whole_set(gold) != is_whole_set(answer) and "rel" in (gold.op, answer.op):
        return same_wholes(gold, answer)
    if gold.op == "rel" and answer.op == "rel":
        return _statements(gold, answer)
    if answer.op == "rel":
        return _value_said(gold, answer) if is_equality(answer) else _regions(gold, answer)
    if gold.op == "rel":
        if is_equality(gold):
            return compare_trees(value_of(gold), answer) if is_name(gold.args[0]) else None
        return _regions(gold, answer)
    if "mod" in (gold.op, answer.op):
        return congruent(gold, answer)
    if is_set(gold) and is_set(answer):
        return gold == answer
    if "setop" in (gold.op, answer.op) or is_interval(gold) != is_interval(answer):
        return _regions(gold, answer)
    return _collections(gold, answer)


def _value_said(gold: Node, answer: Node) -> Opinion:
    """The value that an equality gives to what may have been asked for; `2x = 10` and `74 = 73` give none."""
    left, value = answer.args[0], value_of(answer)
    if gold.op == "group" and len(answer.args) > 2:
        value = repeated(answer) or value
    if value.op == "mod" and gold.op != "mod":
        return _compare_residue(gold, left, value)
    if left is not value and not left.symbols and is_expression(left) and is_expression(value):
        if not value.symbols and equal_expressions(left, value) is False:
            return False
    elif left is not value and not may_be_asked(left):
        return False
    return compare_trees(gold, value)


def _compare_residue(gold: Node, left: Node, value: Node) -> Opinion:
    """What `N \\equiv 809 (mod 1000)` says N is; of `1809 \\equiv 809` the left side must be congruent."""
    if not left.symbols and not congruent(Node("mod", (left, value.args[1])), value):
        return False
    return compare_trees(gold, value.args[0]) if gold.op == "num" else congruent(gold, value)


def _built(gold: Node, answer: Node) -> Opinion:
    """Sets by their condition, which says it all where the other one is an inequality."""
    if gold.op == answer.op:
        return compare_trees(gold.args[1], answer.args[1]) if head_of(gold) == head_of(answer) else None
    built, other = (gold, answer) if gold.op == "builder" else (answer, gold)
    if other.op != "rel" and head_of(built).op != "sym":
        return None
    return compare_trees(built.args[1], other) if built is gold else compare_trees(other, built.args[1])


def _collections(gold: Node, answer: Node) -> Opinion:
    many = ("list", "set", "group")
    if gold.op not in many and answer.op not in many:
        return _values(gold, answer)
    if "group" in (gold.op, answer.op) and "set" in (gold.op, answer.op):
        return False
    golds, answers = items_of(gold), items_of(answer)
    if max(len(golds), len(answers)) > _MAX_ITEMS or has_dots(gold) or has_dots(answer):
        return _progressions(golds, answers)
    if len(golds) != len(answers):
        alike = answer.op == "list" and answer.value == "or" and len(golds) == 1  # `3/4 or 0.75`
        return alike and all(compare_trees(gold, item) is True for item in answers)
    if gold.op == answer.op == "list" and len(gold.symbols) == 1 and all(map(inequality_symbol, (*golds, *answers))):
        return _regions(gold, answer) if gold.symbols == answer.symbols else None
    if gold.op == answer.op == "group":
        if len(golds) == 2 and gold.value != answer.value:
            return False
        return all_of(_things(a, b) for a, b in zip(golds, answers, strict=True))
    if "group" in (gold.op, answer.op):
        return all_of(_things(a, b) for a, b in zip(valued(golds), valued(answers), strict=True))
    return _matched(golds, answers)


def _values(gold: Node, answer: Node) -> Opinion:
    """Two single things: expressions, infinities, sets with a name."""
    for one, other in ((gold, answer), (answer, gold)):
        if one.op == "inf" or (one.op == "neg" and one.args[0].op == "inf"):
            return False if is_expression(other) or other.op == "inf" or other.op == "neg" else None
    if gold.op == "based":  # `2215_6`; the base may be left out
        digits = Fraction(str(gold.value).partition("_")[0])
        return gold == answer if answer.op == "based" else answer.op == "num" and answer.value == digits
    if not (is_expression(gold) and is_expression(answer)):
        return None
    equal = equal_expressions(gold, answer)
    if not equal and answer.op == "percent" and is_large(gold):
        return equal_expressions(gold, answer.args[0])  # the sign is a unit that the gold leaves out
    return equal


def _things(gold: Node, answer: Node) -> Opinion:
    """Two things of lists, where a set of one number is not the number."""
    one, other = (gold, answer) if gold.op == "set" else (answer, gold)
    return False if one.op == "set" and is_expression(other) else compare_trees(gold, answer)


def _matched(golds: Sequence[Node], answers: Sequence[Node]) -> Opinion:
    """Whether each gold has an answer of its own; equality is transitive, so the first that fits will do."""
    named = len({name_of(item) for item in golds} - {None}) > 1
    left, unsure = list(answers), False
    for gold in golds:
        for index, answer in enumerate(left):
            opinion = _things(gold, answer)
            if opinion is None and named and name_of(gold) != name_of(answer) and name_of(answer) is not None:
                opinion = False
            unsure = unsure or opinion is None
            if opinion:
                del left[index]
                break
        else:
            return None if unsure else False
    return True


def _statements(gold: Node, answer: Node) -> Opinion:
    """Two relations: names with values, equations, inequalities."""
    if is_equality(gold) and is_equality(answer):
        return _equalities(gold, answer)
    if is_equality(gold) or is_equality(answer):
        return None
    if inequality_symbol(gold) and inequality_symbol(gold) != inequality_symbol(answer):
        return None
    if (opinion := _regions(gold, answer)) is not None:
        return opinion
    for other in (answer, reversed(answer)):
        if gold.value == other.value and all_of(
            equal_expressions(a, b) if is_expression(a) and is_expression(b) else a == b
            for a, b in zip(gold.args, other.args, strict=True)
        ):
            return True
    return None


def _equalities(gold: Node, answer: Node) -> Opinion:
    left, right = gold.args[0], answer.args[0]
    if is_name(left) and is_name(right):
        if left == right and left.op != "mul":
            return compare_trees(value_of(gold), value_of(answer))
        if left.op == "group" and right.op == "group":
            return _named_tuples(gold, answer)
        if left.op == "mul" and right.op == "mul":
            return _functions(gold, answer)
        if is_named_whole(left, right) or is_named_whole(right, left):
            return _constant_functions(gold, answer)
        return False if "(" in str(left.value) else None  # f(0) = 1 is not f(1) = 1
    if len(gold.args) == len(answer.args) == 2 and all(is_expression(m) for m in gold.args + answer.args):
        return proportional(difference(gold), difference(answer))
    return None


def _named_tuples(gold: Node, answer: Node) -> Opinion:
    """`(a, b) = (2, 3)` against `(b, a) = (3, 2)`."""
    names, others, value = gold.args[0].args, answer.args[0].args, value_of(answer)
    if len(names) != len(others):
        return False
    if names != others and set(names) == set(others):
        if value.op != "group" or len(value.args) != len(others):
            return None
        value = replace(value, args=tuple(value.args[others.index(name)] for name in names))
    return compare_trees(value_of(gold), value)


def _functions(gold: Node, answer: Node) -> Opinion:
    """`f(x) = ...` against `g(t) = ...`: the names of function, argument and parameters are free."""
    one, other = gold.args[0].args[1], answer.args[0].args[1]
    if one.op != "sym" or other.op != "sym":
        return (
            compare_trees(value_of(gold), value_of(answer)) if one == other or one.op == other.op == "group" else None
        )
    value, target = renamed(value_of(answer), {str(other.value): str(one.value)}), value_of(gold)
    opinion = compare_trees(target, value)
    free = sorted(value.symbols - target.symbols)
    wanted = sorted(target.symbols - value.symbols - {str(one.value)})
    if opinion or len(free) != len(wanted) or not 1 <= len(free) <= 2:
        return opinion
    pairs = ({old: new for old, new in zip(free, order, strict=True)} for order in permutations(wanted))
    return True if any(compare_trees(target, renamed(value, names)) for names in pairs) else opinion


def _constant_functions(gold: Node, answer: Node) -> Opinion:
    """`f = c` against `f(x) = c`: the same where neither depends on x."""
    named = gold.args[0] if gold.args[0].op == "mul" else answer.args[0]
    depends = named.args[1].value in value_of(gold).symbols | value_of(answer).symbols
    return None if depends else compare_trees(value_of(gold), value_of(answer))


def _regions(gold: Node, answer: Node) -> Opinion:
    return _collections(gold, answer) if gold.op == answer.op == "group" else same_regions(gold, answer)


def _progressions(golds: Sequence[Node], answers: Sequence[Node]) -> Opinion:
    """Lists with dots, `1, 2, ..., 9`: the same first terms and the same last."""
    if (one := dotted(golds)) is None or (other := dotted(answers)) is None:
        return None
    length = min(len(one[0]), len(other[0]))
    if one[0][:length] != other[0][:length] or length < 2:
        return None
    return compare_trees(one[1], other[1])
