"""JSON from clients and from files of theirs: bounded, and nothing in it that could not be sent on."""

import json
import math

from erpd_hub.hub.server.errors import bad_request, too_large

MAX_VALUES = 300_000
"""In the JSON of a request: each empty list takes three bytes there and sixty in memory."""

Json = dict[str, object]


def count_values(body: bytes) -> int:
    """How many values a JSON text has at most, from its punctuation."""
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def parse_json_object(body: bytes, most_values: int = MAX_VALUES) -> Json:
    if len(body) > most_values and count_values(body) > most_values:
        raise too_large(f"The JSON has more than {most_values} values")
    try:
        value = json.loads(body.decode(), parse_constant=_refused, parse_float=_finite) if body.strip() else {}
        if b"\\u" in body:  # an escaped half of a character could be stored or sent nowhere
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise bad_request("The body is not JSON") from error
    if not isinstance(value, dict):
        raise bad_request("The body is not a JSON object")
    return value


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refused(text)
