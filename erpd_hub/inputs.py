"""Inputs of a stage, pinned to what they contain: a digest, and the commit they are read at.

Artifacts of ours resolve to the commit of their finished tag, never to main. Models and datasets of others resolve to
a commit sha; local paths to the digest of their bytes, and the path itself is never recorded.
"""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from erpd_hub.artifacts import (
    CARD,
    LINEAGE,
    InputRecord,
    LineageRecord,
    digest_files,
    fingerprint_tag,
    foreign_files,
    hash_file,
)
from erpd_hub.checkpoint_role import weights_of
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.home import cache_folder, work_folder
from erpd_hub.hub.client import Hub, RepoType
from erpd_hub.nodes import Edge
from erpd_hub.references import EndpointRef, PathRef, RepoRef

ENDPOINT = "endpoint"
"""Kind of an input that is a model behind an endpoint: only its name is known."""
_ADAPTER = "adapter_config.json"
ADAPTED = ("config.json", "generation_config.json")
"""What is said of an adapter's architecture is its base's."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResolvedInput:
    """An input pinned to what it contains; `fetch` brings it to a folder (or file) when a stage needs it."""

    record: InputRecord
    license: str | None
    fetch: Callable[[], Path]
    origin: LineageRecord | None = None
    """Its own record, for an artifact of ours."""

    @property
    def is_benchmark(self) -> bool:
        return self.record.role.startswith("benchmark:")


def pinned(
    role: str, record: LineageRecord, sha: str, hub: Hub, *, repo_id: str, folder: str = "", upstream: bool = False
) -> ResolvedInput:
    """An artifact of ours at a commit of `repo_id`, which need not be where its record says it was made."""
    item = InputRecord(
        role=role,
        kind=record.kind,
        digest=record.digest,
        repo_type=record.repo_type,
        repo_id=repo_id,
        folder=folder,
        revision=sha,
        upstream=upstream,
    )
    return ResolvedInput(item, record.license, lambda: fetch_artifact(record, sha, hub, repo_id, folder), record)


def fetch_artifact(record: LineageRecord, sha: str, hub: Hub, repo_id: str, folder: str = "") -> Path:
    """Bring an artifact of ours to a folder: an adapter comes with what it adapts, linked as `base/` beside it.

    Raises:
        ArtifactError: a file is missing or altered, or the adapter's base is not on the endpoint.
    """
    path = hub.pull_artifact(record, repo_id, sha, folder)
    if not (path / _ADAPTER).is_file():
        return path
    composed = cache_folder(hub.identity) / "composed" / sha
    if not composed.is_dir():
        base = _fetch_base(record, hub)
        composed.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=composed.parent, prefix=".partial-"))
        for file in path.iterdir():
            (partial / file.name).symlink_to(file)
        (partial / "base").symlink_to(base, target_is_directory=True)
        for name in ADAPTED:
            if (base / name).is_file() and not (partial / name).exists():
                (partial / name).symlink_to(base / name)
        try:
            partial.rename(composed)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    return composed


def _fetch_base(record: LineageRecord, hub: Hub) -> Path:
    """What an adapter was trained on; a published step of a teacher is on what the teacher is on."""
    item = weights_of(record)
    assert item is not None, "an adapter is trained on something"
    source = hub.upstream if item.upstream and hub.upstream else hub
    assert item.repo_type and item.repo_id and item.revision, "a checkpoint is an artifact or a Hub model"
    above = source.lineage(item.repo_type, item.repo_id, item.revision, item.folder)
    if above is None:
        return source.pull(item.repo_type, item.repo_id, item.revision)
    folder = fetch_artifact(above, item.revision, source, item.repo_id, item.folder)
    return (folder / "base").resolve() if item.role != "init" else folder


def finished_commit(hub: Hub, record: LineageRecord, repo_id: str) -> str:
    """The commit of the finished tag of the artifact that main holds.

    Raises:
        ArtifactError: there is no such tag: some of it was pushed, and then its run was interrupted.
    """
    sha = hub.tags(record.repo_type, repo_id).get(fingerprint_tag(record.fingerprint))
    if sha is None:
        raise ArtifactError(f"{repo_id}: unfinished, its run was interrupted; run it again, or name a @revision")
    return sha


class OutsideInputs:
    """Resolves references to what is not made in this run; each once."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._known: dict[tuple[str, RepoRef | PathRef | EndpointRef, tuple[str, ...]], ResolvedInput] = {}

    def resolve(self, place: str, edge: Edge) -> ResolvedInput | None:
        """The input, or None for an optional one that the endpoint does not have.

        Raises:
            ArtifactError: there is no such file or repository, or it is not an artifact where one is needed.
            ConfigError: it is an artifact of another kind.
        """
        assert not isinstance(edge.source, str), "steps of the run are resolved by the runner"
        key = (edge.role, edge.source, edge.files)
        if key not in self._known:
            where = f"{place}.{edge.role}"
            try:
                if isinstance(edge.source, EndpointRef):
                    self._known[key] = _from_endpoint(edge.role, edge.source)
                elif isinstance(edge.source, PathRef):
                    self._known[key] = _from_path(where, edge.role, edge.source)
                else:
                    self._known[key] = self._from_repository(where, edge, edge.source)
            except ArtifactError as error:
                if not edge.optional:
                    raise
                logger.info("%s", error)
                return None
        return self._known[key]

    def _from_repository(self, where: str, edge: Edge, reference: RepoRef) -> ResolvedInput:
        repo_type: RepoType = "model" if set(edge.kinds) <= {"checkpoint", "critic", "external"} else "dataset"
        hub, sha = self._locate(where, reference, repo_type)
        foreign_allowed = bool({"external", "dataset", "checkpoint"} & set(edge.kinds))
        record = hub.lineage(repo_type, reference.repo_id, sha)
        if record is not None:
            if record.kind not in edge.kinds and not {"external", "dataset"} & set(edge.kinds):
                raise ConfigError(f"{where}: expected {edge.kinds[0]}, got {reference}, which is {record.kind}")
            return pinned(edge.role, record, sha, hub, repo_id=reference.repo_id, upstream=hub is not self.hub)
        if not foreign_allowed:
            raise ArtifactError(f"{where}: {reference}: expected a {edge.kinds[0]} artifact; it has no {LINEAGE}")
        return self._foreign(edge, hub, repo_type, reference.repo_id, sha)

    def _locate(self, where: str, reference: RepoRef, repo_type: RepoType) -> tuple[Hub, str]:
        """The endpoint, or else its upstream, that has the repository, and the commit to read."""
        for hub in (self.hub, self.hub.upstream):
            if hub is None:
                continue
            sha = hub.resolve(repo_type, reference.repo_id, reference.revision)
            if sha is None:
                continue
            record = hub.lineage(repo_type, reference.repo_id, sha) if reference.revision is None else None
            return hub, sha if record is None else finished_commit(hub, record, reference.repo_id)
        raise ArtifactError(f"{where}: {reference}: no such {repo_type} on {self.hub.identity}")

    def _foreign(self, edge: Edge, hub: Hub, repo_type: RepoType, repo_id: str, sha: str) -> ResolvedInput:
        """Anybody's model or dataset: its digest is that of the files at this commit, as the Hub lists them.

        Nothing large is downloaded before a stage asks for it, and then its bytes are compared with the listing.

        Raises:
            ArtifactError: a file of the edge is not there.
        """
        role, wanted = edge.role, edge.files
        found = hub.listed_files(repo_type, repo_id, sha, only=wanted)
        if missing := set(wanted) - set(found):
            raise ArtifactError(f"{role}: {repo_id}: expected a file {min(missing)}, got none at {sha[:10]}")
        listed = digest_files(found)

        def fetch() -> Path:
            folder = hub.pull(repo_type, repo_id, sha, only=wanted)
            there = foreign_files(folder) if not wanted else {name: hash_file(folder / name) for name in wanted}
            if digest_files(there) != listed:
                raise ArtifactError(f"{repo_id}@{sha[:10]}: its files are not those the Hub lists; pull it afresh")
            return folder

        item = InputRecord(
            role=role,
            kind="external",
            digest=listed,
            repo_type=repo_type,
            repo_id=repo_id,
            revision=sha,
            upstream=hub is not self.hub,
            files=wanted,
        )
        card = hub.file(repo_type, repo_id, sha, CARD)
        return ResolvedInput(item, _card_license(card.parent) if card else None, fetch)


def _from_endpoint(role: str, reference: EndpointRef) -> ResolvedInput:
    """A model behind an endpoint: its digest is that of its name, which pins nothing. There are no files of it."""
    digest = hashlib.sha256(str(reference).encode()).hexdigest()

    def fetch() -> Path:
        folder = work_folder(str(reference)).with_suffix(".endpoint")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    return ResolvedInput(InputRecord(role=role, kind=ENDPOINT, digest=digest), None, fetch)


def _from_path(where: str, role: str, reference: PathRef) -> ResolvedInput:
    path = Path(reference.path).expanduser()
    if not path.exists():
        raise ArtifactError(f"{where}: {reference.path}: no such file or folder")
    files = foreign_files(path) if path.is_dir() else {path.name: hash_file(path)}
    if not files:
        raise ArtifactError(f"{where}: {reference.path}: expected files in it, got an empty folder")
    return ResolvedInput(InputRecord(role=role, kind="external", digest=digest_files(files)), None, lambda: path)


def _card_license(folder: Path) -> str | None:
    """The licence in a repository's card, where it has one."""
    from huggingface_hub import RepoCard

    card = folder / CARD
    value = RepoCard(card.read_text(), ignore_metadata_errors=True).data.get("license") if card.exists() else None
    names = value if isinstance(value, list) else [value] if value else []
    return " AND ".join(map(str, names)) or None
