"""What a run publishes besides its artifacts: cards of repositories that hold many, and leaderboard rows.

Leaderboard rows are computed from the samples of the details artifacts; nothing can be typed in.
"""

from collections.abc import Iterable

from erpd_hub import config as c
from erpd_hub.artifacts import CARD, LINEAGE, LineageRecord
from erpd_hub.hub.client import Hub, RepoType
from erpd_hub.model_cards import render_leaderboard, render_repo_card
from erpd_hub.plan import Plan
from erpd_hub.runner import Finished
from erpd_hub.samples import read_rows
from erpd_hub.summary import Checkpoint, checkpoints


def publish_repository_cards(hub: Hub, finished: Iterable[Finished]) -> None:
    """Write the card of every repository in which this run made artifacts in folders."""
    made = {(f.record.repo_type, f.record.repo_id) for f in finished if f.node.folder and not f.reused}
    for repo_type, repo_id in sorted(made):
        records = [record.model_dump(mode="json", by_alias=True) for record in folder_records(hub, repo_type, repo_id)]
        hub.push_files(repo_type, repo_id, {CARD: render_repo_card(records).encode()}, message="card")


def folder_records(hub: Hub, repo_type: RepoType, repo_id: str) -> list[LineageRecord]:
    """The records of all artifacts in the folders of a repository, as main has them."""
    head = hub.resolve(repo_type, repo_id)
    assert head is not None, "an artifact was pushed there"
    suffix = "/" + LINEAGE
    tree = hub.tree(repo_type, repo_id, head)
    folders = [name.removesuffix(suffix) for name in tree if name.endswith(suffix)]
    found = [hub.lineage(repo_type, repo_id, head, folder) for folder in sorted(folders)]
    return [record for record in found if record is not None]


def publish_leaderboard(hub: Hub, plan: Plan, finished: list[Finished]) -> str | None:
    """Put this run's rows, recomputed from its details, into the namespace's leaderboard; returns its repository."""
    rows = checkpoints(plan, finished)
    if not rows:
        return None
    repo_id = f"{plan.recipe.namespace}/erpd-leaderboard"
    path = f"data/{plan.recipe.run}.parquet"
    head = hub.resolve("dataset", repo_id)
    if head is None or path not in hub.tree("dataset", repo_id, head) or any(not item.reused for item in finished):
        files = {path: _leaderboard_file(hub, plan, rows, finished), CARD: render_leaderboard(repo_id).encode()}
        hub.push_files("dataset", repo_id, files, message=f"rows of {plan.recipe.run}")
    return repo_id


def _leaderboard_file(hub: Hub, plan: Plan, rows: list[Checkpoint], finished: list[Finished]) -> bytes:
    from erpd_hub.evaluation.leaderboard import DetailsRecord, leaderboard_bytes, leaderboard_rows

    details = [item for item in finished if isinstance(item.node.config, c.EvaluateConfig)]
    records = [
        DetailsRecord(
            run=plan.recipe.run,
            role=row.role,
            checkpoint=row.ref,
            checkpoint_repo=row.repo,
            checkpoint_revision=row.revision,
            step=row.step,
            benchmark=row.benchmark,
            version=item.record.metrics["benchmark_version"],
            details_repo=item.record.repo_id,
            details_folder=item.record.folder,
            details_revision=item.revision,
            fingerprint=item.record.fingerprint,
            samples=read_rows(hub.pull("dataset", item.record.repo_id, item.revision, item.record.folder)),
        )
        for row, item in zip(rows, details, strict=True)
    ]
    probes = {
        (row.repo, row.revision): {"kl_checkpoint_to_base": row.kl_to_base, "entropy": row.entropy} for row in rows
    }
    return leaderboard_bytes(leaderboard_rows(records, probes))
