"""The Hub's client side: resolve, pull, push, tag, all through an unmodified `HfApi`.

A finished artifact carries the tag `fp-{16 hex}`; what lacks it is unfinished. One push is one commit.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from erpd_hub.artifacts import CARD, LINEAGE, LineageRecord, fingerprint_tag, read_lineage
from erpd_hub.errors import ArtifactError, ConfigError, HubError
from erpd_hub.home import cache_folder, hub_folder
from erpd_hub.hub.local import EmbeddedHub, clear_proxy_for_loopback

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)

RepoType = Literal["model", "dataset"]
T = TypeVar("T")
BACK_OFF = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between tries of a request that may succeed later."""


@dataclass
class Hub:
    """One endpoint."""

    api: "HfApi"
    identity: str
    """What distinguishes its cache: the URL, or `local:` and the root (the embedded Hub's port changes)."""
    private: bool = True
    upstream: "Hub | None" = None
    embedded: EmbeddedHub | None = None
    _pulled: dict[tuple[str, ...], Path] = field(default_factory=dict)
    _tags: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    # ---------------------------------------------------------------------------------------- reading

    def resolve(self, repo_type: RepoType, repo_id: str, revision: str | None = None) -> str | None:
        """The 40-hex commit of a revision (default: main); None when there is no such repository or revision."""
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            info = self._try(lambda: self.api.repo_info(repo_id, repo_type=repo_type, revision=revision))
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None
        return str(info.sha)

    def tags(self, repo_type: RepoType, repo_id: str) -> dict[str, str]:
        """Tag to commit sha; empty for a repository that does not exist. Remembered until the next push."""
        from huggingface_hub.errors import RepositoryNotFoundError

        key = (repo_type, repo_id)
        if key not in self._tags:
            try:
                refs = self._try(lambda: self.api.list_repo_refs(repo_id, repo_type=repo_type))
                self._tags[key] = {tag.name: tag.target_commit for tag in refs.tags}
            except RepositoryNotFoundError:
                self._tags[key] = {}
        return self._tags[key]

    def forget(self, repo_type: RepoType, repo_id: str) -> None:
        """Ask for the repository's tags anew next time."""
        self._tags.pop((repo_type, repo_id), None)

    def lineage(self, repo_type: RepoType, repo_id: str, revision: str, folder: str = "") -> LineageRecord | None:
        """The record of an artifact at a commit; None for a repository that is not an artifact."""
        from huggingface_hub.errors import EntryNotFoundError

        name = str(PurePosixPath(folder) / LINEAGE)
        try:
            path = self._try(
                lambda: self.api.hf_hub_download(
                    repo_id, name, repo_type=repo_type, revision=revision, cache_dir=self._cache
                )
            )
        except EntryNotFoundError:
            return None
        return read_lineage(Path(path))

    def pull(self, repo_type: RepoType, repo_id: str, revision: str, folder: str = "") -> Path:
        """Download an artifact (or any repository) at a commit; returns its folder. Cached by commit."""
        key = (repo_type, repo_id, revision, folder)
        if key not in self._pulled:
            patterns = [f"{folder}/**"] if folder else None
            path = self._try(
                lambda: self.api.snapshot_download(
                    repo_id, repo_type=repo_type, revision=revision, allow_patterns=patterns, cache_dir=self._cache
                )
            )
            self._pulled[key] = Path(path) / folder
        return self._pulled[key]

    @contextmanager
    def fresh_download(self, repo_type: RepoType, repo_id: str, revision: str, folder: str = "") -> Iterator[Path]:
        """Download past every cache into a folder that goes away."""
        import tempfile

        with tempfile.TemporaryDirectory(prefix="erpd-verify-") as temporary:
            patterns = [f"{folder}/**", CARD] if folder else None
            self._try(
                lambda: self.api.snapshot_download(
                    repo_id, repo_type=repo_type, revision=revision, allow_patterns=patterns, local_dir=temporary
                )
            )
            shutil.rmtree(Path(temporary) / ".cache", ignore_errors=True)
            yield Path(temporary)

    def tree(self, repo_type: RepoType, repo_id: str, revision: str) -> dict[str, Any]:
        """Path to the Hub's own entry (`blob_id`, `size`, `lfs`) of every file at a commit."""
        from huggingface_hub.hf_api import RepoFile

        def listing() -> list[Any]:
            tree = self.api.list_repo_tree(repo_id, repo_type=repo_type, revision=revision, recursive=True)
            return list(tree)

        return {item.path: item for item in self._try(listing) if isinstance(item, RepoFile)}

    # ---------------------------------------------------------------------------------------- writing

    def push(self, folder: Path, record: LineageRecord, *, tags: Sequence[str], message: str) -> str:
        """Push a finished artifact folder as one commit and tag it; returns the commit sha.

        Calling it again after a kill is safe: what is there already is not sent again, and the tags come last.
        """
        repo_type, repo_id = record.repo_type, record.repo_id
        self._try(lambda: self.api.create_repo(repo_id, repo_type=repo_type, private=self.private, exist_ok=True))
        sha = self._try(lambda: self._commit(folder, record, message))
        for tag in tags:
            self._try(lambda name=tag: self._tag(repo_type, repo_id, name, sha))  # type: ignore[misc]
        self.forget(repo_type, repo_id)
        return sha

    def push_files(self, repo_type: RepoType, repo_id: str, files: dict[str, bytes], *, message: str) -> str:
        """Commit a few small files (a repository card, leaderboard rows), leaving everything else as it is."""
        from huggingface_hub import CommitOperationAdd

        self._try(lambda: self.api.create_repo(repo_id, repo_type=repo_type, private=self.private, exist_ok=True))
        additions = [CommitOperationAdd(name, content) for name, content in files.items()]
        commit = self._try(
            lambda: self.api.create_commit(repo_id, operations=additions, commit_message=message, repo_type=repo_type)
        )
        return str(commit.oid)

    def _commit(self, folder: Path, record: LineageRecord, message: str) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        repo_type, repo_id, prefix = record.repo_type, record.repo_id, record.folder
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        inside = {str(PurePosixPath(prefix) / name): path for name, path in files.items()}
        head = self.resolve(repo_type, repo_id)
        assert head is not None, "the repository was created just before"
        present = self.tree(repo_type, repo_id, head)
        stale = [n for n in present if _belongs(n, prefix) and n not in inside]
        operations: list[Any] = [CommitOperationAdd(name, path) for name, path in sorted(inside.items())]
        operations += [CommitOperationDelete(name) for name in stale]
        commit = self.api.create_commit(
            repo_id, operations=operations, commit_message=message, repo_type=repo_type, parent_commit=head
        )
        return str(commit.oid)

    def _tag(self, repo_type: RepoType, repo_id: str, tag: str, sha: str) -> None:
        refs = self.api.list_repo_refs(repo_id, repo_type=repo_type)
        present = {item.name: item.target_commit for item in refs.tags}
        if present.get(tag) == sha:
            return
        if tag in present:
            self.api.delete_tag(repo_id, tag=tag, repo_type=repo_type)
        self.api.create_tag(repo_id, tag=tag, revision=sha, repo_type=repo_type)

    # ---------------------------------------------------------------------------------------- faults

    @property
    def _cache(self) -> Path:
        return cache_folder(self.identity)

    def _try(self, request: Callable[[], T]) -> T:
        """Carry out a request, again where that can help (429, 5xx, 412, connection).

        Raises:
            HubError: the endpoint refused for good or stayed away.
        """
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        for pause in (*BACK_OFF, None):
            try:
                return request()
            except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError):
                raise
            except Exception as error:
                status = getattr(getattr(error, "response", None), "status_code", None)
                transient = status in (408, 412, 429) or (status is not None and status >= 500)
                if not transient and (isinstance(error, HfHubHTTPError) or not _is_connection(error)):
                    if status is None:
                        raise
                    raise HubError(
                        f"{self.identity}: {status}: {str(error).splitlines()[0]}; {_remedy(status)}"
                    ) from error
                if pause is None:
                    raise HubError(
                        f"{self.identity}: not reachable after {len(BACK_OFF) + 1} tries: {error}"
                    ) from error
                logger.warning("%s: %s; trying again in %.1f s", self.identity, _first_line(error), pause)
                time.sleep(pause)
                self._revive()
        raise AssertionError("unreachable")

    def _revive(self) -> None:
        """Start the embedded Hub again if it has gone away."""
        if self.embedded is not None:
            self.api.endpoint = self.embedded.ensure()


def connect(endpoint: str, *, upstream: str | None = None, private: bool = True) -> Hub:
    """A client of an endpoint: `local` starts or joins the embedded Hub.

    Raises:
        ConfigError: the endpoint is neither `local` nor a URL.
    """
    if endpoint == "local":
        return _connect_embedded(private)
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"hub.endpoint: expected local or a URL, got {endpoint!r}")
    from huggingface_hub import HfApi

    above = connect(upstream) if upstream else None
    return Hub(HfApi(endpoint=endpoint.rstrip("/")), endpoint.rstrip("/"), private, above)


def _connect_embedded(private: bool) -> Hub:
    clear_proxy_for_loopback()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi, constants

    # The embedded Hub takes LFS uploads, not yet Xet writes, and the client does not negotiate.
    constants.HF_HUB_DISABLE_XET = True
    embedded = EmbeddedHub(hub_folder())
    embedded.__enter__()
    return Hub(HfApi(endpoint=embedded.ensure(), token=False), f"local:{hub_folder()}", private, embedded=embedded)


def find_finished(
    hub: Hub, repo_type: RepoType, repo_id: str, folder: str, fingerprint: str
) -> tuple[str, LineageRecord] | None:
    """The commit and record of the finished artifact with this fingerprint, if the repository has it."""
    sha = hub.tags(repo_type, repo_id).get(fingerprint_tag(fingerprint))
    if sha is None:
        return None
    record = hub.lineage(repo_type, repo_id, sha, folder)
    return (sha, record) if record is not None and record.fingerprint == fingerprint else None


def find_saved_step(hub: Hub, final: LineageRecord, step: int) -> tuple[str, LineageRecord] | None:
    """The commit and record of a saved step of a finished training stage."""
    sha = hub.tags(final.repo_type, final.repo_id).get(f"step-{step}")
    if sha is None:
        return None
    record = hub.lineage(final.repo_type, final.repo_id, sha)
    return (sha, record) if record is not None and record.fingerprint == final.fingerprint else None


def find_artifact(
    hub: Hub, repo_id: str, revision: str | None, kinds: tuple[RepoType, ...] = ("model", "dataset")
) -> tuple[RepoType, str]:
    """Repository type and commit of `namespace/name[@revision]`.

    Raises:
        ArtifactError: the endpoint has no such repository or revision.
    """
    for repo_type in kinds:
        sha = hub.resolve(repo_type, repo_id, revision)
        if sha is not None:
            return repo_type, sha
    at = f" at {revision}" if revision else ""
    raise ArtifactError(f"{repo_id}: no such {' or '.join(kinds)} repository{at} on {hub.identity}")


def _belongs(path: str, folder: str) -> bool:
    """Whether a file of the repository is part of the artifact in `folder`; results and attributes are nobody's."""
    if path == ".gitattributes" or path.startswith(".eval_results/"):
        return False
    return path.startswith(folder + "/") if folder else True


def _is_connection(error: Exception) -> bool:
    """huggingface_hub 1.x raises httpx's errors, 2.x those of httpx2; neither is imported here for it."""
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"TransportError", "ConnectionError", "TimeoutException", "RemoteProtocolError"})


def _remedy(status: int) -> str:
    return {401: "check HF_TOKEN", 403: "the token has no right to write here"}.get(status, "nothing was lost")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
