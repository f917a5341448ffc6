"""Words around an answer that change nothing: what leads to it, units and nouns after it, clauses of free constants."""

from erpd_hub.evaluation.maths.clauses import without_clause
from erpd_hub.evaluation.maths.reading import Token
from erpd_hub.evaluation.maths.words import LEADS, QUANTIFIERS, REFUSED, SEPARATORS, TRAILS, UNITS

_WORDS = ("word", "word?")
_LETTER_UNITS = ("h", "m", "s", "g")  # written close to the number: `3h`


def without_words(tokens: list[Token], *, said: frozenset[str]) -> list[Token]:
    """Without all words that change nothing but units.

    Args:
        said: Words of the other side, which a clause may repeat.
    """
    tokens = without_clause(without_lead(tokens), said=said)
    return without_quantifiers(without_trail(_as_equation(tokens)))


def _as_equation(tokens: list[Token]) -> list[Token]:
    """`f: x \\mapsto x + 1` as `f(x) = x + 1`."""
    name = tokens[:1] if [token.text for token in tokens[1:2]] == [":"] else [Token("sym", "f")]
    at = 2 if name == tokens[:1] else 0
    if len(tokens) < at + 2 or tokens[at].kind != "sym" or tokens[at + 1].text != "mapsto":
        return tokens
    return [*name, Token("op", "("), tokens[at], Token("op", ")"), Token("op", "="), *tokens[at + 2 :]]


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
        at = end - power - 1
        token = tokens[at]
        noun = token.kind == "word" and token.text not in REFUSED
        between = token.text in SEPARATORS or (token.text == "/" and at and tokens[at - 1].kind != "num")
        if not (noun or _is_unit(tokens, at) or (between and end < len(tokens))):
            break
        end = at
    return tokens[:end]


def _is_unit(tokens: list[Token], at: int) -> bool:
    token = tokens[at]
    if (
        token.kind not in (*_WORDS, "sym")
        or (token.text if token.kind == "sym" else token.text.casefold()) not in UNITS
    ):
        return False
    if (token.kind, token.text, at) == ("sym", "a", len(tokens) - 1):
        return False  # an article comes before something
    if token.spaced or token.kind == "word":
        return True
    before = tokens[at - 1] if at else None
    if before is not None and before.text == "/" and at > 1:  # `km/h`
        return _is_unit(tokens, at - 2)
    return before is not None and before.kind == "num" and (token.kind == "word?" or token.text in _LETTER_UNITS)


def _power_before(tokens: list[Token], end: int) -> int:
    """How many tokens the power of a unit takes that ends there: `^2` or `^{2}`."""
    for size in (2, 4):
        if end > size and tokens[end - size].text == "^" and tokens[end - size - 1].kind in _WORDS:
            return size
    return 0
