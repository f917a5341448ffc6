"""The commit and the tags that a push consists of. Each may be carried out again."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erpd_hub.hub.client import Hub, RepoType


def commit_files(
    hub: "Hub",
    repo_type: "RepoType",
    repo_id: str,
    files: Mapping[str, Path],
    *,
    replaces: Callable[[str], bool],
    message: str,
    branch: str | None,
) -> str:
    """Make a branch (default: main) hold these files and no other that is replaced; its commit, new or of before."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    if branch is not None:
        hub.api.create_branch(repo_id, branch=branch, repo_type=repo_type, exist_ok=True)
    head = hub.resolve(repo_type, repo_id, branch)
    assert head is not None, "the repository and the branch were made just before"
    present = hub.tree(repo_type, repo_id, head)
    stale = [name for name in present if replaces(name) and name not in files]
    operations: list[Any] = [CommitOperationAdd(name, path) for name, path in sorted(files.items())]
    operations += [CommitOperationDelete(name) for name in stale]
    with warnings.catch_warnings():  # a critic's values lie beside its weights
        warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
        commit = hub.api.create_commit(
            repo_id, operations=operations, commit_message=message, repo_type=repo_type, revision=branch,
            parent_commit=head,
        )  # fmt: skip
    return str(commit.oid)


def set_tag(hub: "Hub", repo_type: "RepoType", repo_id: str, tag: str, sha: str) -> None:
    """Make a tag name this commit, whatever it named before."""
    refs = hub.api.list_repo_refs(repo_id, repo_type=repo_type)
    present = {item.name: item.target_commit for item in refs.tags}
    if present.get(tag) == sha:
        return
    if tag in present:
        hub.api.delete_tag(repo_id, tag=tag, repo_type=repo_type)
    hub.api.create_tag(repo_id, tag=tag, revision=sha, repo_type=repo_type)


def belongs(path: str, folder: str) -> bool:
    """Whether a file of the repository is part of the artifact in `folder`; results and attributes are nobody's."""
    if path == ".gitattributes" or path.startswith(".eval_results/"):
        return False
    return path.startswith(folder + "/") if folder else True
