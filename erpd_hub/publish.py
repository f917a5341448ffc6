"""What a run publishes besides its artifacts: cards of repositories that hold many, and leaderboard rows.

Leaderboard rows are computed from the samples of the details artifacts; nothing can be typed in.
"""

from collections.abc import Iterable
from typing import Any

from erpd_hub.artifacts import CARD, LINEAGE, LineageRecord
from erpd_hub.evaluation.leaderboard import DetailsRecord, leaderboard_bytes, leaderboard_rows
from erpd_hub.hub.client import Hub, RepoType
from erpd_hub.model_cards import render_leaderboard, render_repo_card
from erpd_hub.plan import Plan
from erpd_hub.runner import Finished
from erpd_hub.samples import read_rows
from erpd_hub.summary import Checkpoint, checkpoints, evaluations


def publish_repository_cards(hub: Hub, finished: Iterable[Finished]) -> None:
    """Bring the card of every repository with artifacts in folders up to date."""
    for repo_type, repo_id in sorted({(f.record.repo_type, f.record.repo_id) for f in finished if f.node.folder}):
        records = [record.model_dump(mode="json", by_alias=True) for record in folder_records(hub, repo_type, repo_id)]
        _push_if_new(hub, repo_type, repo_id, {CARD: render_repo_card(records).encode()}, "card")


def folder_records(hub: Hub, repo_type: RepoType, repo_id: str) -> list[LineageRecord]:
    """The records of all artifacts in the folders of a repository, as main has them."""
    head = hub.resolve(repo_type, repo_id)
    assert head is not None, "an artifact was pushed there"
    suffix = "/" + LINEAGE
    folders = [name.removesuffix(suffix) for name in hub.tree(repo_type, repo_id, head) if name.endswith(suffix)]
    found = [hub.lineage(repo_type, repo_id, head, folder) for folder in sorted(folders)]
    return [record for record in found if record is not None]


def publish_leaderboard(hub: Hub, plan: Plan, finished: list[Finished]) -> str | None:
    """Put this run's rows, computed from its samples, into the namespace's leaderboard; returns its repository.

    Rows of checkpoints that this run did not measure stay; a kill before this is made good by the next run.
    """
    rows = checkpoints(plan, finished)
    if not rows:
        return None
    repo_id = f"{plan.recipe.namespace}/erpd-leaderboard"
    path = f"data/{plan.recipe.run}.parquet"
    details = evaluations(finished)
    there = {row["details_folder"]: row for row in _published_rows(hub, repo_id, path)}
    pairs = list(zip(rows, details, strict=True))
    for row, item in pairs:
        known = there.get(item.record.folder, {})
        row = row._replace(selection=row.selection or bool(known.get("selection")))  # another recipe may have decided
        if (known.get("details_revision"), known.get("selection")) != (item.revision, row.selection):
            there[item.record.folder] = _leaderboard_row(hub, plan, row, item)
    content = leaderboard_bytes([there[folder] for folder in sorted(there)])
    _push_if_new(hub, "dataset", repo_id, {path: content, CARD: render_leaderboard(repo_id).encode()}, plan.recipe.run)
    return repo_id


def _leaderboard_row(hub: Hub, plan: Plan, row: Checkpoint, item: Finished) -> dict[str, Any]:
    record = DetailsRecord(
        run=plan.recipe.run,
        role=row.role,
        checkpoint=row.ref,
        checkpoint_repo=row.repo,
        checkpoint_revision=row.revision,
        step=row.step,
        benchmark=row.benchmark,
        version=item.record.metrics["benchmark_version"],
        selection=row.selection,
        details_repo=item.record.repo_id,
        details_folder=item.record.folder,
        details_revision=item.revision,
        fingerprint=item.record.fingerprint,
        samples=read_rows(hub.pull("dataset", item.record.repo_id, item.revision, item.record.folder)),
    )
    probe = {"kl_checkpoint_to_base": row.kl_to_base, "entropy": row.entropy}
    return leaderboard_rows([record], {(row.repo, row.revision): probe})[0]


def _published_rows(hub: Hub, repo_id: str, path: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    head = hub.resolve("dataset", repo_id)
    found = hub.file("dataset", repo_id, head, path) if head else None
    return pq.read_table(found).to_pylist() if found else []


def _push_if_new(hub: Hub, repo_type: RepoType, repo_id: str, files: dict[str, bytes], message: str) -> None:
    """Commit the files unless main has just these."""
    head = hub.resolve(repo_type, repo_id)
    there = {name: hub.file(repo_type, repo_id, head, name) for name in files} if head else {}
    if not all((path := there.get(name)) and path.read_bytes() == content for name, content in files.items()):
        hub.push_files(repo_type, repo_id, files, message=message)
