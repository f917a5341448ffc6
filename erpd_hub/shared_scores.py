"""Log-probs that are there already: of the same checkpoint on the same rollouts, made by the run that drew these.

A step on the rollouts of another run implies scores in its own name. Their fingerprint depends on no name, so where the
other run has one of the very same commits it is taken as it is.
"""

from collections.abc import Iterable, Iterator, Sequence

from erpd_hub.artifacts import InputRecord, LineageRecord
from erpd_hub.config import ScoreConfig
from erpd_hub.hub.client import Hub
from erpd_hub.hub.finding import find_finished
from erpd_hub.inputs import ResolvedInput
from erpd_hub.nodes import Node
from erpd_hub.references import RepoRef


def find_shared(
    hub: Hub, node: Node, inputs: Sequence[ResolvedInput], fingerprint: str
) -> tuple[str, LineageRecord] | None:
    """Commit and record of a finished score beside the rollouts that come from elsewhere."""
    if not isinstance(node.config, ScoreConfig):
        return None
    outside = {edge.role for edge in node.inputs if isinstance(edge.source, RepoRef)}
    rollouts = next((item.origin for item in inputs if item.record.role == "rollouts" and "rollouts" in outside), None)
    if rollouts is None:
        return None
    for repo_id in _scores_of(hub, rollouts):
        found = find_finished(hub, node.stage.repo_type, repo_id, "", fingerprint)
        if found is not None and _commits(found[1].inputs) == _commits([item.record for item in inputs]):
            return found
    return None


def _commits(inputs: Iterable[InputRecord]) -> set[tuple[str | None, str, str | None]]:
    """Where inputs were read; a record vouches for the contents of these commits and of no later ones."""
    return {(item.repo_id, item.folder, item.revision) for item in inputs}


def _scores_of(hub: Hub, rollouts: LineageRecord) -> Iterator[str]:
    """Repositories that are named as a run names the scores it implies."""
    namespace = rollouts.repo_id.partition("/")[0]
    beginning = f"{namespace}/{rollouts.run}-r{rollouts.round}-score"
    found = hub.ask(lambda: list(hub.api.list_datasets(author=namespace)))
    return (item.id for item in sorted(found, key=lambda item: item.id) if item.id.startswith(beginning))
