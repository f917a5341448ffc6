"""What a run publishes besides its artifacts: cards of repositories that hold many, leaderboard rows, and the results
in the repositories of its checkpoints.

Leaderboard rows are computed from the samples of the details artifacts; nothing can be typed in. Everything here may be
written to by several runs at once, so each commit is made on the state that it was computed from.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from erpd_hub.artifacts import CARD, LINEAGE, LineageRecord
from erpd_hub.evaluation.leaderboard import PROBED, leaderboard_bytes
from erpd_hub.finished import Finished
from erpd_hub.hub.client import Hub, RepoType
from erpd_hub.hub.merging import commit_merged
from erpd_hub.judging import SUFFIX
from erpd_hub.lineage_views import card_above
from erpd_hub.model_cards import commands_of, render_leaderboard, render_repo_card
from erpd_hub.model_cards.pictures import pictures_of
from erpd_hub.nodes import Plan
from erpd_hub.plotting.cards import repository_pictures
from erpd_hub.results.metadata import publish_results
from erpd_hub.results.origin import decided_or_unknown, evaluation_of, origin_of
from erpd_hub.results.published import complete, rows_of
from erpd_hub.results.rows import Probe, Row, canaries_problem, reference_of, row_of
from erpd_hub.results.verify import same
from erpd_hub.summary import Checkpoint, as_counted, checkpoints, evaluations, probe_of

LEADERBOARD = "erpd-leaderboard"
_FROM_RECORD = ("avg", "stderr", "k", "n", "coverage", "mean_length", "truncated", "no_answer", "avg_judged")
"""Figures that the details' record has too: a published row that differs from it is computed again."""


def publish_repository_cards(hub: Hub, finished: Iterable[Finished], *, command: str = "") -> None:
    """Bring the card of every repository with artifacts in folders up to date; `command` made them."""
    made: dict[tuple[RepoType, str], dict[str, str]] = {}
    for item in finished:
        if item.node.folder:
            record = item.record
            folders = made.setdefault((record.repo_type, record.repo_id), {})
            folders |= {record.folder: command} if command else {}
    for (repo_type, repo_id), commands in sorted(made.items()):
        publish_repository_card(hub, repo_type, repo_id, commands=commands)


def publish_repository_card(
    hub: Hub, repo_type: RepoType, repo_id: str, *, commands: Mapping[str, str] = MappingProxyType({})
) -> str | None:
    """Bring the card of a repository with artifacts in folders up to date; None where it is. `commands` are those of
    some folders; of the others it keeps what it says."""

    def card(head: str | None) -> dict[str, bytes | None]:
        found = folder_records(hub, repo_type, repo_id, head)
        records = [record.model_dump(mode="json", by_alias=True) for record in found]
        held = pictures_of(hub.tree(repo_type, repo_id, head)) if head else []
        files = {name: hub.file(repo_type, repo_id, head, name) for name in held} if head else {}
        pictures = repository_pictures(records, {name: path.read_bytes() for name, path in files.items() if path})
        kept = [] if pictures else held
        shown = kept + [name for name, content in pictures.items() if content is not None]
        there = hub.file(repo_type, repo_id, head, CARD) if head else None
        said = commands_of(there.read_text("utf-8", errors="replace")) if there else {}
        card = render_repo_card(records, command={**said, **commands}, above=card_above(hub, found), pictures=shown)
        return {CARD: card.encode(), **pictures}

    return commit_merged(hub, repo_type, repo_id, card, message="card")


def folder_records(hub: Hub, repo_type: RepoType, repo_id: str, head: str | None = None) -> list[LineageRecord]:
    """The records of all artifacts in the folders of a repository, as a commit (main) has them."""
    head = head or hub.resolve(repo_type, repo_id)
    assert head is not None, "an artifact was pushed there"
    suffix = "/" + LINEAGE
    folders = [name.removesuffix(suffix) for name in hub.tree(repo_type, repo_id, head) if name.endswith(suffix)]
    found = [hub.lineage(repo_type, repo_id, head, folder) for folder in sorted(folders)]
    return [record for record in found if record is not None]


def publish_leaderboard(hub: Hub, plan: Plan, finished: list[Finished]) -> str | None:
    """Put this run's rows, computed from its samples, into the namespace's leaderboard; returns its repository.

    Rows of checkpoints that this run did not measure stay; a kill before this is made good by the next run. What the
    rows say is then written into the checkpoints' own repositories.
    """
    rows = checkpoints(plan, finished)
    if not rows:
        return None
    repo_id = f"{plan.recipe.namespace}/{LEADERBOARD}"
    path = f"data/{plan.recipe.run}.parquet"
    by_name = {item.node.name: item for item in finished}
    pairs = [(row, as_counted(item, by_name), probe_of(item, finished)) for row, item in
             zip(rows, evaluations(finished), strict=True)]  # fmt: skip
    made: dict[str, Row] = {}

    def merged(head: str | None) -> dict[str, bytes | None]:
        there = {row["details_folder"]: complete(row) for row in rows_of(hub, repo_id, head, path)}
        for row, item, probe in pairs:
            if _is_judged_already(hub, item, there):
                judged = there[item.record.folder + SUFFIX]
                judged["selection"] = _is_selected(hub, row, item, judged)
            else:
                there |= _updated(hub, row, item, probe, there, made)
                there.pop(_counterpart(item.record.folder), None)
        content = leaderboard_bytes([there[folder] for folder in sorted(there)])
        return {path: content, CARD: render_leaderboard(repo_id).encode()}

    commit_merged(hub, "dataset", repo_id, merged, message=plan.recipe.run)
    publish_results(hub, repo_id, finished)
    return repo_id


def _updated(
    hub: Hub, row: Checkpoint, item: Finished, probe: Finished | None, there: dict[str, Row], made: dict[str, Row]
) -> dict[str, Row]:
    """The row of a details artifact as it should be, by its folder; `made` keeps what an earlier try computed."""
    folder = item.record.folder
    known = there.get(folder, {})
    selection = _is_selected(hub, row, item, known or there.get(_counterpart(folder), {}))
    if _is_current(hub, known, item, probe, selection):
        return {folder: known}
    if folder not in made or made[folder]["selection"] != selection:
        samples = hub.pull("dataset", item.record.repo_id, item.revision, item.record.folder)
        made[folder] = row_of(
            hub, item.record, item.revision, samples, selection=selection, probe=_probe(probe) if probe else None
        )
    return {folder: made[folder]}


def _is_selected(hub: Hub, row: Checkpoint, item: Finished, known: Row) -> bool:
    """Whether something was decided on the benchmark: by this run, by the lineage, or as a published row has it, since
    another recipe may have decided."""
    origin = origin_of(hub, item.record)
    decided = origin is not None and decided_or_unknown(hub, origin.item, row.benchmark)
    return row.selection or decided or bool(known.get("selection"))


def _is_current(hub: Hub, known: Row, item: Finished, probe: Finished | None, selection: bool) -> bool:
    """Whether a published row is of these very details and says what their records do."""
    metrics = item.record.metrics
    probed = probe.record.metrics if probe else {}
    return (
        (known.get("details_revision"), known.get("selection")) == (item.revision, selection)
        and known.get("details_digest") == item.record.digest
        and known.get("n_graded") is not None  # by a version that computed less, or the limits otherwise
        and known.get("checkpoint") == reference_of(evaluation_of(hub, item.record))
        and known.get("canaries_problem") == canaries_problem(metrics)
        and (known.get("probe_revision") == (probe.revision if probe else None))
        and all(same(known[name], metrics.get(name)) for name in _FROM_RECORD)
        and all(same(known[name], probed.get(name)) for name in PROBED)
    )


def _probe(item: Finished) -> Probe:
    return Probe(item.record.repo_id, item.record.folder, item.revision, item.record.metrics)


def _counterpart(folder: str) -> str:
    """The folder of the same evaluation with a judge, or without it."""
    return folder.removesuffix(SUFFIX) if folder.endswith(SUFFIX) else folder + SUFFIX


def _is_judged_already(hub: Hub, item: Finished, there: Mapping[str, Row]) -> bool:
    """Whether the board has the judged copy of these very details, which says all that they do and more."""
    row = there.get(item.record.folder + SUFFIX)
    if row is None:
        return False
    record = hub.lineage("dataset", row["details_repo"], row["details_revision"], row["details_folder"])
    return record is not None and any(above.digest == item.record.digest for above in record.inputs)
