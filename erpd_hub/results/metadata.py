"""Scores in the repositories of the checkpoints they are of: a later commit on main that touches the card and
`.eval_results/` only, so that the artifact under its tag stays what it is.

Only rows whose details' record says the same go in, and only into the repository whose main holds those very weights.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import yaml

from erpd_hub.artifacts import CARD, LineageRecord
from erpd_hub.finished import Finished
from erpd_hub.hub.client import Hub
from erpd_hub.hub.merging import commit_merged
from erpd_hub.model_cards.results import with_results
from erpd_hub.results.beside import beside
from erpd_hub.results.entries import OURS, Source, eval_files, model_index
from erpd_hub.results.origin import evaluation_of, source_of
from erpd_hub.results.published import published_rows, shown_rows
from erpd_hub.results.rows import Row
from erpd_hub.results.verify import same

_FIGURES = ("avg", "stderr", "k", "n", "coverage", "truncated", "avg_judged", "stderr_judged")
_LARGEST = 2**16
"""Bytes of a dataset's `eval.yaml`; more is none."""


class Shown(NamedTuple):
    """A row in the repository of its checkpoint."""

    row: Row
    source: Source | None
    beside: list[tuple[str, Row]]
    """What other checkpoints are to this one, and their rows."""


def publish_results(hub: Hub, leaderboard: str, finished: Iterable[Finished]) -> list[str]:
    """Bring card and `.eval_results/` of every checkpoint of ours that the run made or measured up to date.

    Returns:
        The repositories that got a commit.
    """
    namespace = leaderboard.split("/")[0]

    by_commit: dict[str | None, list[Row]] = {}

    def rows() -> list[Row]:
        head = hub.resolve("dataset", leaderboard)
        if head not in by_commit:  # hundreds of files, the same for every checkpoint until somebody writes
            by_commit[head] = shown_rows(published_rows(hub, leaderboard))[0]
        return by_commit[head]

    repositories = sorted(repo for repo in _repositories(finished) if repo.startswith(f"{namespace}/"))
    return [repo for repo in repositories if publish_results_of(hub, repo, rows)]


def publish_results_of(hub: Hub, repo_id: str, rows: Callable[[], Iterable[Row]]) -> str | None:
    """Write what rows say of the weights on a repository's main; returns the commit, None where nothing changed.

    Args:
        rows: Reads the leaderboard: once a try, as what another run has written since is to stay.
    """
    sources: dict[tuple[str, str], tuple[bool, Source | None]] = {}

    def confirmed(row: Row) -> tuple[bool, Source | None]:
        key = (row["details_revision"], row["details_folder"])
        if key not in sources:
            sources[key] = _source(hub, row)
        return sources[key]

    def merged(head: str | None) -> dict[str, bytes | None]:
        record = hub.lineage("model", repo_id, head) if head else None
        if head is None or record is None:
            return {}
        board = list(rows())
        own = [row for row in board if (row["checkpoint_repo"], row["checkpoint_digest"]) == (repo_id, record.digest)]
        found = [
            Shown(row, source, [(said, other) for said, other in beside(row, board, record) if confirmed(other)[0]])
            for row in sorted(own, key=lambda row: (row["benchmark"], row["run"]))
            for is_confirmed, source in [confirmed(row)]
            if is_confirmed
        ]
        return _files(hub, repo_id, head, found)

    return commit_merged(hub, "model", repo_id, merged, message="evaluation results")


def _files(hub: Hub, repo_id: str, head: str, shown: list[Shown]) -> dict[str, bytes | None]:
    stale = (name for name in hub.tree("model", repo_id, head) if OURS.fullmatch(name))
    files: dict[str, bytes | None] = dict.fromkeys(stale)
    for row, source, _ in shown:
        files |= eval_files(row, source, hub.identity)
    card = hub.file("model", repo_id, head, CARD)
    if card is not None:
        index = model_index(repo_id.split("/")[-1], [(row, source) for row, source, _ in shown], hub.identity)
        text = with_results(card.read_text(encoding="utf-8"), [(row, others) for row, _, others in shown], index)
        files[CARD] = text.encode()
    return files


def _repositories(finished: Iterable[Finished]) -> set[str]:
    """Of checkpoints on this endpoint that the run made or evaluated."""
    found = set()
    for item in finished:
        if item.record.kind == "checkpoint" and item.record.repo_type == "model":
            found.add(item.record.repo_id)
        found |= {
            str(above.repo_id)
            for above in item.record.inputs
            if above.role == "checkpoints" and above.kind == "checkpoint" and above.repo_id and not above.upstream
        }
    return found


def _source(hub: Hub, row: Row) -> tuple[bool, Source | None]:
    """Whether the details' record says what the row says, and the Hub dataset behind its benchmark, if any."""
    record = hub.lineage("dataset", row["details_repo"], row["details_revision"], row["details_folder"])
    if record is None or not _confirms(record, row):
        return False, None
    role = f"benchmark:{row['benchmark']}"
    item = next((item for item in evaluation_of(hub, record).inputs if item.role == role), None)
    if item is None or item.repo_type != "dataset" or item.repo_id is None or item.revision is None:
        return True, None
    path = source_of(hub, item).file("dataset", item.repo_id, item.revision, "eval.yaml")
    return True, Source(item.repo_id, item.revision, _task(path.read_bytes() if path else b""))


def _confirms(record: LineageRecord, row: Row) -> bool:
    here = (record.fingerprint, record.digest) == (row["fingerprint"], row["details_digest"])
    return here and all(same(row[name], record.metrics.get(name)) for name in _FIGURES)


def _task(content: bytes) -> str:
    """The task of a benchmark dataset that has just one; `default` where it says nothing that can be read."""
    try:
        data = yaml.safe_load(content[:_LARGEST])
        (task,) = data["tasks"]
        name = task["id"]
    except (yaml.YAMLError, TypeError, KeyError, ValueError):
        return "default"
    return name if isinstance(name, str) else "default"
