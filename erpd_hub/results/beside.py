"""What the scores of a checkpoint are read beside: those of its start, its base and its teacher, measured alike."""

from collections.abc import Iterable, Iterator

from erpd_hub.artifacts import LineageRecord
from erpd_hub.checkpoint_role import weights_of
from erpd_hub.results.board import settings
from erpd_hub.results.rows import Row

_SAME_WEIGHTS = ("unlearned", "select")
"""Stages whose weights are those of the checkpoint that they are of."""


def beside(row: Row, rows: Iterable[Row], record: LineageRecord) -> list[tuple[str, Row]]:
    """What another checkpoint is to this one, and its row: with the same benchmark and settings, of the same run where
    that has one.

    Args:
        rows: Of the leaderboard.
        record: Of the checkpoint that `row` is of.
    """
    alike = sorted((other for other in rows if _key(other) == _key(row)), key=lambda other: other["run"] != row["run"])
    found: dict[tuple[str | None, str | None], tuple[str, Row]] = {}
    for said, place in _related(row, record):
        other = next(
            (other for other in alike if place == (other["checkpoint_repo"], other["checkpoint_revision"])), None
        )
        if other is not None and other["checkpoint_digest"] != row["checkpoint_digest"]:
            found.setdefault(place, (said, other))
    return list(found.values())


def _related(row: Row, record: LineageRecord) -> Iterator[tuple[str, tuple[str | None, str | None]]]:
    start = weights_of(record)
    if start is not None and record.stage not in _SAME_WEIGHTS:
        yield "its start", (start.repo_id, start.revision)
    yield "its base", (row["base_repo"], row["base_revision"])
    yield "its teacher", (row["teacher_repo"], row["teacher_revision"])


def _key(row: Row) -> tuple[object, ...]:
    return row["benchmark"], row["version"], row["problems_state"], row["judge"], *settings(row).items()
