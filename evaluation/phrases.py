"""Answers in words ("odd $n$", "All prime numbers, 1, 4, and 6"): the same content words say the same.

Short and safe: words that carry nothing go, plural and singular become one, and what is left must be equal: as a
sequence where order could matter (numbers, conditions, variables), else as a bag. A variable goes only where each side
has no second one. What this rejects may still be right: a judge's.
"""

import re

from erpd_hub.evaluation.answers import normalise_answer, unwrap

_DELIMITERS = re.compile(r"\\text(?:bf|it|rm)?\s*\{|\\math(?:rm|bf|it)\s*\{|\\[()\[\],;:! ]|\\q?quad(?![a-zA-Z])|[${}]")
_TOKEN = re.compile(r"\\?[A-Za-z]+|\d+(?:\.\d+)?|[^\sA-Za-z\d]")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EMPTY = _words(
    "all the an for every any each number numbers value values of form are is be that such where and only with in "
    "there which set answer many wins win has winning strategy"
)
_IMPLIED = _words("integer")
_BOUNDS = _words("positive natural whole")
"""What an answer may leave out, and add where the gold says so too or names no kind of number."""
_ARTICLE = re.compile(
    r"(?<![A-Za-z\\])[aA](?=\s+(?!divid|where\b|such\b|can\b|may\b|must\b|for\b|being\b)[b-df-hj-np-tv-z][A-Za-z])"
)
"""`a` before a word that begins with a consonant; `a is`, `a odd` and `a divides` are the variable."""
_CONDITIONS = _words("if otherwise except else unless not when then no excluding without or")
_PLURALS = {"primes": "prime", "powers": "power", "multiples": "multiple", "squares": "square", "integers": "integer"}
_SAME = {
    "isoceles": "isosceles", "naturals": "natural", "solutions": "solution", "excluding": "except",
    "evens": "even", "odds": "odd", "cards": "card", "triangles": "triangle",
    "infinitely": "infinite", "infinity": "infinite", r"\infty": "infinite",
}  # fmt: skip
_MAX_BAG = 4


_NOTHING = frozenset((r"\varnothing", r"\emptyset", "\N{EMPTY SET}", r"\{\}", r"\left\{\right\}", "{}"))
_KINDS = _words("positive negative real natural rational complex even odd prime nonzero nonnegative")
_THINGS = _words(
    "such solution solutions function functions integer integers number numbers value values pair pairs triple triples "
    "polynomial polynomials sequence sequences exist exists possible"
)


def same_nothing(gold: str, answer: str) -> bool | None:
    """Of two that say that there is nothing: whether the answer's is of no narrower kind ("no real solutions")."""
    wanted, given = _nothing(gold), _nothing(answer)
    return given <= wanted if wanted is not None and given is not None else None


def _nothing(text: str) -> frozenset[str] | None:
    """The kinds of which a text says that there is nothing; None for anything else, and for a mere "no"."""
    if re.sub(r"[\s$]|\\[,;:! ]", "", text) in _NOTHING:
        return frozenset()
    words = re.findall(r"[^\s.]+", _DELIMITERS.sub(" ", text).replace("non-", "non").casefold())
    if words[:1] == ["there"] and words[1:2] and words[1] in ("is", "are", "exist", "exists"):
        words = words[2:]
    if words in (["none"], ["nothing"], ["the", "empty", "set"], ["empty", "set"], ["none", "exist"]):
        return frozenset()
    if len(words) < 2 or words[0] != "no" or not all(w in _KINDS | _THINGS or len(w) == 1 for w in words[1:]):
        return None
    return _KINDS & set(words)


def same_phrase(gold: str, answer: str) -> bool:
    """Whether two answers, the gold one of them in words, say the same."""
    if normalise_answer(gold) == normalise_answer(answer):
        return True
    wanted, given = _content(gold), _content(answer)
    if all(len(set(filter(_is_letter, words))) <= 1 for words in (wanted, given)):
        wanted, given = _without_letter(wanted), _without_letter(given)
    bounded = bool({*_BOUNDS, "prime"} & set(wanted)) or "integer" not in wanted
    wanted, given = _without_implied(wanted, bounds=True), _without_implied(given, bounds=bounded)
    if not wanted or not given:
        return False
    if wanted == given:
        return True
    plain = all(word.isalpha() and len(word) > 1 and word not in _CONDITIONS for word in wanted + given)
    return plain and len(wanted) <= _MAX_BAG and sorted(wanted) == sorted(given)


def _content(text: str) -> list[str]:
    """The words, numbers and signs that carry the meaning."""
    outside = unwrap(text).split("$")
    outside[::2] = [_ARTICLE.sub(" ", part) for part in outside[::2]]  # what is between dollars is maths
    bare = unwrap(_DELIMITERS.sub(" ", "$".join(outside)))
    tokens = [token.casefold() if len(token) > 1 else token for token in _TOKEN.findall(bare)]
    words = [_SAME.get(token, _PLURALS.get(token, token)) for token in tokens if token.casefold() not in _EMPTY]
    return [word for word in words if word not in (",", ".", ":", ";", "'", '"')]


def _is_letter(word: str) -> bool:
    return len(word) == 1 and word.isalpha()


def _without_letter(words: list[str]) -> list[str]:
    """Without the one variable: "odd n" is odd, but "8p" needs its letter."""
    named = [word for word in words if not _is_letter(word)]
    needed = any(word.isdigit() for word in named) or not any(len(word) > 2 and word.isalpha() for word in named)
    return words if needed else named


def _without_implied(words: list[str], *, bounds: bool) -> list[str]:
    """Without what goes without saying, unless nothing else is said."""
    implied = _IMPLIED | _BOUNDS if bounds else _IMPLIED
    kept = [word for word in words if word not in implied]
    return kept if any(len(word) > 2 and word.isalpha() for word in kept) else words
