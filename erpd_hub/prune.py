"""Freeing the weights of saved steps that nothing refers to, without touching what lineage rests on.

Lineage names commits, so no history is rewritten: a squash would lose every sha that some record holds. What goes is
(a) the tags of a saved step that no record of the namespace names, and (b) those of its large files that no other
tagged commit of its repository has. The commit itself stays in main's history, without them. Finished artifacts are
kept, also superseded ones. The embedded Hub gives the space back with its next `hub gc`. To not store steps in the
first place, `push_steps: referenced` is the default.
"""

import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from erpd_hub.artifacts import LINEAGE, LineageRecord, read_lineage
from erpd_hub.errors import ArtifactError
from erpd_hub.home import home
from erpd_hub.hub.client import Hub, RepoType
from erpd_hub.hub.finding import find_finished

Commit = tuple[str, str]
"""Repository and sha."""


@dataclass(frozen=True)
class SavedStep:
    """A saved step that nothing refers to."""

    repo_id: str
    sha: str
    tags: tuple[str, ...]
    step: int
    freed: dict[str, int]
    """Large files that only it has: sha256 to bytes."""


@dataclass(frozen=True)
class Leftover:
    """A work directory whose artifact is on the Hub: its run was killed just before it would have gone."""

    folder: Path
    record: LineageRecord
    size: int


def unreferenced_steps(hub: Hub, name: str) -> list[SavedStep]:
    """What `NAMESPACE/RUN` or `NAMESPACE/REPOSITORY` holds that could go; the namespace defaults to `local`.

    Raises:
        ArtifactError: no such run or repository.
    """
    namespace, _, short = name.rpartition("/")
    namespace = namespace or "local"
    models = _repositories(hub, "model", namespace)
    chosen = [repo for repo in models if repo.split("/")[1] == short] or [
        repo for repo in models if repo.split("/")[1].startswith(f"{short}-r")
    ]
    if not chosen:
        raise ArtifactError(f"{name}: expected a run or a model repository of {namespace}, got none of that name")
    used = _referenced(hub, namespace)
    return [step for repo in chosen for step in _steps_of(hub, repo, used)]


def free(hub: Hub, step: SavedStep) -> None:
    """Delete a step's large files, then its tags: a killed call is made good by the next one."""
    if step.freed:
        listed = [
            item for item in hub.ask(lambda: list(hub.api.list_lfs_files(step.repo_id))) if item.oid in step.freed
        ]
        hub.ask(lambda: hub.api.permanently_delete_lfs_files(step.repo_id, listed, rewrite_history=False))
    for tag in step.tags:
        hub.ask(partial(hub.api.delete_tag, step.repo_id, tag=tag))
    hub.forget("model", step.repo_id)


def leftovers(hub: Hub) -> Iterator[Leftover]:
    """Work directories of this machine that are not needed any more; those of unfinished artifacts are."""
    for lineage in sorted((home() / "work").glob(f"*/out/**/{LINEAGE}")):
        folder = home() / "work" / lineage.relative_to(home() / "work").parts[0]
        record = read_lineage(lineage)
        found = find_finished(hub, record.repo_type, record.repo_id, record.folder, record.fingerprint)
        if found and found[1] == record and folder.exists():
            yield Leftover(folder, record, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def remove(item: Leftover) -> None:
    """Remove a work directory, unless a run is at it."""
    lock = item.folder.with_suffix(".lock")
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(item.folder, ignore_errors=True)
        lock.unlink(missing_ok=True)


def _repositories(hub: Hub, repo_type: RepoType, namespace: str) -> list[str]:
    listing = hub.api.list_models if repo_type == "model" else hub.api.list_datasets
    return sorted(item.id for item in hub.ask(lambda: list(listing(author=namespace))))


def _referenced(hub: Hub, namespace: str) -> set[Commit]:
    """Every commit that a record at a tagged commit of the namespace names as an input."""
    used: set[Commit] = set()
    kinds: tuple[RepoType, ...] = ("model", "dataset")
    for repo_type in kinds:
        for repo_id in _repositories(hub, repo_type, namespace):
            for sha in set(hub.tags(repo_type, repo_id).values()):
                for record in _records(hub, repo_type, repo_id, sha):
                    used |= {(item.repo_id, item.revision) for item in record.inputs if item.repo_id and item.revision}
    return used


def _records(hub: Hub, repo_type: RepoType, repo_id: str, sha: str) -> Iterator[LineageRecord]:
    for name in hub.tree(repo_type, repo_id, sha):
        if name.split("/")[-1] == LINEAGE and (path := hub.file(repo_type, repo_id, sha, name)):
            yield read_lineage(path)


def _steps_of(hub: Hub, repo_id: str, used: set[Commit]) -> Iterator[SavedStep]:
    tags = hub.tags("model", repo_id)
    finished = {sha for tag, sha in tags.items() if tag.startswith("fp-") and "-step-" not in tag}
    steps = {sha for tag, sha in tags.items() if tag.startswith("fp-") and "-step-" in tag}
    candidates = sorted(sha for sha in steps - finished if (repo_id, sha) not in used)
    kept = {name for sha in {*tags.values(), hub.resolve("model", repo_id)} - set(candidates) if sha
            for name in _large_files(hub, repo_id, sha)}  # fmt: skip
    for sha in candidates:
        record = hub.lineage("model", repo_id, sha)
        assert record is not None and record.saved_step is not None, "a saved step has a record"
        if not finished or record.config.get("push_steps") == "referenced":
            continue  # it is still in the making, or was pushed because its recipe uses it
        files = {oid: size for oid, size in _large_files(hub, repo_id, sha).items() if oid not in kept}
        named = tuple(sorted(tag for tag, target in tags.items() if target == sha))
        yield SavedStep(repo_id, sha, named, record.saved_step, files)


def _large_files(hub: Hub, repo_id: str, sha: str) -> dict[str, int]:
    return {entry.lfs.sha256: entry.lfs.size for entry in hub.tree("model", repo_id, sha).values() if entry.lfs}
