"""Commits that several writers make to the same files: each is made on the state that it was computed from.

A commit names the one it builds on. Where another has come in between, the Hub refuses, and the change is computed
again on the new state; so nobody's change is lost, whoever is first.
"""

import random
import time
from collections.abc import Callable, Mapping

from erpd_hub.errors import HubError
from erpd_hub.hub.client import Hub, RepoType

FIRST_WAIT, LONGEST_WAIT = 0.05, 3.0
"""Seconds between tries: doubled each time up to the longest, and drawn between half and all of it."""
TRIES = 60
"""With the longest wait some two minutes: one of a hundred writers gets its turn."""
_MOVED = 412

Merge = Callable[[str | None], Mapping[str, bytes | None]]
"""From the commit that main is at (None: no repository yet) to the files as they should be; None removes a file."""


def commit_merged(hub: Hub, repo_type: RepoType, repo_id: str, merge: Merge, *, message: str) -> str | None:
    """Bring files of a repository to what `merge` says of its newest state; None where it is so already.

    Raises:
        HubError: others were quicker at every try.
    """
    for attempt in range(TRIES):
        head = hub.resolve(repo_type, repo_id)
        changes = _changes(hub, repo_type, repo_id, head, merge(head))
        if not changes:
            return None
        if head is None:
            hub.ask(lambda: hub.api.create_repo(repo_id, repo_type=repo_type, private=hub.private, exist_ok=True))
            continue  # others may have written to it since
        if (sha := _commit(hub, repo_type, repo_id, changes, message, head)) is not None:
            hub.forget(repo_type, repo_id)
            return sha
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
        time.sleep(random.uniform(longest / 2, longest))
    raise HubError(f"{repo_id}: main moved on at each of {TRIES} tries; the same command goes on from here")


def _changes(
    hub: Hub, repo_type: RepoType, repo_id: str, head: str | None, files: Mapping[str, bytes | None]
) -> dict[str, bytes | None]:
    """The files that are not at `head` as they should be."""

    def there(name: str) -> bytes | None:
        path = hub.file(repo_type, repo_id, head, name) if head else None
        return path.read_bytes() if path else None

    return {name: content for name, content in files.items() if there(name) != content}


def _commit(
    hub: Hub, repo_type: RepoType, repo_id: str, changes: Mapping[str, bytes | None], message: str, parent: str
) -> str | None:
    """One commit on `parent`; None where main is not there any more."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import HfHubHTTPError

    def create() -> str | None:
        operations = [
            CommitOperationDelete(name) if content is None else CommitOperationAdd(name, content)
            for name, content in changes.items()
        ]
        try:
            commit = hub.api.create_commit(
                repo_id, operations=operations, commit_message=message, repo_type=repo_type, parent_commit=parent
            )
        except HfHubHTTPError as error:
            if error.response is not None and error.response.status_code == _MOVED:
                return None
            raise
        return str(commit.oid)

    return hub.ask(create)
