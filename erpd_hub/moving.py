"""Copying an artifact with its whole lineage from one Hub to another (`hub push`, `hub pull`).

Parents go first, since a record names the commits of its inputs and the other side has commits of its own. What stays
is what an artifact is: payload, digest, fingerprint and tags. What changes is where: `repo_id` and the inputs' commits
are the other side's, with the first place of each kept as `origin`, and the card is rendered anew.

One commit an artifact, tagged last: a copy that was interrupted goes on from there, and a finished one finds
everything in place. Not copied: scores and results of later commits, which are published by whoever measures there.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from erpd_hub.artifacts import (
    CARD,
    LINEAGE,
    InputRecord,
    LineageRecord,
    OriginRecord,
    digest_files,
    hash_file,
)
from erpd_hub.closure import Part, closure
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.hub.client import Hub
from erpd_hub.hub.rights import check_may_write
from erpd_hub.lineage import Place, input_place
from erpd_hub.moving_target import NOT_COPIED, check_target, head_with, is_older, is_private, key_tag, stays, tags_of
from erpd_hub.references import RepoRef, parse_reference


class Copied(NamedTuple):
    """What became of one part."""

    source: Place
    target: Place
    how: Literal["copied", "there"]
    size: int
    """Bytes of its files."""


@dataclass
class Move:
    """One copy. `public` lets what is public at the source be so here too; private repositories stay private."""

    source: Hub
    target: Hub
    namespace: str
    public: bool = False

    def plan(self, place: Place) -> list[Part]:
        """What is to be on the other side, parents first; all that can be refused is refused here.

        Raises:
            ArtifactError: something that a record names is missing, or a repository there is somebody's.
            ConfigError: it could not be told apart there, may not be written, or would become public.
            HubError: the other side does not know who writes.
        """
        if not isinstance(parse_reference(f"{self.namespace}/{place.repo_id.split('/')[-1]}"), RepoRef):
            raise ConfigError(f"--namespace: expected a user or an organisation, got {self.namespace!r}")
        if self.target.identity == self.source.identity and place.repo_id.split("/")[0] == self.namespace:
            raise ConfigError(f"{place}: expected another Hub or namespace to copy to, got the same")
        check_may_write(self.target, self.namespace)
        parts = closure(self.source, place)
        for part in parts:
            check_target(self.target, part, f"{self.namespace}/{part.name}", public=self.public)
        return parts

    def run(self, place: Place) -> Iterator[Copied]:
        """Copy what is missing, parents first.

        Raises:
            HubError: an endpoint refused or went away; the same call goes on from there.
        """
        there: dict[Part, Place] = {}
        parts = self.plan(place)
        for part in parts:
            there[part], how = self._copy(part, there)
            yield Copied(part.place, there[part], how, part.size)
        self._cards(list(there.values()))

    def _copy(self, part: Part, there: dict[Part, Place]) -> tuple[Place, Literal["copied", "there"]]:
        if part.record is None:
            return self._copy_foreign(part)
        record = self._moved(part, part.record, there)
        key = key_tag(part)
        tags = [tag for tag in tags_of(part) if tag != key]
        present = self.target.tags(record.repo_type, record.repo_id)
        if (sha := present.get(key)) is None:
            sha = self._push(part, record, [*tags, key])
            return Place(record.repo_type, record.repo_id, sha, record.folder), "copied"
        found = self.target.lineage(record.repo_type, record.repo_id, sha, record.folder)
        if found is None or _identity(found) != _identity(record):
            other = f"its {key} is another artifact than {part.place}"
            raise ArtifactError(f"{record.repo_id}: {other}; copy to another namespace")
        how: Literal["copied", "there"] = "there"
        if any(self._is_left_behind(found.inputs[index], there[above]) for index, above in part.above.items()):
            moving = [tag for tag, at in present.items() if at == sha and tag != key]
            sha, how = self._push(part, record, [*moving, key]), "copied"
        for tag in tags:
            if tag not in present:  # named at the source since; one that is here may have moved on
                self.target.tag(record.repo_type, record.repo_id, tag, sha)
        return Place(record.repo_type, record.repo_id, sha, record.folder), how

    def _is_left_behind(self, named: InputRecord, place: Place) -> bool:
        """Whether a record over there names a commit of an input that its copy has left: the repository was deleted
        and copied again, its history rewritten, or it was upstream's until now."""
        if input_place(named) == place:
            return False
        if named.upstream or named.repo_id == place.repo_id:
            return True
        assert named.repo_type and named.repo_id, "it has a place"
        return self.target.resolve(named.repo_type, named.repo_id, named.revision) is None

    def _moved(self, part: Part, record: LineageRecord, there: dict[Part, Place]) -> LineageRecord:
        """The record as it is to be on the other side."""
        inputs = tuple(
            self._moved_input(item, there[part.above[index]]) if index in part.above else item
            for index, item in enumerate(record.inputs)
        )
        origin = record.origin or OriginRecord(repo_id=part.place.repo_id, revision=part.place.revision)
        at = {"repo_id": f"{self.namespace}/{part.name}", "folder": part.place.folder}
        return record.model_copy(update={**at, "inputs": inputs, "origin": origin})

    def _moved_input(self, item: InputRecord, place: Place) -> InputRecord:
        assert item.repo_id and item.revision, "it has a place"
        if (item.repo_id, item.revision) == (place.repo_id, place.revision):
            return item.model_copy(update={"upstream": False})
        origin = item.origin or OriginRecord(repo_id=item.repo_id, revision=item.revision)
        at = {"repo_id": place.repo_id, "revision": place.revision, "upstream": False}
        return item.model_copy(update={**at, "origin": origin})

    def _push(self, part: Part, record: LineageRecord, tags: list[str]) -> str:
        """One commit of the artifact's own files, with the record and the card of its new place."""
        from erpd_hub.lineage_views import card_above
        from erpd_hub.model_cards import command_of, render
        from erpd_hub.model_cards.pictures import pictures_in

        assert part.record is not None
        folder = part.hub.pull_artifact(part.record, part.place.repo_id, part.place.revision, part.place.folder)
        with tempfile.TemporaryDirectory(prefix="erpd-move-") as name:
            staged = Path(name)
            for path in _files(folder):
                inside = staged / path
                inside.parent.mkdir(parents=True, exist_ok=True)
                inside.symlink_to((folder / path).resolve())
            (staged / LINEAGE).write_text(record.to_json())
            if not record.folder:
                card = folder / CARD
                command = command_of(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else ""
                said = record.model_dump(mode="json", by_alias=True)
                above = card_above(self.target, [record])
                text = render(said, command=command, above=above, pictures=pictures_in(staged))
                (staged / CARD).write_text(text, encoding="utf-8")
            message = f"{record.stage} of {record.run}, copied"
            branch = f"older-{tags[-1]}" if is_older(self.target, part, record) else None
            return self.target.push(
                staged, record, tags=tags, message=message, private=self._private(part), branch=branch
            )

    def _copy_foreign(self, part: Part) -> tuple[Place, Literal["copied", "there"]]:
        """What is not ours stays where it is if the other side has that very commit; else its files are copied."""
        place = part.place
        if stays(self.target, place):
            return place, "there"
        repo_id, tag = f"{self.namespace}/{part.name}", key_tag(part)
        if sha := self.target.tags(place.repo_type, repo_id).get(tag):
            return Place(place.repo_type, repo_id, sha), "there"
        if (sha := head_with(self.target, part, repo_id)) is not None:  # a copy that was killed before its tag
            self.target.tag(place.repo_type, repo_id, tag, sha)
            return Place(place.repo_type, repo_id, sha), "there"
        folder = part.hub.pull(place.repo_type, place.repo_id, place.revision, only=part.files)
        names = part.files or tuple(part.hub.tree(place.repo_type, place.repo_id, place.revision))
        if digest_files({name: hash_file(folder / name) for name in names}) != part.digest:
            raise ArtifactError(f"{place}: altered: its files are not those that were read when it was used")
        sha = self.target.push_tree(
            place.repo_type, repo_id, {name: folder / name for name in names}, replaces=lambda _: not part.files,
            tags=[tag], message=f"{place.repo_id}, copied", private=self._private(part),
        )  # fmt: skip
        return Place(place.repo_type, repo_id, sha), "copied"

    def _private(self, part: Part) -> bool:
        return not self.public or is_private(part)

    def _cards(self, places: list[Place]) -> None:
        """The cards of repositories with artifacts in folders, each once."""
        from erpd_hub.publish import publish_repository_card

        for repo_type, repo_id in dict.fromkeys((at.repo_type, at.repo_id) for at in places if at.folder):
            publish_repository_card(self.target, repo_type, repo_id)


def _files(folder: Path) -> Iterator[str]:
    """What of an artifact's folder is copied: neither what the other side has of its own nor results of later."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in NOT_COPIED and not name.startswith(".eval_results/"):
            yield name


def _identity(record: LineageRecord) -> tuple[str, str, int]:
    return record.fingerprint, record.digest, len(record.inputs)
