"""The rows of a JSON Lines file of anyone's answers: `{output, gold}`, and maybe `finish_reason` and `thinking`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from erpd_hub.evaluation.golds import normalise_gold
from erpd_hub.evaluation.grading import Response
from erpd_hub.samples import FinishReason

_MAX_LINE = 64 << 20  # bytes
_CUT_OFF = ("length", "max_tokens", "max_length", "max_new_tokens")
_FAILED = ("error", "abort", "aborted", "failed")


@dataclass(frozen=True)
class AnswerRow:
    """A line of the input: what it holds, or why it is no row."""

    data: dict[str, Any]
    response: Response | None
    problem: str | None


def read_rows(lines: IO[bytes], text_key: str, gold_key: str, *, thinking: bool) -> Iterator[AnswerRow]:
    """Every line as a row, or with what is wrong with it.

    Args:
        thinking: Whether the prompts opened a think block; a row's own `thinking` goes first.
    """
    number = 0
    while line := lines.readline(_MAX_LINE):
        number += 1
        size = len(line)
        while not line.endswith(b"\n") and (rest := lines.readline(_MAX_LINE)):  # the rest of a line that is too long
            size, line = size + len(rest), rest
        if size > _MAX_LINE:
            yield _malformed(number, f"expected at most {_MAX_LINE} bytes, got {size}")
        elif line.strip():
            yield _row(number, line, text_key, gold_key, thinking)
        else:
            yield _malformed(number, "expected a JSON object, got an empty line")


def _row(number: int, line: bytes, text_key: str, gold_key: str, thinking: bool) -> AnswerRow:
    try:
        data = json.loads(line, parse_int=bounded_integer)
    except (ValueError, RecursionError):
        return _malformed(number, "expected a JSON object, got what is no JSON")
    if not isinstance(data, dict):
        return _malformed(number, f"expected a JSON object, got {type(data).__name__}")
    for key, option in ((text_key, "--text-key"), (gold_key, "--gold-key")):
        if key not in data:
            there = ", ".join(repr(name)[:40] for name in list(data)[:5]) or "none"
            return _malformed(number, f"expected the key {key!r}, got {there}; {option} names another", data)
    text, gold = data[text_key], _gold(data[gold_key])
    if gold is None:
        return _malformed(number, f"{gold_key}: expected text or a number, got {type(data[gold_key]).__name__}", data)
    if not isinstance(text, str | int | float | None) or isinstance(text, bool):
        return _malformed(number, f"{text_key}: expected text, got {type(text).__name__}", data)
    said = data.get("thinking")  # another harness may keep the thoughts there: then it is text
    opened = said if isinstance(said, bool) else thinking
    response = Response(gold, "" if text is None else str(text), _finish_reason(data.get("finish_reason")), opened)
    return AnswerRow(data, response, None)


def bounded_integer(digits: str) -> int | str:
    """An integer; digits of one that Python would refuse to print again stay text."""
    return int(digits) if len(digits) < 4000 else digits


def _gold(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        return None
    return normalise_gold(value)


def _finish_reason(value: Any) -> FinishReason:
    if value in _CUT_OFF:
        return "length"
    return "error" if value in _FAILED else "stop"


def _malformed(number: int, problem: str, data: dict[str, Any] | None = None) -> AnswerRow:
    return AnswerRow(data if data is not None else {"line": number}, None, f"line {number}: {problem}")
