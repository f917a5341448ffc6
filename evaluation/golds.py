"""Gold answers as datasets have them, brought to one form. Pure.

Only what stands around an answer goes, and what is read alike by everybody: delimiters (`$..$`, `\\(..\\)`,
`\\boxed{}`), the type of the column (an int64 70, a float 70.0), thousands separators and leading zeros of an integer,
the degree sign of a number of degrees. Of a worked solution the marked answer stays: what follows the last `####`, or
the one box in it. Everything else is the grader's to understand.
"""

import re

from erpd_hub.evaluation.answers import is_prose, last_boxed

_WRAPPERS = (
    re.compile(r"\$\$([^$]*)\$\$"),
    re.compile(r"\$([^$]*)\$"),
    re.compile(r"\\\(((?:(?!\\[()]).)*)\\\)", re.DOTALL),
    re.compile(r"\\\[((?:(?!\\[\[\]]).)*)\\\]", re.DOTALL),
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(.*)\}", re.DOTALL)
_DEGREES = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree|°)")
_SEPARATED = re.compile(r"[+-]?\d{1,3}(?:(?:,|\{,\}|\\,|\\!,|,\\!)\d{3})+")
_INTEGER = re.compile(r"([+-]?)(\d+)")
_ANY_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_MAX_PROSE = 200  # characters; the longest answer in words of the shipped benchmarks has fewer than 150


def normalise_gold(answer: object) -> str:
    """The gold of a row; empty where there is none."""
    text = _marked(_as_text(answer)).strip()
    while (bare := _unwrapped(text)) != text:
        text = bare
    if match := _DEGREES.fullmatch(text):
        text = match[1]
    if _SEPARATED.fullmatch(text):
        text = re.sub(r"[^\d+-]", "", text)
    if text.isascii() and (match := _INTEGER.fullmatch(text)):
        digits = match[2].lstrip("0") or "0"
        text = f"-{digits}" if match[1] == "-" and digits != "0" else digits
    return text


def is_worked_solution(gold: str) -> bool:
    """Whether a gold is sentences to read, not an answer to compare."""
    return is_prose(gold) and (len(gold) > _MAX_PROSE or "\n" in gold.strip())


def _marked(text: str) -> str:
    """The answer that a worked solution marks; any other text as it is."""
    _, mark, answer = text.rpartition("####")  # GSM8K's mark
    if mark and "\n" not in answer.strip():  # else it is a heading
        return answer
    boxes = _ANY_BOX.findall(text)
    if len(boxes) == 1 and (content := last_boxed(text)) is not None:
        before, _, after = text.rpartition(f"{{{content}}}")
        if is_prose(before + " " + after):
            return content
    return text


def _as_text(answer: object) -> str:
    """A column's value as text: of a float without a fraction the integer, of a list of one its element."""
    if isinstance(answer, list) and len(answer) == 1:
        return _as_text(answer[0])
    if isinstance(answer, float) and answer.is_integer():
        return str(int(answer))
    return "" if answer is None or answer != answer else str(answer)


def _unwrapped(text: str) -> str:
    for wrapper in _WRAPPERS:
        if match := wrapper.fullmatch(text):
            return match[1].strip()
    if (match := _BOX.fullmatch(text)) and _balanced(match[1]):
        return match[1].strip()
    return text


def _balanced(text: str) -> bool:
    """Whether no brace closes one that was opened outside: `3} and \\boxed{4` is not the content of one box."""
    depth = 0
    for brace in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return depth == 0
