"""What of an OpenAI-compatible server's replies is the same for all that is asked of it, and what comes of bad ones.

A reply is foreign text: types and ranges are checked before anything of it is believed, and a terminal is shown little
of it.
"""

import json
from collections.abc import Collection
from typing import Any, NamedTuple

_SHOWN = 300
"""Characters of a server's own words that an error repeats."""


class Setback(Exception):
    """One attempt at one request that came to nothing; another may not."""

    def __init__(self, reason: str, *, unreachable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.unreachable = unreachable
        """The connection failed: the server may be gone."""
        self.retry_after = retry_after
        """Seconds the server asks to be left alone; it is busy, and the request is not at fault."""


class Served(NamedTuple):
    """A model as `/v1/models` lists it."""

    name: str
    vllm: bool
    max_model_len: int | None


def read_json(payload: bytes) -> dict[str, Any]:
    """Raises: Setback: not a JSON object."""
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise Setback(f"expected JSON, got {shown(payload)!r}") from error
    if not isinstance(content, dict):
        raise Setback(f"expected a JSON object, got {shown(payload)!r}")
    return content


def read_models(payload: bytes) -> list[Served]:
    """Raises: Setback: not a list of models."""
    listed = read_json(payload).get("data")
    if not isinstance(listed, list):
        raise Setback(f"expected a list of models, got {shown(payload)!r}")
    return [_served(entry) for entry in listed if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _served(entry: dict[str, Any]) -> Served:
    length = entry.get("max_model_len")
    return Served(entry["id"], entry.get("owned_by") == "vllm", length if is_whole(length, None) else None)


def read_count(content: dict[str, Any], name: str) -> int | None:
    """A number of tokens from a reply's `usage`, where it has one."""
    usage = content.get("usage")
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if is_whole(count, None) else None


def is_whole(value: Any, below: int | None) -> bool:
    return type(value) is int and 0 <= value < (below if below is not None else 2**31)


def storable(text: str) -> str:
    """A server's text without halves of surrogate pairs, which JSON may hold and UTF-8 may not."""
    return text.encode("utf-8", "replace").decode("utf-8")


def shown(text: bytes | str, secrets: Collection[str] = ()) -> str:
    """A server's words made fit for a terminal: short, printable, without our key."""
    words = text[: 8 * _SHOWN].decode(errors="replace") if isinstance(text, bytes) else text[: 8 * _SHOWN]
    for secret in secrets:
        words = words.replace(secret, "***")
    printable = "".join(letter if letter.isprintable() else " " for letter in words).strip()
    return printable if len(printable) <= _SHOWN else f"{printable[:_SHOWN]}..."
