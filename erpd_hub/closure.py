"""What a copy of an artifact has to bring along: everything its lineage names, parents first.

The records alone are read for it, so that what is missing, or would collide on the other side, is known before the
first byte is copied.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from erpd_hub.artifacts import InputRecord, LineageRecord
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.hub.client import Hub
from erpd_hub.lineage import Place, input_place

MAX_PARTS = 10_000
"""Records come from whoever runs the endpoint, who can make up a next one for ever."""
_Key = tuple[Place, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Part:
    """One artifact of the closure, or what somebody else made (`record` is None) as its user recorded it."""

    hub: Hub
    """Where it is read."""
    place: Place
    record: LineageRecord | None
    files: tuple[str, ...] = ()
    """Of what is not ours: the files that were read; empty for all of them."""
    digest: str = ""
    above: dict[int, "Part"] = field(default_factory=dict)
    """What its inputs are, by their index; local sources and unpinned endpoints have no part."""

    @property
    def name(self) -> str:
        return self.place.repo_id.split("/")[-1]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        if self.record is not None:
            return sum(file.size for file in self.record.files.values())
        tree = self.hub.tree(self.place.repo_type, self.place.repo_id, self.place.revision)
        return sum(entry.size for name, entry in tree.items() if not self.files or name in self.files)


def closure(hub: Hub, place: Place) -> list[Part]:
    """An artifact's parts, parents before children, each once.

    Raises:
        ArtifactError: something that a record names is not there, or comes from itself.
        ConfigError: two of them have the same name, and would become one repository.
    """
    done: dict[_Key, Part] = {}  # in the order they are finished
    opened: dict[_Key, _Step] = {}  # the way from `place` down to what is looked at
    pending = [_Step(hub, place)]
    while pending:  # a chain may be longer than Python's stack
        step = pending[-1]
        if step.key in done:
            pending.pop()
        elif step.key in opened:
            pending.pop()
            del opened[step.key]
            above = {index: done[parent.key] for index, parent in step.parents.items()}
            digest = step.record.digest if step.record else step.digest
            done[step.key] = Part(step.hub, step.place, step.record, step.files, digest, above)
        else:
            step.read()
            opened[step.key] = step
            for parent in reversed(step.parents.values()):
                if parent.key in opened:
                    raise ArtifactError(f"{parent.place}: its lineage leads back to it; nothing was copied")
                pending.append(parent)
        if len(done) + len(pending) > MAX_PARTS:
            raise ArtifactError(f"{place}: expected a lineage of at most {MAX_PARTS} artifacts, got more")
    _check_names(done.values())
    return list(done.values())


def _check_names(parts: Iterable[Part]) -> None:
    names: dict[tuple[str, str], str] = {}
    for part in parts:
        known = names.setdefault((part.place.repo_type, part.name), part.place.repo_id)
        if known != part.place.repo_id:
            raise ConfigError(f"{part.name}: {known} and {part.place.repo_id} would become one; rename one of them")


class _Step:
    """What is to become a part once its parents are."""

    def __init__(self, hub: Hub, place: Place, item: InputRecord | None = None) -> None:
        self.hub = hub
        self.place = place
        self.foreign = item is not None and item.kind == "external"
        self.files, self.digest = (item.files, item.digest) if item is not None else ((), "")
        self.key: _Key = (place, self.files)
        self.record: LineageRecord | None = None
        self.parents: dict[int, _Step] = {}

    def read(self) -> None:
        """Its record and what that names.

        Raises:
            ArtifactError: it is not there.
        """
        at, hub = self.place, self.hub
        _check_folder(at)
        self.record = None if self.foreign else hub.lineage(at.repo_type, at.repo_id, at.revision, at.folder)
        if self.record is None and (not self.foreign or hub.resolve(at.repo_type, at.repo_id, at.revision) is None):
            raise ArtifactError(f"{at}: named by a lineage record, but not on {hub.identity}; nothing was copied")
        inputs = _inputs(hub, self.record)
        self.parents = {index: _Step(source, place, item) for index, item, source, place in inputs}


def _inputs(hub: Hub, record: LineageRecord | None) -> Iterator[tuple[int, InputRecord, Hub, Place]]:
    """The inputs that can be copied, with where they are; what was read upstream only if that is at hand."""
    for index, item in enumerate(record.inputs if record else ()):
        at = input_place(item)
        source = hub.upstream if item.upstream else hub
        if at is not None and source is not None:
            yield index, item, source, at


def _check_folder(place: Place) -> None:
    """Records come from whoever runs the endpoint, and a folder of theirs becomes a path here."""
    path = PurePosixPath(place.folder)
    if path.is_absolute() or ".." in path.parts or "\\" in place.folder:
        raise ArtifactError(f"{place.repo_id}: expected a folder of the repository, got {place.folder!r}")
