"""What the other side of a copy has already, and whether it may be written: asked before the first byte."""

from erpd_hub.artifacts import CARD, LINEAGE, LineageRecord, digest_files, fingerprint_tag, step_tag
from erpd_hub.closure import Part
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.hub.client import Hub
from erpd_hub.hub.rights import repository
from erpd_hub.lineage import Place

NOT_COPIED = (".gitattributes", LINEAGE, CARD)
"""Files of an artifact's folder that the other side has of its own."""


def key_tag(part: Part) -> str:
    """The tag that says over there that a part is in place; it is made last."""
    if part.record is None:
        return f"digest-{part.digest[:16]}"
    finished = fingerprint_tag(part.record.fingerprint)
    if part.record.saved_step is not None and finished not in tags_of(part):
        return step_tag(part.record.fingerprint, part.record.saved_step)
    return finished


def tags_of(part: Part) -> list[str]:
    """The tags of its commit at the source."""
    tags = part.hub.tags(part.place.repo_type, part.place.repo_id)
    return [name for name, sha in tags.items() if sha == part.place.revision]


def check_target(target: Hub, part: Part, repo_id: str, *, public: bool) -> None:
    """Refuse to write over what is neither empty nor holds artifacts of the source, and to publish what is private.

    Raises:
        ArtifactError: it is somebody's repository, or main's artifact is.
        ConfigError: it is public, and what is to be copied is not.
    """
    repo_type = part.place.repo_type
    if part.record is None and stays(target, part.place):
        return
    found = repository(target, repo_type, repo_id)
    tags = target.tags(repo_type, repo_id) if found else {}
    if found is None or key_tag(part) in tags:
        return
    if _is_their_own(target, part, repo_id, found.sha):
        told = f"{repo_id}: its main is an artifact that did not come from {part.place.repo_id}"
        raise ArtifactError(f"{told}, and a copy would take its place; copy to another namespace")
    if not (any(name.startswith(("fp-", "digest-")) for name in tags) or _holds_ours(target, part, repo_id, found.sha)):
        raise ArtifactError(f"{repo_id}: expected none there, or one of artifacts; copy to another namespace")
    if not found.private and not public and is_private(part):
        told = f"{repo_id}: public there, and {part.place.repo_id} is not"
        raise ConfigError(f"{told}; with --public it is published, or copy to another namespace")


def _is_their_own(target: Hub, part: Part, repo_id: str, head: str) -> bool:
    """Whether main over there is an artifact, in the same place, that neither is one of the source's repository nor was
    copied from it. Runs of the same name make repositories of the same names."""
    main = target.lineage(part.place.repo_type, repo_id, head, part.place.folder)
    if main is None or part.record is None:
        return main is not None
    known = part.hub.tags(part.place.repo_type, part.place.repo_id)
    if fingerprint_tag(main.fingerprint) in known:
        return False
    if main.saved_step is not None and step_tag(main.fingerprint, main.saved_step) in known:
        return False
    origin = part.record.origin.repo_id if part.record.origin else part.place.repo_id
    return main.origin is None or main.origin.repo_id != origin


def _holds_ours(target: Hub, part: Part, repo_id: str, head: str) -> bool:
    """Whether a repository without tags of ours is empty, or as a kill before they were made leaves it."""
    files = target.tree(part.place.repo_type, repo_id, head).keys()
    if LINEAGE in files or all(name in NOT_COPIED or name.endswith("/" + LINEAGE) for name in files):
        return True
    return part.record is None and head_with(target, part, repo_id) is not None


def is_private(part: Part) -> bool:
    """Whether not everybody may read it at the source."""
    found = repository(part.hub, part.place.repo_type, part.place.repo_id)
    return found is None or bool(found.private or found.gated)


def stays(target: Hub, place: Place) -> bool:
    """Whether the other side has that very commit of somebody else."""
    return target.resolve(place.repo_type, place.repo_id, place.revision) == place.revision


def head_with(target: Hub, part: Part, repo_id: str) -> str | None:
    """The newest commit over there, if it holds just what is to be copied of somebody else's."""
    head = target.resolve(part.place.repo_type, repo_id)
    if head is None:
        return None
    listed = target.listed_files(part.place.repo_type, repo_id, head, only=part.files)
    return head if digest_files(listed) == part.digest else None


def is_older(target: Hub, part: Part, record: LineageRecord) -> bool:
    """Whether main over there holds what the source made later in the place of `record`: it must not go back."""
    place = part.place
    head = target.resolve(place.repo_type, record.repo_id)
    main = target.lineage(place.repo_type, record.repo_id, head, place.folder) if head else None
    if main is None or (main.fingerprint, main.saved_step) == (record.fingerprint, record.saved_step):
        return False
    tags = part.hub.tags(place.repo_type, place.repo_id)
    later = tags.get(fingerprint_tag(main.fingerprint))
    if main.saved_step is not None:
        later = tags.get(step_tag(main.fingerprint, main.saved_step), later)
    commits = part.hub.ask(lambda: part.hub.api.list_repo_commits(place.repo_id, repo_type=place.repo_type))
    history = [commit.commit_id for commit in commits]  # newest first
    if later not in history:
        return False
    return place.revision not in history or history.index(later) < history.index(place.revision)
