"""Lineage across artifacts: the graph from an artifact to its roots, and its verification from the Hub alone.

`verify` trusts nothing that is cached here: it downloads every artifact afresh, compares each file with the hash in
`lineage.json` and with the object id in the Hub's own tree (so that the record and the card count too), recomputes
digest and fingerprint, and goes on to the inputs at their recorded commits.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from erpd_hub.artifacts import (
    LINEAGE,
    InputRecord,
    LineageRecord,
    check_payload,
    digest_files,
    foreign_files,
    hash_file,
    is_payload,
    read_lineage,
)
from erpd_hub.errors import ArtifactError, ConfigError, HubError
from erpd_hub.hub.client import Hub, RepoType
from erpd_hub.hub.finding import find_artifact
from erpd_hub.hub.retry import NotOnHub
from erpd_hub.inputs import ENDPOINT, finished_commit
from erpd_hub.plain import plain
from erpd_hub.references import RepoRef, parse_reference

_SAVED_STEP = re.compile(r"step-\d+")


@dataclass(frozen=True)
class Place:
    """Where an artifact is: a repository, a folder in it, a commit."""

    repo_type: RepoType
    repo_id: str
    revision: str
    folder: str = ""

    def __str__(self) -> str:
        return plain(f"{self.repo_id}{'/' + self.folder if self.folder else ''}@{self.revision[:10]}")


@dataclass
class Ancestor:
    """A node of the lineage graph. `record` is None for what is not ours: an imported model, dataset or file."""

    place: Place | None
    digest: str
    record: LineageRecord | None
    inputs: list[tuple[str, "Ancestor"]] = field(default_factory=list)
    kind: str = ""
    """Of an input that is not ours, as its user recorded it."""

    @property
    def label(self) -> str:
        if self.record is None:
            what = "endpoint, which nothing pins" if self.kind == ENDPOINT else "local source"
            return str(self.place) if self.place else f"{what} {self.digest[:12]}"
        at = f" step {self.record.saved_step}" if self.record.saved_step is not None else ""
        origin = self.record.origin
        made = f", copied from {origin.repo_id}@{origin.revision[:10]}" if origin is not None else ""
        place = self.place or plain(f"{self.record.repo_id}/{self.record.folder}".rstrip("/"))  # no commit yet
        return f"{self.record.stage}{at}  {place}{made}"


def locate(hub: Hub, text: str) -> Place:
    """The place of `namespace/name[@revision]` or `namespace/name/folder[@revision]` (for artifacts in folders).

    Raises:
        ConfigError: not such a reference. ArtifactError: nothing there.
    """
    path, _, revision = text.rpartition("@")
    in_folder = path.count("/") > 1 and _SAVED_STEP.fullmatch(revision)
    if not path or "/" in revision or in_folder:  # the @ is a folder's, as in details/teacher@step-8/addition
        path, revision = text, ""
    parts = path.split("/")
    repo_id, folder = "/".join(parts[:2]), "/".join(parts[2:])
    if folder == "" and not isinstance(parse_reference(text), RepoRef):
        raise ConfigError(f"{text}: expected namespace/name[@revision], as cards, tables and the Hub name an artifact")
    repo_type, sha = find_artifact(hub, repo_id, revision or None)
    record = hub.lineage(repo_type, repo_id, sha, folder)
    if record is None:
        folders = sorted(name.removesuffix("/" + LINEAGE) for name in hub.tree(repo_type, repo_id, sha)
                         if name.endswith("/" + LINEAGE))  # fmt: skip
        some = f"{', '.join(folders[:4])}{', ...' if len(folders) > 4 else ''}"
        hint = f"its artifacts are in folders: add one of {some}" if folders else "it is no artifact of erpd-hub"
        raise ArtifactError(f"{text}: no {LINEAGE} there; {hint}")
    if not revision:
        sha = finished_commit(hub, record, repo_id)
    return Place(repo_type, repo_id, sha, folder)


def record_at(hub: Hub, place: Place) -> LineageRecord:
    """The record of an artifact. Raises ArtifactError: none there."""
    record = hub.lineage(place.repo_type, place.repo_id, place.revision, place.folder)
    if record is None:
        raise ArtifactError(f"{place}: no {LINEAGE} there")
    return record


def ancestry(hub: Hub, place: Place) -> Ancestor:
    """The lineage graph of an artifact, by the records alone; shared ancestors are shared objects.

    Raises:
        ArtifactError: a recorded ancestor is not on the endpoint.
    """
    root = Ancestor(place, "", None)
    _grow(hub, [(hub, root)], {place: root})
    return root


def ancestry_of(hub: Hub, records: Sequence[LineageRecord]) -> list[Ancestor]:
    """The graphs of artifacts that need not be on the endpoint yet; they share their common ancestors."""
    roots = [Ancestor(None, record.digest, record) for record in records]
    known: dict[Place, Ancestor] = {}
    _grow(hub, [(hub, root) for root in roots], known)
    return roots


def _grow(hub: Hub, pending: list[tuple[Hub, Ancestor]], known: dict[Place, Ancestor]) -> None:
    """Read what is pending and everything above it; a chain may be longer than Python's stack."""
    while pending:
        source, here = pending.pop()
        if here.place is not None:
            at = here.place
            here.record = source.lineage(at.repo_type, at.repo_id, at.revision, at.folder)
            here.digest = here.record.digest if here.record else ""
        for item in here.record.inputs if here.record else ():
            above = input_place(item)
            if above is None or item.kind == "external":
                here.inputs.append((item.role, Ancestor(above, item.digest, None, kind=item.kind)))
                continue
            if above not in known:
                known[above] = Ancestor(above, "", None)
                pending.append((source.upstream if item.upstream and source.upstream else source, known[above]))
            here.inputs.append((item.role, known[above]))


def input_place(item: InputRecord) -> Place | None:
    if item.repo_type is None or item.repo_id is None or item.revision is None:
        return None
    return Place(item.repo_type, item.repo_id, item.revision, item.folder)


@dataclass(frozen=True)
class Finding:
    """What verification says about one artifact; no problems means every byte is as it was made."""

    place: str
    problems: tuple[str, ...]
    note: str = ""
    missing: bool = False
    """Not on the Hub, or not readable; what it comes from could not be looked at either."""


def verify(hub: Hub, place: Place) -> Iterator[Finding]:
    """Verify an artifact and everything it comes from, each once, roots last."""
    if problems := _main_problems(hub, place):
        yield Finding(f"{place.repo_id}@main", tuple(problems))
    pending: list[tuple[Hub, Place, InputRecord | None]] = [(hub, place, None)]
    seen: set[Place] = set()
    while pending:
        source, here, expected = pending.pop(0)
        if here in seen:
            continue
        seen.add(here)
        record, finding = _verify_one(source, here, expected)
        yield finding
        for item in record.inputs if record else ():
            above = input_place(item)
            if above is None:
                what = "an endpoint: nothing pins what answered" if item.kind == ENDPOINT else "a local source"
                yield Finding(f"{item.role} {item.digest[:12]}", (), f"{what}: its digest is all that is recorded")
            else:
                pending.append((source.upstream if item.upstream and source.upstream else source, above, item))


def _verify_one(hub: Hub, place: Place, expected: InputRecord | None) -> tuple[LineageRecord | None, Finding]:
    """Verify one artifact; also returns its record, to go on from, where it could be read."""
    foreign = expected is not None and expected.kind == "external"
    only = expected.files if expected is not None else ()
    try:
        with hub.fresh_download(place.repo_type, place.repo_id, place.revision, place.folder, only=only) as root:
            problems = tree_problems(hub, place, root, only)
            folder = root / place.folder
            if foreign:
                record = None
                digest = digest_files(foreign_files(folder))
            else:
                record = read_lineage(folder / LINEAGE)
                problems += check_payload(folder, record)
                digest = record.digest
    except NotOnHub:
        gone = "the Hub has no such commit, or the token may not read it; what it comes from cannot be looked at"
        return None, Finding(str(place), (gone,), missing=True)
    except (ArtifactError, HubError, OSError) as error:
        return None, Finding(str(place), (str(error),))
    if expected is not None and digest != expected.digest:
        problems.append(f"digest {digest[:12]}, but its user recorded {expected.digest[:12]}")
    return record, Finding(str(place), tuple(problems), "not ours: only its bytes are checked" if foreign else "")


def _main_problems(hub: Hub, place: Place) -> list[str]:
    """Files that a later commit of main changed in a finished artifact: only card and results may change."""
    commits = [place.revision, str(hub.resolve(place.repo_type, place.repo_id))]
    here, main = (hub.lineage(place.repo_type, place.repo_id, sha, place.folder) for sha in commits)
    if here is None or main is None or (main.fingerprint, main.saved_step) != (here.fingerprint, here.saved_step):
        return []  # main has gone on to another artifact
    before, after = (_payload_ids(hub, place, sha) for sha in commits)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [f"{name}: changed by a later commit of main" for name in changed]


def _payload_ids(hub: Hub, place: Place, sha: str) -> dict[str, str]:
    """Object ids of the artifact's payload at a commit, by path inside its folder."""
    prefix = f"{place.folder}/" if place.folder else ""
    tree = hub.tree(place.repo_type, place.repo_id, sha)
    inside = {name.removeprefix(prefix): entry.blob_id for name, entry in tree.items() if name.startswith(prefix)}
    return {name: blob_id for name, blob_id in inside.items() if is_payload(name)}


def tree_problems(hub: Hub, place: Place, root: Path, only: Sequence[str] = ()) -> list[str]:
    """Files whose bytes are not what the Hub's tree says they are."""
    problems = []
    for name, entry in hub.tree(place.repo_type, place.repo_id, place.revision).items():
        path = root / name
        if only and name not in only:
            continue
        if not path.is_file():
            if place.folder == "" or name.startswith(place.folder + "/"):
                problems.append(f"{name}: in the tree, but not downloaded")
            continue
        content = path.read_bytes() if entry.lfs is None else b""
        actual = hash_file(path).sha256 if entry.lfs is not None else _git_blob_id(content)
        listed = entry.lfs.sha256 if entry.lfs is not None else entry.blob_id
        if actual != listed:
            problems.append(f"{name}: object id {actual[:12]}, the tree lists {listed[:12]}")
    return problems


def _git_blob_id(content: bytes) -> str:
    """The id git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
