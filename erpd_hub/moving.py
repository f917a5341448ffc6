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
    fingerprint_tag,
    hash_file,
    step_tag,
)
from erpd_hub.closure import Part, closure
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.hub.client import Hub, RepoType
from erpd_hub.lineage import Place
from erpd_hub.references import RepoRef, parse_reference

NOT_COPIED = (".gitattributes", LINEAGE, CARD)
"""Files of an artifact's folder that the other side has of its own."""


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
        """What is to be on the other side, parents first.

        Raises:
            ArtifactError: something that a record names is missing. ConfigError: it could not be told apart there.
        """
        if not isinstance(parse_reference(f"{self.namespace}/{place.repo_id.split('/')[-1]}"), RepoRef):
            raise ConfigError(f"--namespace: expected a user or an organisation, got {self.namespace!r}")
        parts = closure(self.source, place)
        if self.target.identity == self.source.identity and place.repo_id.split("/")[0] == self.namespace:
            raise ConfigError(f"{place}: expected another Hub or namespace to copy to, got the same")
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
        key, tags = self._tags(part, part.record)
        present = self.target.tags(record.repo_type, record.repo_id)
        if (sha := present.get(key)) is None:
            self._check_ours(record.repo_type, record.repo_id)
            sha = self._push(part, record, [*tags, key])
            return Place(record.repo_type, record.repo_id, sha, record.folder), "copied"
        found = self.target.lineage(record.repo_type, record.repo_id, sha, record.folder)
        if found is None or (found.fingerprint, found.digest) != (record.fingerprint, record.digest):
            other = f"its {key} is another artifact than {part.place}"
            raise ArtifactError(f"{record.repo_id}: {other}; copy to another namespace")
        for tag in tags:
            if tag not in present:  # named at the source since; one that is here may have moved on
                self.target.tag(record.repo_type, record.repo_id, tag, sha)
        return Place(record.repo_type, record.repo_id, sha, record.folder), "there"

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

    def _tags(self, part: Part, record: LineageRecord) -> tuple[str, list[str]]:
        """The tag that says the artifact is there, which comes last, and the others of its commit."""
        tags = part.hub.tags(part.place.repo_type, part.place.repo_id)
        names = [name for name, sha in tags.items() if sha == part.place.revision]
        finished = fingerprint_tag(record.fingerprint)
        if record.saved_step is not None and finished not in names:
            finished = step_tag(record.fingerprint, record.saved_step)
        return finished, [name for name in names if name != finished]

    def _push(self, part: Part, record: LineageRecord, tags: list[str]) -> str:
        """One commit of the artifact's own files, with the record and the card of its new place."""
        from erpd_hub.model_cards import recipe_of, render

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
                recipe = recipe_of(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else ""
                (staged / CARD).write_text(render(record.model_dump(mode="json", by_alias=True), recipe=recipe))
            private = self._private(part)
            message = f"{record.stage} of {record.run}, copied"
            return self.target.push(staged, record, tags=tags, message=message, private=private)

    def _copy_foreign(self, part: Part) -> tuple[Place, Literal["copied", "there"]]:
        """What is not ours stays where it is if the other side has that very commit; else its files are copied."""
        place = part.place
        if self.target.resolve(place.repo_type, place.repo_id, place.revision) == place.revision:
            return place, "there"
        repo_id, tag = f"{self.namespace}/{part.name}", f"digest-{part.digest[:16]}"
        if sha := self.target.tags(place.repo_type, repo_id).get(tag):
            return Place(place.repo_type, repo_id, sha), "there"
        if (sha := self._head_with(part, repo_id)) is not None:  # a copy that was killed before its tag
            self.target.tag(place.repo_type, repo_id, tag, sha)
            return Place(place.repo_type, repo_id, sha), "there"
        self._check_ours(place.repo_type, repo_id)
        folder = part.hub.pull(place.repo_type, place.repo_id, place.revision, only=part.files)
        names = part.files or tuple(part.hub.tree(place.repo_type, place.repo_id, place.revision))
        if digest_files({name: hash_file(folder / name) for name in names}) != part.digest:
            raise ArtifactError(f"{place}: altered: its files are not those that were read when it was used")
        sha = self.target.push_tree(
            place.repo_type, repo_id, {name: folder / name for name in names}, replaces=lambda _: not part.files,
            tags=[tag], message=f"{place.repo_id}, copied", private=self._private(part),
        )  # fmt: skip
        return Place(place.repo_type, repo_id, sha), "copied"

    def _head_with(self, part: Part, repo_id: str) -> str | None:
        """The newest commit over there, if it holds just what is to be copied."""
        repo_type = part.place.repo_type
        head = self.target.resolve(repo_type, repo_id)
        if head is None:
            return None
        listed = self.target.listed_files(repo_type, repo_id, head, only=part.files)
        return head if digest_files(listed) == part.digest else None

    def _private(self, part: Part) -> bool:
        place = part.place
        if not self.public:
            return True
        return bool(part.hub.ask(lambda: part.hub.api.repo_info(place.repo_id, repo_type=place.repo_type)).private)

    def _check_ours(self, repo_type: RepoType, repo_id: str) -> None:
        """Refuse to write over what is neither empty nor holds artifacts.

        Raises:
            ArtifactError: it is somebody's repository.
        """
        head = self.target.resolve(repo_type, repo_id)
        if head is None or any(name.startswith(("fp-", "digest-")) for name in self.target.tags(repo_type, repo_id)):
            return
        files = self.target.tree(repo_type, repo_id, head).keys()
        if not all(name in NOT_COPIED or name.endswith("/" + LINEAGE) for name in files) and LINEAGE not in files:
            raise ArtifactError(f"{repo_id}: expected none there, or one of artifacts; copy to another namespace")

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
