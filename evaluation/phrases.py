"""Answers in words ("odd $n$", "All prime numbers, 1, 4, and 6"): the same content words say the same.

Short and safe: words that carry nothing go, plural and singular become one, and what is left must be equal: as a
sequence where order could matter (numbers, conditions), else as a bag. What this rejects may still be right: a judge's.
"""

import re

from erpd_hub.evaluation.answers import normalise_answer, unwrap

_DELIMITERS = re.compile(r"\\text(?:bf|it|rm)?\s*\{|\\math(?:rm|bf|it)\s*\{|\\[()\[\],;:! ]|\\q?quad(?![a-zA-Z])|[${}]")
_TOKEN = re.compile(r"\\?[A-Za-z]+|\d+(?:\.\d+)?|[^\sA-Za-z\d]")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EMPTY = _words(
    "all the a an for every any each number numbers value values of form are is be that such where and only with in "
    "there which set answer"
)
_IMPLIED = _words("integer natural positive whole")
_CONDITIONS = _words("if otherwise except else unless not when then no excluding without or")
_PLURALS = {"primes": "prime", "powers": "power", "multiples": "multiple", "squares": "square", "integers": "integer"}
_SAME = {
    "isoceles": "isosceles", "naturals": "natural", "solutions": "solution", "excluding": "except", "none": "no",
    "evens": "even", "odds": "odd", "cards": "card", "triangles": "triangle", "exist": "solution",
}  # fmt: skip
_MAX_BAG = 4


def same_phrase(gold: str, answer: str) -> bool:
    """Whether two answers, the gold one of them in words, say the same."""
    if normalise_answer(gold) == normalise_answer(answer):
        return True
    wanted, given = _content(gold), _content(answer)
    if not wanted or not given:
        return False
    if wanted == given:
        return True
    plain = all(word.isalpha() and word not in _CONDITIONS for word in wanted + given)
    return plain and len(wanted) <= _MAX_BAG and sorted(wanted) == sorted(given)


def _content(text: str) -> list[str]:
    """The words, numbers and signs that carry the meaning."""
    bare = unwrap(_DELIMITERS.sub(" ", unwrap(text)))
    tokens = [token.casefold() if len(token) > 1 else token for token in _TOKEN.findall(bare)]
    words = [_SAME.get(token, _PLURALS.get(token, token)) for token in tokens if token.casefold() not in _EMPTY]
    words = [word for word in words if word not in (",", ".", ":", ";", "'", '"')]
    kept = [word for word in words if word not in _IMPLIED]
    named = [word for word in kept if len(word) > 1 or not word.isalpha()]
    if any(len(word) > 2 and word.isalpha() for word in named):  # "odd n" is odd, but "8p" needs its letter
        return named if not any(word.isdigit() for word in named) else kept
    return words
