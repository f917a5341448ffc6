"""The HTTP sessions of `huggingface_hub`, given an end: by itself it waits without limit for an endpoint that accepts a
connection and then says nothing.
"""

import os
from functools import cache
from typing import TYPE_CHECKING

from erpd_hub.errors import ConfigError

if TYPE_CHECKING:
    import httpx

VARIABLE = "ERPD_HUB_TIMEOUT"
SILENCE_S = 120.0
"""Seconds without a byte from the endpoint or room for one to it. Long, as it may be hashing gigabytes meanwhile."""
CONNECT_S = 20.0


def longest_silence() -> float:
    """Seconds, as ERPD_HUB_TIMEOUT says.

    Raises:
        ConfigError: it is no number of seconds.
    """
    text = os.environ.get(VARIABLE, str(SILENCE_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{VARIABLE}: expected seconds above 0, got {text!r}; unset it for {SILENCE_S:.0f}")
    return seconds


@cache
def bound_silence() -> None:
    """Let every request that `huggingface_hub` makes from this process end, also those it sends with no timeout."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    longest = longest_silence()
    limits = {"connect": min(CONNECT_S, longest), "read": longest, "write": longest, "pool": longest}

    def bound(request: "httpx.Request") -> None:
        asked = request.extensions.get("timeout", {})
        shorter = {name: min(seconds, limits[name]) for name, seconds in asked.items() if seconds is not None}
        request.extensions["timeout"] = limits | shorter

    def create() -> "httpx.Client":
        client = default_client_factory()
        client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], bound]}
        return client

    set_client_factory(create)
