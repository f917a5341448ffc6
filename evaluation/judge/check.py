"""Whether the rulings in judged details are what the replies beside them say: a verdict cannot be typed in either."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from erpd_hub.evaluation.judge import ruling_of
from erpd_hub.evaluation.judge.journal import question_key
from erpd_hub.evaluation.judge.prompt import Question, Reply, read_verdict
from erpd_hub.evaluation.judge.selection import Row, is_asked

LEFT_OUT = "(left out"
"""Begins the place of a reply that details without golds do not show: what it said cannot be checked."""


def unfounded(rows: Iterable[Row], folder: Path) -> list[str]:
    """What is wrong with the rulings of judged details; empty where each is the verdict of the reply kept for it.

    Args:
        rows: With their golds, see `erpd_hub.evaluation.details.reveal`.
        folder: Of the details, with `judge/`.
    """
    try:
        model = json.loads((folder / "judge" / "judge.json").read_text())["model"]
        replies = dict(_replies(folder / "judge" / "replies.jsonl"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return [f"judge/: expected replies as an evaluation keeps them, got {type(error).__name__}"]
    return [
        f"{row['problem_id']} {row['k']}: {problem}"
        for row in rows
        if row["judge"] and (problem := _problem(row, model, replies))
    ]


def _replies(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            entry = json.loads(line)
            yield entry["key"], entry


def _problem(row: Row, model: str, replies: dict[str, dict[str, Any]]) -> str | None:
    """Why a row's ruling does not follow from the replies."""
    if not is_asked(row):
        return "a ruling on what no judge is asked about"
    problem_id = f"{row['benchmark']}/{row['problem_id']}"
    key = question_key(Question(problem_id, None, row["gold"], row["extracted"]), model)
    status = ruling_of(row).get("status")
    entry = replies.get(key)
    if entry is None:
        return "a ruling without a reply"
    said = _said(entry)
    return None if status == said else f"a ruling of {status!r}, where the judge said {said!r}"


def _said(entry: dict[str, Any]) -> str:
    """The status that follows from the replies of an entry."""
    kept = entry.get("replies") or [""]
    if str(kept[-1]).startswith(LEFT_OUT):
        return str(entry.get("status"))
    if entry.get("reason"):
        return "unjudged"
    verdict = read_verdict(Reply(str(kept[-1]), True, None, None))
    return {"A": "accepted", "B": "rejected"}.get(str(verdict), "unjudged")
