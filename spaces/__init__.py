"""The Gradio Space: leaderboard and checkpoints side by side, deployable as its files stand.

`app.py` and `data.py` run as top-level scripts on a Space and import nothing of erpd-hub; this module is what the
package knows of them: which files a Space consists of, and how to put them on a Hub.
"""

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FILES = ("README.md", "app.py", "data.py", "requirements.txt")
"""What a Space consists of; `__init__.py` stays here."""


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
