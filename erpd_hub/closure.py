"""What a copy of an artifact has to bring along: everything its lineage names, parents first.

The records alone are read for it, so that what is missing, or would collide on the other side, is known before the
first byte is copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from erpd_hub.artifacts import InputRecord, LineageRecord
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.hub.client import Hub
from erpd_hub.lineage import Place, input_place


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
        ArtifactError: something that a record names is not there.
        ConfigError: two of them have the same name, and would become one repository.
    """
    found: dict[tuple[Place, tuple[str, ...]], Part] = {}
    _add(hub, place, None, found)
    names: dict[tuple[str, str], str] = {}
    for part in found.values():
        known = names.setdefault((part.place.repo_type, part.name), part.place.repo_id)
        if known != part.place.repo_id:
            raise ConfigError(f"{part.name}: {known} and {part.place.repo_id} would become one; rename one of them")
    return list(found.values())


def _add(hub: Hub, place: Place, item: InputRecord | None, found: dict[tuple[Place, tuple[str, ...]], Part]) -> Part:
    files, digest = (item.files, item.digest) if item is not None else ((), "")
    if (place, files) in found:
        return found[place, files]
    _check_folder(place)
    foreign = item is not None and item.kind == "external"
    record = None if foreign else hub.lineage(place.repo_type, place.repo_id, place.revision, place.folder)
    if record is None and (not foreign or hub.resolve(place.repo_type, place.repo_id, place.revision) is None):
        raise ArtifactError(f"{place}: named by a lineage record, but not on {hub.identity}; nothing was copied")
    above = {index: _add(source, at, one, found) for index, one, source, at in _inputs(hub, record)}
    part = found[place, files] = Part(hub, place, record, files, record.digest if record else digest, above)
    return part


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
