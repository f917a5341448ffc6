"""From what a recipe or an option names as an endpoint to a client of it."""

import os

from erpd_hub.errors import ConfigError
from erpd_hub.home import hub_folder
from erpd_hub.hub.client import Hub
from erpd_hub.hub.local import EmbeddedHub, clear_proxy_for_loopback
from erpd_hub.hub.sessions import bound_silence
from erpd_hub.hub.tokens import endpoint_token


def connect(endpoint: str, *, upstream: str | None = None, private: bool = True) -> Hub:
    """A client of an endpoint: `local` starts or joins the embedded Hub.

    Raises:
        ConfigError: the endpoint is neither `local` nor a URL, or `local` is served with accounts.
    """
    bound_silence()
    above = connect(upstream) if upstream else None
    if endpoint == "local":
        return _connect_embedded(private, above)
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"hub.endpoint: expected local or a URL, got {endpoint!r}")
    from huggingface_hub import HfApi, constants

    url = endpoint.rstrip("/")
    if url != "https://huggingface.co":
        constants.HF_HUB_DISABLE_XET = True  # twice as fast to an embedded Hub, and good for any other
    return Hub(HfApi(endpoint=url, token=endpoint_token(url)), url, private, above)


def _connect_embedded(private: bool, upstream: Hub | None) -> Hub:
    clear_proxy_for_loopback()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi, constants

    # The embedded Hub takes Xet uploads too, at half the speed: chunking and packing save nothing on one machine.
    constants.HF_HUB_DISABLE_XET = True  # also for an upstream, which is only read
    embedded = EmbeddedHub(hub_folder())
    embedded.__enter__()
    return Hub(HfApi(endpoint=embedded.ensure(), token=False), f"local:{hub_folder()}", private, upstream, embedded)
