"""Whether an answer says what a gold says, from their texts: every way to read the answer is compared.

The outcome is True, False or None: None where the reader does not understand one of the two well enough, and another
opinion is needed.
"""

import functools
import re
from collections.abc import Iterator

from erpd_hub.evaluation.answers import is_prose
from erpd_hub.evaluation.maths.approximations import approximations_hold
from erpd_hub.evaluation.maths.hopeless import is_hopeless
from erpd_hub.evaluation.maths.nodes import Node, Unreadable
from erpd_hub.evaluation.maths.number_sets import named_in_words
from erpd_hub.evaluation.maths.opinions import Opinion
from erpd_hub.evaluation.maths.regions import inequality_symbol, same_wholes
from erpd_hub.evaluation.maths.syntax import read
from erpd_hub.evaluation.maths.trees import compare_trees
from erpd_hub.evaluation.maths.words import GOLD_BOUNDS

_WHOLE = re.compile(r"[+-]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?!\d|,\d)")


def compare(gold: str, answer: str) -> Opinion:
    """Whether an answer is the gold; texts as in a box. A gold's units are no more than a number without any says.

    Raises:
        Unreadable: the gold cannot be read.
    """
    target = read_gold(gold)
    said = frozenset(re.findall("[a-z]+", gold.casefold()))
    opinions = [
        _compare_read(target, reading, whole="integer" in gold.casefold())
        for reading in _readings(answer, units=not target.symbols and not is_prose(gold), said=said)
    ]
    if True in opinions:
        return True
    return None if None in opinions or not opinions else False


def read_gold(text: str) -> Node:
    """The one reading of a gold.

    Raises:
        Unreadable: there is none.
    """
    bare = text.strip().strip("$").strip().removeprefix("\\$")
    if _WHOLE.fullmatch(bare):
        text = re.sub("[, ]", "", bare)
    text = named_in_words(text) or text
    prose = is_prose(text)
    try:
        return read(text, said=GOLD_BOUNDS, prose=prose)
    except Unreadable:
        return read(text, drop_words=True, prose=prose)


@functools.lru_cache(maxsize=10_000)
def can_read(gold: str) -> bool:
    """Whether a gold has a certain reading; in time that grows with its length."""
    try:
        read_gold(gold)
    except (Unreadable, RecursionError):
        return False
    return True


def _compare_read(gold: Node, answer: Node, *, whole: bool) -> Opinion:
    if not approximations_hold(answer):
        return False
    opinion = compare_trees(gold, answer)
    if opinion is not True and whole and inequality_symbol(gold) and inequality_symbol(answer):
        return same_wholes(gold, answer)
    if opinion is None and is_hopeless(answer) and not is_hopeless(gold):
        return False  # nothing else could tell more of it in good time
    return opinion


def _readings(text: str, *, units: bool, said: frozenset[str]) -> Iterator[Node]:
    """The ways to read an answer: as it stands, with thousands separators, without units."""
    text = named_in_words(text) or text
    joined = _GROUPED.sub(lambda match: re.sub("[, ]", "", match[0]), text)
    for variant in dict.fromkeys((text, joined)):
        for drop_words in (False, True) if units else (False,):
            try:
                yield read(variant, drop_words=drop_words, said=said)
            except Unreadable:
                continue
