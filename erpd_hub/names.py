"""Names made of values: `[a-z0-9-]` only, short, readable, and different values have different names."""

import hashlib
import json
import re
from typing import Any

REPO_CHARACTERS = 96
"""Of a repository's name, that the Hub takes."""
_LONGEST = 32
"""Characters of a value in a name."""


def slug(text: str) -> str:
    """What is left of a text in a name: lower case, and one dash for whatever else there is."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def value_name(value: Any) -> str:
    """A value as part of a name: `0-05`, `3e-4`, `minus-2`, `teacher-step-10`; with a hash where the name alone would
    not tell it from others."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return _number_name(value)
    if isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_-]*(@step-\d+)?", value) and len(value) <= _LONGEST:
        return slug(value)
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return f"{slug(text)[:_LONGEST].strip('-')}-{short_hash(text)}".strip("-")


def shortened(name: str, longest: int) -> str:
    """A name that fits: one that is too long ends in a hash of itself."""
    return name if len(name) <= longest else f"{name[: max(8, longest - 7)].strip('-')}-{short_hash(name)}"


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _number_name(value: float) -> str:
    size = abs(value)
    if size and (size < 0.01 or size >= 1e6):
        mantissa, _, exponent = f"{size:e}".partition("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    else:
        text = f"{size:.10g}"
    return ("minus-" if value < 0 else "") + text.replace(".", "-")
