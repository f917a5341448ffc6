"""The Gradio Space, deployable as its files stand.

The files run as top-level scripts on a Space and import nothing of erpd-hub; this module is what the package knows of
them: which files a Space consists of, how to put them on a Hub, and how to run them here.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import as_file, files
from importlib.util import find_spec
from typing import TYPE_CHECKING

from erpd_hub.errors import ConfigError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MODULES = ("address", "app", "charts", "compare", "data", "drawing", "dynamics", "efficiency", "families",
           "leaderboard", "lineage", "markup", "paired", "places", "questions", "reading", "reported", "runs",
           "samples", "scores", "shards", "signals", "spread", "tokens")  # fmt: skip
FILES = ("README.md", "requirements.txt", "style.css", "paper.json", *(f"{name}.py" for name in MODULES))
"""What a Space consists of; `__init__.py` stays here."""

REQUIRED = ("gradio", "plotly", "latex2mathml", "tokenizers")


def push(api: "HfApi", repo_id: str, *, private: bool = True) -> str:
    """Put the Space on the Hub in one commit and return the commit's sha. An existing Space keeps its visibility.

    The Space reads the leaderboard of its own namespace; a private one needs a secret `HF_TOKEN` on the Space.
    """
    from huggingface_hub import CommitOperationAdd

    api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
    folder = files("erpd_hub.spaces")
    operations = [CommitOperationAdd(name, (folder / name).read_bytes()) for name in FILES]
    commit = api.create_commit(repo_id, operations, commit_message="erpd-hub Space", repo_type="space")
    return commit.oid


def serve(settings: Mapping[str, str], *, host: str, port: int) -> int:
    """Run the Space here until it is interrupted, with these environment variables; returns 0 then, else its exit code.

    Raises:
        ConfigError: a package of the `space` extra is not installed, or the port is taken.
    """
    if missing := [name for name in REQUIRED if find_spec(name) is None]:
        raise ConfigError(f"space: {', '.join(missing)} not installed; pip install 'erpd-hub[space]'")
    _refuse_taken(host, port)
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SERVER_NAME": host,
                   "GRADIO_SERVER_PORT": str(port), **settings}  # fmt: skip
    print(f"http://{f'[{host}]' if ':' in host else host}:{port} in some seconds, until it is interrupted", flush=True)
    with as_file(files("erpd_hub.spaces")) as folder:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=environment)
        asked = []

        def stop(number: int, _: object) -> None:
            asked.append(number)
            process.terminate()  # or it would be left behind

        earlier = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = process.wait()
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
        return 0 if asked else code


def _refuse_taken(host: str, port: int) -> None:
    """Gradio would take another port without a word, and an old address would show another run's page."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ConfigError(
            f"space: expected a free port of {host}, got {port} ({error.strerror}); choose another --port"
        ) from None
