"""Whether the rulings in judged details are what the replies beside them say: a verdict cannot be typed in either."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub.evaluation.details import is_concealed
from erpd_hub.evaluation.judge import ruling_of
from erpd_hub.evaluation.judge.journal import question_key
from erpd_hub.evaluation.judge.prompt import Question, Reply, read_verdict
from erpd_hub.evaluation.judge.selection import Row, is_asked

LEFT_OUT = "(left out"
"""Begins the place of a reply that details without golds do not show: what it said cannot be checked."""
_KEY_CHARS = 16
"""Of a question's key, in the `judge` column."""


class _Kept(NamedTuple):
    """The folder `judge/` of details."""

    model: str
    prompt_version: int
    entries: dict[str, dict[str, Any]]
    """By key."""


def unfounded(rows: Iterable[Row], folder: Path) -> list[str]:
    """What is wrong with the rulings of judged details; empty where each is the verdict of the reply kept for it.

    Args:
        rows: As the details have them: without their golds where those are left out.
        folder: Of the details, with `judge/`.
    """
    try:
        kept = _kept(folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return [_unread(error)]
    short = {key[:_KEY_CHARS]: entry for key, entry in kept.entries.items()}
    return [
        f"{row['problem_id']} {row['k']}: {problem}"
        for row in rows
        if row["judge"] and (problem := _problem(row, kept, short))
    ]


def misreported(judge: Mapping[str, Any], folder: Path) -> list[str]:
    """Where model and canaries in a record (`metrics.judge`) are not those of the replies in the folder `judge/`."""
    try:
        kept = _kept(folder)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return [_unread(error)]
    problems = []
    if judge.get("model") != kept.model:
        problems.append(f"judge/: replies of {kept.model!r}, recorded {judge.get('model')!r}")
    said = [_said(entry, concealed=False) for entry in kept.entries.values() if entry.get("purpose") == "canary"]
    accepted, answered = said.count("accepted"), len(said) - said.count("unjudged")
    shares = [accepted / total if total else None for total in (len(said), answered)]  # of all, or of those judged
    if judge.get("canary_acceptance") not in shares:
        told = f"{accepted} of {len(said)} canaries accepted"
        problems.append(f"judge/: {told}, recorded as the share {judge.get('canary_acceptance')}")
    return problems


def _unread(error: Exception) -> str:
    return f"judge/: expected replies as an evaluation keeps them, got {type(error).__name__}"


def _kept(folder: Path) -> _Kept:
    settings = json.loads((folder / "judge" / "judge.json").read_text())
    entries = dict(_replies(folder / "judge" / "replies.jsonl"))
    return _Kept(settings["model"], settings["prompt_version"], entries)


def _replies(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            entry = json.loads(line)
            yield entry["key"], entry


def _problem(row: Row, kept: _Kept, short: Mapping[str, dict[str, Any]]) -> str | None:
    """Why a row's ruling does not follow from the replies."""
    concealed = is_concealed(row)
    if not is_asked({**row, "gold": "left out"} if concealed else row):
        return "a ruling on what no judge is asked about"
    ruling = ruling_of(row)
    if concealed:
        entry = short.get(str(ruling.get("key")))
        told = entry is not None and (entry.get("problem_id"), entry.get("answer")) == (
            row["problem_id"],
            row["extracted"],
        )
        entry = entry if told else None
    else:
        question = Question(f"{row['benchmark']}/{row['problem_id']}", None, row["gold"], row["extracted"])
        entry = kept.entries.get(question_key(question, kept.model, kept.prompt_version))
    if entry is None:
        return "a ruling without a reply"
    status, said = ruling.get("status"), _said(entry, concealed=concealed)
    return None if status == said else f"a ruling of {status!r}, where the judge said {said!r}"


def _said(entry: Mapping[str, Any], *, concealed: bool) -> str:
    """The status that follows from the replies of an entry; only where golds are left out may a reply be, too."""
    replies = entry.get("replies") or [""]
    if concealed and str(replies[-1]).startswith(LEFT_OUT):
        return str(entry.get("status"))
    if entry.get("reason"):
        return "unjudged"
    verdict = read_verdict(Reply(str(replies[-1]), True, None, None))
    return {"A": "accepted", "B": "rejected"}.get(str(verdict), "unjudged")
