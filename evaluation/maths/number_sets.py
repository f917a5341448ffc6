"""Sets of numbers that have a name: `\\mathbb{R}^+`, `\\mathbb{Z}_{\\ge 0}`, "all positive integers"; one name each.

The name is the letter and what bounds it: `R>0`, `Z>=0`, `Q`. The natural numbers begin with 1, as contests have it,
unless a mark says otherwise.
"""

import re

PREFIX = "mathbb:"
_MARKS = {
    "+": ">0", ">0": ">0", "-": "<0", "<0": "<0", "ge0": ">=0", "0": ">=0", "0+": ">=0", "+0": ">=0", "le0": "<=0",
    "ne0": "!=0", "cdot": "!=0", "times": "!=0",
}  # fmt: skip
_NATURAL = {"": ">0", "+": ">0", "cdot": ">0", ">0": ">0", "ge1": ">0", "0": ">=0", "ge0": ">=0"}
_IN_WORDS = re.compile(
    r"(?:(?:the )?set of )?(?:(?:all|any|every|each|the|of|\w is an?y?) )*"
    r"(?:(?P<sign>positive|negative|nonnegative|nonzero|natural) )?(?P<kind>integer|real|rational|complex|natural)s?"
    r"(?: (?:number|value)s?)?(?: \w)?"
)
_LETTERS = {"integer": "Z", "real": "R", "rational": "Q", "complex": "C", "natural": "N"}
_SIGNS = {"positive": ">0", "negative": "<0", "nonnegative": ">=0", "nonzero": "!=0", "natural": ">0"}


def set_name(letter: str, mark: str = "") -> str:
    """The name of the set that a letter and its mark (as tokens' texts, `ge0`) stand for."""
    if letter == "N":
        return f"{PREFIX}Z{_NATURAL[mark]}" if mark in _NATURAL else f"{PREFIX}N_{mark}"
    if letter == "Z" and mark == "ge1":
        return f"{PREFIX}Z>0"
    if not mark:
        return f"{PREFIX}{letter}"
    return f"{PREFIX}{letter}{_MARKS[mark]}" if mark in _MARKS and letter in "ZRQ" else f"{PREFIX}{letter}_{mark}"


def named_in_words(text: str) -> str | None:
    """The set that a text names, as LaTeX that reads as its name; None where it says anything else."""
    bare = re.sub(r"\\(?:text|mathrm|textbf)\b|\\[,;:! ]|[{}$]", " ", text).replace("-", "")
    match = _IN_WORDS.fullmatch(" ".join(bare.casefold().split()).rstrip("."))
    if match is None or (match["sign"] and match["kind"] in ("complex", "natural")):
        return None
    mark = _SIGNS[match["sign"]] if match["sign"] else ""
    return f"\\mathbb{{{_LETTERS[match['kind']]}}}" + (f"_{{{mark}}}" if mark else "")
