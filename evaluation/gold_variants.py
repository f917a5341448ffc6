"""Other ways to write an answer, all of them right: what a grader must accept if it accepts the gold. Pure.

Only rewritings that nobody would mark down: delimiters, spacing, separators and zeros of an integer, the sizes of
fractions and brackets, the degree sign where degrees are asked for, plain TeX synonyms. No algebra.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from erpd_hub.evaluation.answers import is_prose

_INTEGER = re.compile(r"-?\d+")
_SIMPLE_FRACTION = re.compile(r"(-?)\\frac\{(\d+)\}\{(\d+)\}")
_GROWING = {"(": r"\left(", ")": r"\right)"}
_SYNONYMS = (
    ("dfrac", re.compile(r"\\frac(?![a-zA-Z])"), r"\\dfrac"),
    ("tfrac", re.compile(r"\\frac(?![a-zA-Z])"), r"\\tfrac"),
    ("frac", re.compile(r"\\[dt]frac(?![a-zA-Z])"), r"\\frac"),
    ("times", re.compile(r"\\cdot(?![a-zA-Z])"), r"\\times"),
    ("cdot", re.compile(r"\\times(?![a-zA-Z])"), r"\\cdot"),
    ("leq", re.compile(r"\\(le|ge|ne)(?![a-zA-Z])"), r"\\\1q"),
    ("braced exponent", re.compile(r"\^(\d)(?!\d)"), r"^{\1}"),
    ("bare exponent", re.compile(r"\^\{(\d)\}"), r"^\1"),
    ("bare root", re.compile(r"\\sqrt\{(\d)\}"), r"\\sqrt \1"),
    ("braced root", re.compile(r"\\sqrt\s*(\d)(?!\d)"), r"\\sqrt{\1}"),
    ("brackets that do not grow", re.compile(r"\\(?:left|right)(?=[()\[\]|])"), ""),
    ("growing brackets", re.compile(r"(?<!\\right)(?<!\\left)([()])"), lambda m: _GROWING[m[1]]),
    ("spaced signs", re.compile(r"(?<=[\w})])([+=-])(?=[\w\\({])"), r" \1 "),
    ("no spaces", re.compile(r"(?<![a-zA-Z]) +| +(?![a-zA-Z])"), ""),
)


class Variant(NamedTuple):
    kind: str
    answer: str
    """The content of the final box."""


def variants(gold: str, *, degrees: bool = False) -> list[Variant]:
    """The gold and other ways to write it, each text once.

    Args:
        degrees: The problem asks for an angle in degrees.
    """
    found = {gold: Variant("gold", gold)}
    for variant in (*_any(gold), *_written(gold, degrees)):
        found.setdefault(variant.answer, variant)
    return list(found.values())


def responses(gold: str) -> list[Variant]:
    """Whole responses that end in the gold, with what a grader must not stumble over around it."""
    box = f"\\boxed{{{gold}}}"
    return [
        Variant("in a sentence", f"Therefore the answer is {box}."),
        Variant("displayed", f"Hence\n\\[\n{box}\n\\]"),
        Variant("in dollars", f"So we get $${box}$$"),
        Variant("second box", f"First I thought \\boxed{{-1234567}}. It is {box}"),
        Variant("after thinking", f"<think>Perhaps \\boxed{{-1234567}}?</think>\n{box}"),
        Variant("fbox", f"\\fbox{{{gold}}}"),
        Variant("bold", f"**Answer:** **{box}**"),
    ]


def asks_for_degrees(problem: str) -> bool:
    """Whether a problem speaks of degrees as a unit."""
    return re.search(r"\\circ|°|\bdegrees?\b", problem) is not None


def _any(gold: str) -> Iterator[Variant]:
    yield Variant("spaces", f"  {gold} ")
    yield Variant("new lines", f"\n{gold}\n")
    if "$" not in gold:
        yield Variant("dollars", f"${gold}$")
        yield Variant("spaced dollars", f"$ {gold} $")
        yield Variant("two dollars", f"$${gold}$$")
        yield Variant("round delimiters", f"\\({gold}\\)")
    yield Variant("box in a box", f"\\boxed{{{gold}}}")
    yield Variant("full stop", f"{gold}.")


def _written(gold: str, degrees: bool) -> Iterator[Variant]:
    if _INTEGER.fullmatch(gold):
        yield from _integers(gold)
        if degrees:
            yield from _degrees(gold)
    elif is_prose(gold):
        yield Variant("text", f"\\text{{{gold}}}" if "$" not in gold else gold)
        yield Variant("capital", gold[:1].upper() + gold[1:])
    else:
        yield from _maths(gold)


def _integers(gold: str) -> Iterator[Variant]:
    sign, digits = ("-", gold[1:]) if gold.startswith("-") else ("", gold)
    grouped = f"{int(digits):,}" if len(digits) < 1000 else digits
    for name, separator in (("comma", ","), ("braced comma", "{,}"), ("thin space", r"\,"), ("comma", ",\\!")):
        yield Variant(f"thousands by {name}", sign + grouped.replace(",", separator))
    for command in ("text", "mathrm", "mathbf", "textbf"):
        yield Variant(command, f"\\{command}{{{gold}}}")
    yield Variant("leading zeros", f"{sign}00{digits}")
    yield Variant("leading zero", f"{sign}0{digits}")
    yield Variant("decimal", f"{gold}.0")
    yield Variant("braces", f"{{{gold}}}")
    yield Variant("displaystyle", f"\\displaystyle {gold}")


def _degrees(gold: str) -> Iterator[Variant]:
    for sign in (r"^\circ", r"^{\circ}", "°", r"\degree", r"\text{ degrees}", r" \text{ degrees}", " degrees"):
        yield Variant("degrees", gold + sign)


def _maths(gold: str) -> Iterator[Variant]:
    for kind, pattern, replacement in _SYNONYMS:
        yield Variant(kind, pattern.sub(replacement, gold))
    yield Variant("slash", _SIMPLE_FRACTION.sub(r"\1\2/\3", gold) if _SIMPLE_FRACTION.fullmatch(gold) else gold)
    yield Variant("displaystyle", f"\\displaystyle {gold}")
    yield Variant("minus sign", gold.replace("-", "\N{MINUS SIGN}"))
    yield Variant("thin spaces", re.sub(r"(?<=[\w})])([+])(?=[\w\\({])", r"\\,\1\\,", gold))
