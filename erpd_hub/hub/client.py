"""The Hub's client side: resolve, pull, push, tag, all through an unmodified `HfApi`.

A finished artifact carries the tag `fp-{16 hex}`; what lacks it is unfinished. One push is one commit.
"""

import glob
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from erpd_hub.artifacts import (
    CARD,
    LINEAGE,
    FileRecord,
    LineageRecord,
    check_payload,
    hash_file,
    is_inside,
    read_lineage,
)
from erpd_hub.errors import ArtifactError, HubError
from erpd_hub.home import cache_folder
from erpd_hub.hub.local import EmbeddedHub
from erpd_hub.hub.retry import NotOnHub, with_retries
from erpd_hub.hub.writing import belongs, commit_files, set_tag

if TYPE_CHECKING:
    from huggingface_hub import HfApi

RepoType = Literal["model", "dataset"]
T = TypeVar("T")


@dataclass
class Hub:
    """One endpoint."""

    api: "HfApi"
    identity: str
    """What distinguishes its cache: the URL, or `local:` and the root (the embedded Hub's port changes)."""
    private: bool = True
    upstream: "Hub | None" = None
    embedded: EmbeddedHub | None = None
    patient: bool = True
    """Tries again when it cannot be reached; a plan needs no Hub and does not wait for one."""
    _gone: HubError | None = None
    _pulled: dict[tuple[str, ...], Path] = field(default_factory=dict)
    _tags: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    # ---------------------------------------------------------------------------------------- reading

    def resolve(self, repo_type: RepoType, repo_id: str, revision: str | None = None) -> str | None:
        """The 40-hex commit of a revision (default: main); None when there is no such repository or revision."""
        try:
            info = self.ask(lambda: self.api.repo_info(repo_id, repo_type=repo_type, revision=revision))
        except NotOnHub:
            return None
        return str(info.sha)

    def tags(self, repo_type: RepoType, repo_id: str) -> dict[str, str]:
        """Tag to commit sha; empty for a repository that does not exist. Remembered until the next push."""
        key = (repo_type, repo_id)
        if key not in self._tags:
            try:
                refs = self.ask(lambda: self.api.list_repo_refs(repo_id, repo_type=repo_type))
                self._tags[key] = {tag.name: tag.target_commit for tag in refs.tags}
            except NotOnHub:
                self._tags[key] = {}
        return self._tags[key]

    def forget(self, repo_type: RepoType, repo_id: str) -> None:
        """Ask for the repository's tags anew next time."""
        self._tags.pop((repo_type, repo_id), None)

    def lineage(self, repo_type: RepoType, repo_id: str, revision: str, folder: str = "") -> LineageRecord | None:
        """The record of an artifact at a commit; None for a repository that is not an artifact."""
        path = self.file(repo_type, repo_id, revision, str(PurePosixPath(folder) / LINEAGE))
        return read_lineage(path, where=f"{repo_id}@{revision[:10]}/{folder}".rstrip("/")) if path else None

    def file(self, repo_type: RepoType, repo_id: str, revision: str, name: str) -> Path | None:
        """Download one file at a commit; None when the commit has no such file."""

        def download() -> str:
            return self.api.hf_hub_download(
                repo_id, name, repo_type=repo_type, revision=revision, cache_dir=self._cache
            )

        try:
            return Path(self.ask(download))
        except NotOnHub:
            return None

    def pull(
        self, repo_type: RepoType, repo_id: str, revision: str, folder: str = "", *, only: Sequence[str] = ()
    ) -> Path:
        """Download an artifact (or any repository, or `only` these files of one) at a commit; returns its folder.
        Cached by commit."""
        key = (repo_type, repo_id, revision, "\n".join((folder, *only)) if only else folder)
        if key not in self._pulled:
            patterns = [f"{glob.escape(folder)}/**"] if folder else [*map(glob.escape, only)] or None
            path = self.ask(
                lambda: self.api.snapshot_download(
                    repo_id, repo_type=repo_type, revision=revision, allow_patterns=patterns, cache_dir=self._cache
                )
            )
            self._pulled[key] = Path(path) / folder
        return self._pulled[key]

    def pull_artifact(self, record: LineageRecord, repo_id: str, revision: str, folder: str) -> Path:
        """Download an artifact of ours and compare every byte with its record, once.

        Raises:
            ArtifactError: a file is missing or altered.
        """
        fresh = (record.repo_type, repo_id, revision, folder) not in self._pulled
        path = self.pull(record.repo_type, repo_id, revision, folder)
        if fresh and (problems := check_payload(path, record)):
            raise ArtifactError(f"{repo_id}@{revision[:10]}: altered: {'; '.join(problems[:3])}")
        return path

    @contextmanager
    def fresh_download(
        self, repo_type: RepoType, repo_id: str, revision: str, folder: str = "", *, only: Sequence[str] = ()
    ) -> Iterator[Path]:
        """Download past every cache into a folder that goes away.

        Raises:
            ArtifactError: `folder` is none of the repository.
        """
        if folder and not is_inside(folder):
            raise ArtifactError(f"{repo_id}: expected a folder of it, got {folder!r}")
        with tempfile.TemporaryDirectory(prefix="erpd-verify-") as temporary:
            patterns = [f"{glob.escape(folder)}/**", CARD] if folder else [*map(glob.escape, only)] or None
            self.ask(
                # A cache of its own: the client would take a file from the user's that has it at this commit.
                lambda: self.api.snapshot_download(
                    repo_id,
                    repo_type=repo_type,
                    revision=revision,
                    allow_patterns=patterns,
                    local_dir=temporary,
                    cache_dir=Path(temporary) / ".cache",
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

        return {item.path: item for item in self.ask(listing) if isinstance(item, RepoFile)}

    def listed_files(
        self, repo_type: RepoType, repo_id: str, revision: str, *, only: Sequence[str] = ()
    ) -> dict[str, FileRecord]:
        """Hash and size of every file at a commit, or of `only` these; of large ones the Hub says them, only small ones
        are downloaded."""
        found = {}
        for name, entry in self.tree(repo_type, repo_id, revision).items():
            if name.split("/")[0] in (".cache", ".git") or (only and name not in only):
                continue
            if entry.lfs is not None:
                found[name] = FileRecord(sha256=entry.lfs.sha256, size=entry.lfs.size)
            elif (path := self.file(repo_type, repo_id, revision, name)) is not None:
                found[name] = hash_file(path)
        return found

    # ---------------------------------------------------------------------------------------- writing

    def push(
        self,
        folder: Path,
        record: LineageRecord,
        *,
        tags: Sequence[str],
        message: str,
        private: bool | None = None,
        branch: str | None = None,
    ) -> str:
        """Push a finished artifact folder as one commit and tag it; returns the commit sha."""
        names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        files = {str(PurePosixPath(record.folder) / name): folder / name for name in names}
        return self.push_tree(
            record.repo_type, record.repo_id, files, replaces=lambda name: belongs(name, record.folder), tags=tags,
            message=message, private=private, branch=branch,
        )  # fmt: skip

    def push_tree(
        self,
        repo_type: RepoType,
        repo_id: str,
        files: Mapping[str, Path],
        *,
        replaces: Callable[[str], bool],
        tags: Sequence[str],
        message: str,
        private: bool | None = None,
        branch: str | None = None,
    ) -> str:
        """Make main hold these files, and of those that it `replaces` no other, in one commit, and tag that.

        Calling it again after a kill is safe: what is there already is not sent again, and the tags come last.

        Args:
            private: Of a repository that is made; default: as this Hub's others.
            branch: What holds them instead of main; made from main if there is none.
        """
        private = self.private if private is None else private
        self.ask(lambda: self.api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True))
        sha = self.ask(
            lambda: commit_files(self, repo_type, repo_id, files, replaces=replaces, message=message, branch=branch)
        )
        for tag in tags:
            self.tag(repo_type, repo_id, tag, sha)
        return sha

    def tag(self, repo_type: RepoType, repo_id: str, tag: str, sha: str) -> None:
        """Let a tag name a commit, whatever it named before."""
        self.ask(lambda: set_tag(self, repo_type, repo_id, tag, sha))
        self.forget(repo_type, repo_id)

    # ---------------------------------------------------------------------------------------- faults

    @property
    def _cache(self) -> Path:
        return cache_folder(self.identity)

    def ask(self, request: Callable[[], T]) -> T:
        """Carry out a request of `api` with this endpoint's retries and errors."""
        if self.patient:
            return with_retries(request, self.identity, revive=self._revive)
        if self._gone is not None:
            raise self._gone
        try:
            return with_retries(request, self.identity, revive=self._revive, back_off=())
        except NotOnHub:
            raise
        except HubError as error:
            self._gone = error
            raise

    def _revive(self) -> None:
        """Start the embedded Hub again if it has gone away."""
        if self.embedded is not None:
            self.api.endpoint = self.embedded.ensure()
