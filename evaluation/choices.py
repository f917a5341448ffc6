"""Multiple choice: the letter that an answer picks, and whether it picks that one alone. Pure."""

import re

from erpd_hub.evaluation.answers import unwrap, without_text_commands

_CHOICE = re.compile(r"\(?([A-J])(?:\)[.:]?|[.:]|$)")
_LETTERS = re.compile(r"[^A-Za-z0-9\\]*[A-HJ](?:[^A-Za-z0-9\\]+[A-J])*[^A-Za-z0-9\\]*")  # a lone I may be a numeral
_JOINED = re.compile(r"[^A-Za-z0-9\\]*(?:(?:or|and|not|also|but|maybe|perhaps|possibly)[\s,(]+)+[A-J](?![A-Za-z0-9])")
_DENIED = re.compile(r"\s*(?:is|was)\s+(?:wrong|incorrect|false|not\s+(?:right|correct|true|it))\b")
_BRACKETED = re.compile(r"(?P<before>\\?[A-Za-z0-9]+)?\(\s*(?P<letter>[A-J])\s*\)")
_MARKED = re.compile(r"(?:^|(?<=[\s,;/]))(?P<letter>[A-J])(?:\)|[.:](?=\s|$))")
_NAMED = re.compile(r"\b(?:answer|choice|option)(?:\s+is|:)?\s*(?P<letter>[A-J])(?![A-Za-z0-9])")
_SPACES = re.compile(r"\\\\|\\[,;:!> ]|\\q?quad(?![a-zA-Z])|[$~{}]")
_OR = re.compile(r"\\(?:lor|vee|cup|land|wedge|cap)(?![a-zA-Z])")
_OF_OTHERS = re.compile(r"\s*(?:both|neither|none|all)\b")
_CONNECTORS = ("or", "and", "not", "nor", "also", "but")


def same_choice(gold: str, answer: str) -> bool | None:
    """Whether an answer picks the gold's letter (`B`, `(B)`, `\\textbf{(B)} 5`) and no other.

    None where the gold is no choice, or the answer begins with none.
    """
    choice = _CHOICE.fullmatch(unwrap(without_text_commands(gold)))
    if choice is None:
        return None
    text = _OR.sub(" or ", _SPACES.sub(" ", unwrap(without_text_commands(answer)))).strip()
    picked = _CHOICE.match(text)
    if picked is None:
        return None
    return picked[1] == choice[1] and not _takes_it_back(text[picked.end() :], choice[1])


def _takes_it_back(rest: str, letter: str) -> bool:
    """Whether what follows a letter names another one as a choice, or says that the first is wrong.

    The text of an option may well hold letters: `P(A) = 0.5`, `vitamin C`, `I and II`, `both (A) and (B)`.
    """
    if _DENIED.match(rest) or _LETTERS.fullmatch(rest) or _JOINED.match(rest):
        return True
    if _OF_OTHERS.match(rest):
        return False
    bracketed = (match["letter"] for match in _BRACKETED.finditer(rest) if match["before"] in (None, *_CONNECTORS))
    named = (match["letter"] for match in _NAMED.finditer(rest))
    marked = (match["letter"] for match in _MARKED.finditer(rest) if not _inside_brackets(rest, match.start()))
    return any(other != letter for other in (*bracketed, *named, *marked))


def _inside_brackets(text: str, at: int) -> bool:
    return text.count("(", 0, at) > text.count(")", 0, at)
