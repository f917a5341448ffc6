"""Which checkpoint stands below which: a base, its teachers, below each teacher what its signal went into, and below
each checkpoint what was trained on from its weights."""

from collections.abc import Mapping, Sequence

from data import Source
from places import Place, Row, checkpoint_place, inputs_of
from scores import ROLES

MOST_ASKED = 100
"""Checkpoints whose lineage is read for their place in the table."""
FARTHEST = 8
"""Trainings between a checkpoint and the one that it is put below, of which nobody evaluated any."""
WEIGHTS = ("init", "source", "teacher")
"""Roles of the input that a checkpoint's weights started from; of a selection it is the winner among its candidates."""


def by_lineage(rows: Sequence[Row], above: Mapping[str, str] | None = None) -> list[tuple[int, Row]]:
    """(depth, row), each benchmark and base by itself; `above` is what `started_from` found."""
    ordered: list[tuple[int, Row]] = []
    groups: dict[tuple[str, bool, str], list[Row]] = {}
    for row in rows:
        base = f"{row.get('base_repo')}@{row.get('base_revision')}" if row.get("base_repo") else str(row.get("run"))
        groups.setdefault((str(row.get("benchmark")), bool(row.get("reported")), base), []).append(row)
    for (_, reported, _), group in sorted(groups.items(), key=lambda item: item[0]):
        ordered += [(0, row) for row in group] if reported else _walked(group, above or {})
    return ordered


def started_from(source: Source, rows: Sequence[Row]) -> tuple[dict[str, str], int]:
    """For checkpoints that no teacher's signal went into: the nearest evaluated checkpoint, not a base, that their
    weights were trained on from, both as repositories; and of how many the lineage was not read."""
    evaluated = {row["checkpoint_repo"] for row in rows if row.get("role") != "base" and checkpoint_place(row)}
    asked = {
        place.repo_id: place
        for row in rows
        if row.get("role") not in ("base", "endpoint") and row.get("teacher_repo") not in evaluated
        if (place := checkpoint_place(row)) is not None
    }
    pending = dict(list(asked.items())[:MOST_ASKED])
    found: dict[str, str] = {}
    for _ in range(FARTHEST):
        records = dict(zip(pending, source.records(list(pending.values())), strict=True))
        weights = {repo: _weights(record) for repo, record in records.items()}
        pending = {}
        for repo, place in weights.items():
            if place is not None and place.repo_id in evaluated and place.repo_id != repo:
                found[repo] = place.repo_id
            elif place is not None:
                pending[repo] = place
    return found, max(0, len(asked) - MOST_ASKED)


def _weights(record: Row | None) -> Place | None:
    metrics = (record or {}).get("metrics")
    winner = f"candidates:{metrics.get('winner')}" if isinstance(metrics, dict) else ""
    inputs = dict(inputs_of(record))
    return next((place for role in (*WEIGHTS, winner) if (place := inputs.get(role))), None)


def _walked(group: Sequence[Row], above: Mapping[str, str]) -> list[tuple[int, Row]]:
    """The rows of one benchmark and base, each once, also where a Hub tells of a circle."""
    by_repo: dict[str, list[Row]] = {}
    for row in sorted(group, key=_order):
        by_repo.setdefault(str(row.get("checkpoint_repo")), []).append(row)
    below: dict[str, list[str]] = {}
    for repo, own in by_repo.items():
        teacher = str(own[0].get("teacher_repo"))
        parent = teacher if teacher in by_repo else above.get(repo, "")
        below.setdefault(parent if parent in by_repo and parent != repo else "", []).append(repo)
    found: list[tuple[int, Row]] = []
    seen: set[str] = set()
    for top in (*below.get("", ()), *by_repo):
        pending = [(0 if by_repo[top][0].get("role") in ("base", "endpoint") else 1, top)]
        while pending:
            depth, repo = pending.pop()
            if repo not in seen:
                seen.add(repo)
                found += [(depth, row) for row in by_repo[repo]]
                pending += [(max(depth, 1) + 1, child) for child in reversed(below.get(repo, ()))]
    return found


def _order(row: Row) -> tuple[int, str, float]:
    role = row.get("role")
    rank = ROLES.index(role) if role in ROLES else len(ROLES)
    return rank, str(row.get("checkpoint_repo")), row["step"] if row.get("step") is not None else float("inf")
