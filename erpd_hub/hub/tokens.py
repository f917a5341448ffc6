"""Which token goes to which Hub: from the environment, and never one endpoint's to another."""

import os
import re
from urllib.parse import urlsplit

from erpd_hub.errors import ConfigError

TOKEN = "ERPD_HUB_TOKEN"


def token_variable(url: str) -> str:
    """The environment variable that holds the token of one endpoint: ERPD_HUB_TOKEN_ and its host and port."""
    return f"{TOKEN}_" + re.sub(r"[^A-Z0-9]+", "_", urlsplit(url).netloc.rpartition("@")[2].upper()).strip("_")


def check_tokens(*endpoints: str) -> None:
    """Refuse to hand one endpoint's token to another.

    Raises:
        ConfigError: several of them would get ERPD_HUB_TOKEN.
    """
    given = os.environ.get(TOKEN)
    same = [
        url
        for url in {end.rstrip("/") for end in endpoints}
        if given and url != "local" and endpoint_token(url) == given
    ]
    if len(same) > 1:
        names = " and ".join(sorted(map(token_variable, same)))
        raise ConfigError(f"{TOKEN}: expected a token for each of two Hubs, got one for both; set {names}")


def token_advice(url: str) -> str:
    """What to do about an endpoint that does not know who asks."""
    own, token = token_variable(url), endpoint_token(url)
    if token:
        return f"check the token in {own if os.environ.get(own) else TOKEN}"
    return f"set {own} to a token of it" + (", or `hf auth login`" if token is None else "")


def endpoint_token(url: str) -> str | bool | None:
    """An endpoint's own token. Else the user's own goes to the Hub it is for, ERPD_HUB_TOKEN or none to any other."""
    if own := os.environ.get(token_variable(url)):
        return own
    if url in ("https://huggingface.co", os.environ.get("HF_ENDPOINT", "").rstrip("/")):
        return None  # the client finds it
    return os.environ.get(TOKEN) or False
