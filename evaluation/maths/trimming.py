"""Words around an answer that change nothing: what leads to it, units and nouns after it, clauses of free constants."""

from erpd_hub.evaluation.maths.reading import Token
from erpd_hub.evaluation.maths.words import (
    CLAUSE_WORDS,
    CLAUSES,
    LEADS,
    QUANTIFIERS,
    REFUSED,
    SEPARATORS,
    TRAILS,
    UNITS,
)

_WORDS = ("word", "word?")


def without_lead(tokens: list[Token]) -> list[Token]:
    """Without "the answer is" or "Answer:" before."""
    end = 0
    while end < len(tokens) and _is_lead(tokens, end):
        end += 1
    colon = end < len(tokens) and tokens[end].text == ":"
    if end and (colon or tokens[end - 1].text.casefold() in LEADS):
        return tokens[end + colon :]
    return tokens


def _is_lead(tokens: list[Token], at: int) -> bool:
    token = tokens[at]
    word = token.text.casefold()
    return token.kind in _WORDS and (word in LEADS or token.kind == "word" or word in UNITS) and word not in _DOUBTS


_DOUBTS = REFUSED - LEADS


def without_clause(tokens: list[Token]) -> list[Token]:
    """Without "for all x", "where c is any constant" after."""
    starts = [at for at, token in enumerate(tokens) if token.text.casefold() in CLAUSES and at]
    if not starts or not all(_is_clause(token) for token in tokens[starts[0] + 1 :]):
        return tokens
    end = starts[0]
    while end and tokens[end - 1].text in SEPARATORS:
        end -= 1
    return tokens[:end]


def _is_clause(token: Token) -> bool:
    if token.kind in _WORDS:
        return token.text.casefold() in CLAUSE_WORDS or len(token.text) == 1
    return token.kind == "sym" or token.text in ("in", "mathbb", "{", "}", *SEPARATORS, *CLAUSES)


def without_trail(tokens: list[Token]) -> list[Token]:
    """Without "is the only solution" after."""
    end = len(tokens)
    while end > 1 and tokens[end - 1].kind in _WORDS and tokens[end - 1].text.casefold() in TRAILS:
        end -= 1
    return tokens[:end]


def without_quantifiers(tokens: list[Token]) -> list[Token]:
    """Without "all integers" before the symbol of a relation."""
    if not any(token.text in ("le", "ge", "<", ">", "=", "ne", "equiv") for token in tokens):
        return tokens
    kept: list[Token] = []
    for token in tokens:
        if token.kind == "sym":
            while kept and kept[-1].kind in _WORDS and kept[-1].text.casefold() in QUANTIFIERS:
                kept.pop()
        kept.append(token)
    return kept


def without_units(tokens: list[Token]) -> list[Token]:
    """Without units and nouns after; a unit's power goes with it."""
    end = len(tokens)
    while end:
        power = _power_before(tokens, end)
        token = tokens[end - power - 1]
        unit = (
            token.kind in (*_WORDS, "sym")
            and (token.text if token.kind == "sym" else token.text.casefold()) in UNITS
            and (token.spaced or token.kind == "word")
        )
        noun = token.kind == "word" and token.text not in REFUSED
        if not (unit or noun or (token.text in ("/", *SEPARATORS) and end < len(tokens))):
            break
        end -= power + 1
    return tokens[:end]


def _power_before(tokens: list[Token], end: int) -> int:
    """How many tokens the power of a unit takes that ends there: `^2` or `^{2}`."""
    for size in (2, 4):
        if end > size and tokens[end - size].text == "^" and tokens[end - size - 1].kind in _WORDS:
            return size
    return 0
