"""What a run publishes besides its artifacts: cards of repositories that hold many, and leaderboard rows.

Leaderboard rows are computed from the samples of the details artifacts; nothing can be typed in.
"""

from collections.abc import Iterable

from erpd_hub import config as c
from erpd_hub.artifacts import CARD, LINEAGE, LineageRecord
from erpd_hub.hub.client import Hub, RepoType
from erpd_hub.plan import Plan
from erpd_hub.runner import Finished
from erpd_hub.summary import role_of


def publish_repository_cards(hub: Hub, finished: Iterable[Finished]) -> None:
    """Write the card of every repository in which this run made artifacts in folders."""
    from erpd_hub.model_cards import render_repo_card

    made = {(f.record.repo_type, f.record.repo_id) for f in finished if f.node.folder and not f.reused}
    for repo_type, repo_id in sorted(made):
        records = [record.model_dump(mode="json", by_alias=True) for record in folder_records(hub, repo_type, repo_id)]
        hub.push_files(repo_type, repo_id, {CARD: render_repo_card(records).encode()}, message="card")


def folder_records(hub: Hub, repo_type: RepoType, repo_id: str) -> list[LineageRecord]:
    """The records of all artifacts in the folders of a repository, as main has them."""
    head = hub.resolve(repo_type, repo_id)
    assert head is not None, "an artifact was pushed there"
    folders = [name.removesuffix("/" + LINEAGE) for name in hub.tree(repo_type, repo_id, head) if name.endswith("/" + LINEAGE)]  # fmt: skip
    found = [hub.lineage(repo_type, repo_id, head, folder) for folder in sorted(folders)]
    return [record for record in found if record is not None]


def publish_leaderboard(hub: Hub, plan: Plan, finished: list[Finished]) -> str | None:
    """Put this run's rows, recomputed from its details, into the namespace's leaderboard; returns its repository."""
    details = [item for item in finished if isinstance(item.node.config, c.EvaluateConfig)]
    repo_id = f"{plan.recipe.namespace}/erpd-leaderboard"
    if not details:
        return None
    from erpd_hub.evaluation.leaderboard import leaderboard_bytes
    from erpd_hub.model_cards import render_leaderboard

    rows = [_row(hub, item, finished) for item in details]
    content = leaderboard_bytes(rows)
    files = {f"data/{plan.recipe.run}.parquet": content, CARD: render_leaderboard(repo_id).encode()}
    if hub.resolve("dataset", repo_id) is None or any(not item.reused for item in finished):
        hub.push_files("dataset", repo_id, files, message=f"rows of {plan.recipe.run}")
    return repo_id
