"""From a response to its final answer, and the comparisons that need no algebra. Pure, and linear in the text's length.

Model text is only ever cut and compared here: nothing evaluates it, and integers stay digit strings of any length.
"""

import re
import unicodedata
from typing import Literal

Extract = Literal["boxed", "first-line", "whole"]

_MINUS = "\N{MINUS SIGN}"
_BOX = re.compile(r"\\+(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\+(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_TRIES = 4  # boxes looked at from the end, each to the end of the text, before one pass from the start
_WRAPPERS = re.compile(
    r"\$\$?(?P<dollar>[^$]*)\$\$?"
    r"|\\\((?P<round>.*)\\\)|\\\[(?P<square>.*)\\\]"
    r"|\\(?:text|textbf|mathrm|mathbf|boxed|fbox|mbox)\s*\{(?P<macro>[^{}]*)\}",
    re.DOTALL,
)
_INTEGER = re.compile(r"(?P<sign>[+-]?)(?P<digits>\d+|\d{1,3}(?:,\d{3})+)")
_SPACING = re.compile(r"\\[,;:!> ()\[\]]|\\q?quad(?![a-zA-Z])|\\(?:left|right|displaystyle)(?![a-zA-Z])|~")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_SYNONYMS = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:ge|le|ne)q(?![a-zA-Z])"), lambda match: match[0][:-1]),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"\\%"), "%"),
)
_FUNCTION_WORDS = frozenset(("sqrt", "frac", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "binom", "floor"))
_SHORT_WORDS = frozenset(("yes", "no", "true", "false", "odd", "even", "all", "none"))


def extract_answer(text: str, *, extract: Extract, thinking: bool) -> str | None:
    """The final answer of a response, or None.

    `boxed`: the content of the last balanced box after the last `</think>`. `first-line`: the first line. `whole`: all
    of it, or the last box where there is one. A response that begins with `<think>`, or whose prompt did (`thinking`),
    and never closes it has no answer.
    """
    tail = after_thinking(text, thinking=thinking)
    if tail is None:
        return None
    answer = tail.split("\n", 1)[0] if extract == "first-line" else last_boxed(tail)
    if answer is None and extract == "whole":
        answer = tail
    return (answer.strip() or None) if answer is not None else None


def after_thinking(text: str, *, thinking: bool) -> str | None:
    """What follows the last `</think>`; None where the prompt or the text opened a think block that is not closed."""
    _, closed, tail = text.rpartition("</think>")
    opened = thinking or text[:100].lstrip().startswith("<think>")
    return tail if closed or not opened else None


def last_boxed(text: str) -> str | None:
    """Content of the last `\\boxed{}` whose braces balance (of nested ones the innermost); linear in the text."""
    end = len(text)
    for _ in range(_TRIES):
        start = max(text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end))
        if start < 0:
            return None
        box = _BOX.match(text, start)
        if box and (close := _closing(text, box.end())) is not None:
            return text[box.end() : close]
        end = start
    return _last_boxed_in_one_pass(text)


def _closing(text: str, start: int) -> int | None:
    """Where the brace that was opened before `start` is closed."""
    depth = 1
    for match in _BRACE.finditer(text, start):
        token = match[0]
        if token == "}":
            depth -= 1
            if depth == 0:
                return match.start()
        elif token.endswith("{") and token != "\\{":
            depth += 1
    return None


def _last_boxed_in_one_pass(text: str) -> str | None:
    open_braces: list[tuple[int, bool]] = []
    last: tuple[int, int] | None = None
    for match in _BRACE.finditer(text):
        token = match[0]
        if token.endswith("{") and token != "\\{":
            open_braces.append((match.end(), token != "{"))
        elif token == "}" and open_braces:
            start, is_box = open_braces.pop()
            if is_box and (last is None or start > last[0]):
                last = (start, match.start())
    return text[slice(*last)] if last else None


def parse_integer(text: str) -> str | None:
    """An integer in canonical digits (`-7`, `1406`), or None for anything else.

    Accepts a sign, leading zeros, thousands separators (`1,406`, `1{,}406`, `1\\,406`), a final full stop, and
    `$...$`, `\\(...\\)`, `\\text{}` or `\\boxed{}` around it.
    """
    bare = unwrap(text).replace(_MINUS, "-").replace("{,}", ",")
    bare = re.sub(r"(?<=\d)(?:\\[,;:! ]|~)(?=\d{3}(?!\d))", "", bare)
    match = _INTEGER.fullmatch(re.sub(r"(?<=[+-])\s+", "", bare))
    if not match or not bare.isascii():
        return None
    digits = match["digits"].replace(",", "").lstrip("0") or "0"
    return f"-{digits}" if match["sign"] == "-" and digits != "0" else digits


def is_plain_sum(text: str) -> bool:
    """Whether an answer is digits and signs only, a sum left undone (`876+530`): the question, not its answer."""
    bare = unwrap(text)
    return re.fullmatch(r"[0-9+\s-]+", bare) is not None and not re.fullmatch(r"-?\d{1,3}(?: \d{3})+", bare)


def unwrap(text: str) -> str:
    """Remove what stands around a whole answer: white space, a final full stop, maths and text delimiters."""
    bare = text.strip()
    for _ in range(4):  # `$\text{$5$}$.` is as deep as sane text goes
        bare = bare.removesuffix(".").strip()
        match = _WRAPPERS.fullmatch(bare)
        if not match:
            break
        bare = next(group for group in match.groups() if group is not None).strip()
    return bare


def without_text_commands(text: str) -> str:
    """A text with the content of `\\text{}` and its kin in their place."""
    return _TEXT.sub(r"\1", text)


def normalise_answer(text: str) -> str:
    """A form in which answers that differ only in how they are typeset are equal as strings."""
    bare = unwrap(unicodedata.normalize("NFC", text)).replace(_MINUS, "-")
    bare = without_text_commands(bare)
    for pattern, replacement in _SYNONYMS:
        bare = pattern.sub(replacement, bare)
    bare = re.sub(r"(?<=\d)\s+(?=\d)", "_", _SPACING.sub(" ", bare))  # `1 2` is not 12
    bare = re.sub(r"[\s$]+", "", bare)
    return bare.casefold() if is_prose(text) else bare


def is_prose(text: str) -> bool:
    """Whether an answer holds words ("odd $n$", "Yes"), which algebra cannot compare."""
    without_commands = re.sub(r"\\(?:begin|end)\{\w+\}|\\[a-zA-Z]+", " ", _TEXT.sub(r" \1 ", text))
    words = [word.casefold() for word in re.findall(r"[A-Za-z]{2,}", without_commands)]
    return any(word in _SHORT_WORDS or (len(word) > 3 and word not in _FUNCTION_WORDS) for word in words)
