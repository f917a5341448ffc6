"""Where things live on this machine: `ERPD_HOME`, by default a folder of the user's cache."""

import hashlib
import os
from pathlib import Path


def home() -> Path:
    if configured := os.environ.get("ERPD_HOME"):
        return Path(configured).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "erpd-hub"


def hub_folder() -> Path:
    """Root of the embedded Hub."""
    return home() / "hub"


def work_folder(key: str) -> Path:
    """Where one artifact is made; survives a kill, goes away when the artifact is on the Hub."""
    return home() / "work" / hashlib.sha256(key.encode()).hexdigest()[:16]


def cache_folder(endpoint_identity: str) -> Path:
    """Downloads, apart for each endpoint: the Hub clients' cache keys have no endpoint in them."""
    return home() / "cache" / hashlib.sha256(endpoint_identity.encode()).hexdigest()[:16]


def run_folder(run: str) -> Path:
    """Summary and picture of a run."""
    return home() / "runs" / run
