"""Clauses after an answer that take nothing away from it: "for all x > 0", "where c is a constant", "(c \\in R)".

A clause may be about the argument of the function that the answer is, or about constants that it leaves free. One that
bounds such a constant says more, and is left for the parser to refuse, unless the other side says so too.
"""

from erpd_hub.evaluation.maths.reading import Token
from erpd_hub.evaluation.maths.words import CLAUSE_BOUNDS, CLAUSE_WORDS, CLAUSES, FREE, SEPARATORS

_WORDS = ("word", "word?")
_BOUNDING = ("<", ">", "le", "ge", "ne")


def without_clause(tokens: list[Token], *, said: frozenset[str]) -> list[Token]:
    """The tokens before the clause; all of them where there is none, or one that says more.

    Args:
        said: Words of the other side.
    """
    found = _after_word(tokens) or _in_brackets(tokens) or _after_comma(tokens)
    if found is None:
        return tokens
    end, clause = found
    while end and tokens[end - 1].text in SEPARATORS:
        end -= 1
    return tokens[:end] if end and _says_nothing(clause, tokens[:end], said) else tokens


def _after_word(tokens: list[Token]) -> tuple[int, list[Token]] | None:
    """Where a clause begins that a word or `\\forall` leads to, and what it says."""
    for at, token in enumerate(tokens):
        if at and token.kind in (*_WORDS, "cmd") and token.text.casefold() in CLAUSES:
            return at, tokens[at + 1 :]
    return None


def _in_brackets(tokens: list[Token]) -> tuple[int, list[Token]] | None:
    """`(c \\in R)` or `(n \\ge 2)` at the end."""
    depth = 0
    for at in range(len(tokens) - 1, 0, -1):
        depth += (tokens[at].text == ")") - (tokens[at].text == "(")
        if depth == 0:
            inside = tokens[at + 1 : -1]
            bound = any(token.text in ("in", *_BOUNDING) for token in inside)
            return (at, inside) if bound else None
    return None


def _after_comma(tokens: list[Token]) -> tuple[int, list[Token]] | None:
    """`, a constant`"""
    for at in range(len(tokens) - 1, 0, -1):
        if tokens[at].text == ",":
            return (at, tokens[at + 1 :]) if {token.text for token in tokens[at + 1 :]} & FREE else None
        if tokens[at].kind not in (*_WORDS, "sym"):
            return None
    return None


def _says_nothing(clause: list[Token], before: list[Token], said: frozenset[str]) -> bool:
    clause, subset = _without_sets(clause)
    bound = next((at for at, token in enumerate(clause) if token.text in _BOUNDING), None)
    words = clause[:bound]
    names = {token.text for token in words if token.kind == "sym"}
    if bound is not None and not _is_bound(clause[bound + 1 :]):
        return False
    if not all(_is_free(token, said) for token in words):
        return False
    spoken = {token.text.casefold() for token in words if token.kind in _WORDS}
    if "some" in spoken and names & _arguments(before):
        return False
    return (bound is None and not subset) or _may_bound(before, names)


def _without_sets(clause: list[Token]) -> tuple[list[Token], bool]:
    """A clause without `\\mathbb{R}^+` and the like, and whether one of them is only a part of the reals."""
    kept: list[Token] = []
    subset, at = False, 0
    while at < len(clause):
        if clause[at].text != "mathbb":
            kept.append(clause[at])
            at += 1
            continue
        at += 4 if clause[at + 1 : at + 2] and clause[at + 1].text == "{" else 2
        while at < len(clause) and clause[at].text in ("^", "_"):
            subset = True
            group = clause[at + 1 : at + 2] and clause[at + 1].text == "{"
            at += 2
            while group and at < len(clause) and clause[at - 1].text != "}":
                at += 1
    return kept, subset


def _is_bound(tokens: list[Token]) -> bool:
    """Whether tokens are one number or symbol, with its sign."""
    bare = tokens[1:] if tokens and tokens[0].text == "-" else tokens
    return len(bare) == 1 and bare[0].kind in ("num", "sym")


def _is_free(token: Token, said: frozenset[str]) -> bool:
    word = token.text.casefold()
    if token.kind in _WORDS:
        return word in CLAUSE_WORDS or (word in CLAUSE_BOUNDS and word in said) or len(word) == 1
    return token.kind == "sym" or token.text in ("in", *SEPARATORS, *CLAUSES)


def _arguments(tokens: list[Token]) -> set[str]:
    """The argument of `f(x) = ...`."""
    kinds = [token.kind if token.kind == "sym" else token.text for token in tokens[:5]]
    return {tokens[2].text} if kinds == ["sym", "(", "sym", ")", "="] else set()


def _may_bound(before: list[Token], names: set[str]) -> bool:
    """Whether a bound on these names is on the argument of the function, or on all that an expression depends on."""
    if arguments := _arguments(before):
        return names == arguments
    symbols = {token.text for token in before if token.kind == "sym"}
    return symbols == names and not any(token.text in ("=", "in", *_BOUNDING) for token in before)
