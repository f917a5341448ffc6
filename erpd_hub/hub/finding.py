"""Artifacts on an endpoint: by fingerprint, by saved step, by name."""

from erpd_hub.artifacts import LineageRecord, fingerprint_tag, step_tag
from erpd_hub.errors import ArtifactError
from erpd_hub.hub.client import Hub, RepoType


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
    sha = hub.tags(final.repo_type, final.repo_id).get(step_tag(final.fingerprint, step))
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
