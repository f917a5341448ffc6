"""Whether an output is the expected one, as LiveCodeBench decides it. Both are compared as text and numbers only."""

import json
from decimal import Decimal, InvalidOperation
from typing import Any

_SLACK = 4
"""A returned value may be written this many times as long as the expected one, plus 64 KiB, before it is not read."""


def same_output(expected: str, got: str) -> bool:
    """Line by line without surrounding space: equal text, or equal decimal numbers."""
    expected, got = expected.strip(), got.strip()
    if expected == got:
        return True
    if expected.count("\n") != got.count("\n"):
        return False
    return all(
        _same_line(one.strip(), other.strip()) for one, other in zip(expected.split("\n"), got.split("\n"), strict=True)
    )


def same_value(expected: str, got: str) -> bool:
    """Of two JSON values, where tuples are lists already; False for what is no single value.

    Raises:
        ValueError: the expected one is no JSON.
    """
    if len(got) > _SLACK * len(expected) + (64 << 10):
        return False
    wanted: Any = json.loads(expected)
    try:
        return bool(json.loads(got) == wanted)
    except (ValueError, RecursionError):
        return False


def _same_line(expected: str, got: str) -> bool:
    if expected == got:
        return True
    tokens = expected.split()
    others = got.split(None, len(tokens))  # a longer line keeps its rest in one piece, which is no number
    if len(tokens) != len(others):
        return False
    try:
        return [Decimal(token) for token in tokens] == [Decimal(token) for token in others]
    except InvalidOperation:
        return False
