"""Whether the rulings in judged details are what the replies beside them say: a verdict cannot be typed in either."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub.config.judge import JudgeSettings
from erpd_hub.evaluation.details import is_concealed
from erpd_hub.evaluation.judge import ruling_of
from erpd_hub.evaluation.judge.audit import canary_report
from erpd_hub.evaluation.judge.canaries import canaries, rewordings
from erpd_hub.evaluation.judge.journal import Ruling, Status, question_key
from erpd_hub.evaluation.judge.prompt import PROMPT_VERSION, Question, Reply, read_verdict
from erpd_hub.evaluation.judge.selection import Row, is_asked

LEFT_OUT = "(left out"
"""Begins the place of a reply that details without golds do not show: what it said cannot be checked."""
_THRESHOLD = "max_canary_acceptance"
_KEY_CHARS = 16
"""Of a question's key, in the `judge` column."""
_STATUS_OF: dict[str, Status] = {"A": "accepted", "B": "rejected"}
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading files raises that anybody may have written."""


class _Kept(NamedTuple):
    """The folder `judge/` of details."""

    model: str
    prompt_version: int
    threshold: float
    """Share of canaries that the judge was allowed."""
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
    except _UNREADABLE as error:
        return [_unread(error)]
    short = {key[:_KEY_CHARS]: entry for key, entry in kept.entries.items()}
    return [
        f"{row['problem_id']} {row['k']}: {problem}"
        for row in rows
        if row["judge"] and (problem := _problem(row, kept, short))
    ]


def misreported(judge: Mapping[str, Any], folder: Path) -> list[str]:
    """Where a record (`metrics.judge`) is not what the replies in the folder `judge/` come to: the model, and what it
    made of every canary and rewording of this prompt version."""
    try:
        kept = _kept(folder)
        if kept.prompt_version != PROMPT_VERSION:
            return [f"judge/: asked under prompt version {kept.prompt_version}, whose canaries are not known here"]
        asked = {
            "canary": {question_key(question, kept.model): question.problem_id for question in canaries()},
            "reworded": {question_key(question, kept.model): question.problem_id for question in rewordings()},
        }
        problems = [problem for purpose, keys in asked.items() for problem in _incomplete(purpose, keys, kept)]
        told = _rulings(asked["canary"], kept), _rulings(asked["reworded"], kept).values()
        found = canary_report(*told, threshold=kept.threshold)
    except _UNREADABLE as error:
        return [_unread(error)]
    if judge.get("model") != kept.model:
        problems.append(f"judge/: replies of {kept.model!r}, recorded {judge.get('model')!r}")
    return problems + [
        f"judge/: {name}: {value!r} by the replies, recorded {judge.get(name)!r}"
        for name, value in found.items()
        if judge.get(name) != value
    ]


def _incomplete(purpose: str, keys: Mapping[str, str], kept: _Kept) -> Iterator[str]:
    """What of the questions to a judge was left out, or put in."""
    there = {key for key, entry in kept.entries.items() if entry.get("purpose") == purpose}
    if missing := sorted(name for key, name in keys.items() if key not in there):
        yield f"judge/: {len(missing)} of {len(keys)} {purpose} questions are missing, {missing[0]} first"
    if others := there - keys.keys():
        yield f"judge/: {len(others)} {purpose} questions that are none"


def _rulings(keys: Mapping[str, str], kept: _Kept) -> dict[str, Ruling]:
    """Of the questions that there are, by name, as the replies have it."""
    return {
        name: Ruling(_said(kept.entries[key], concealed=False), None, ())
        for key, name in keys.items()
        if key in kept.entries
    }


def _unread(error: Exception) -> str:
    return f"judge/: expected replies as an evaluation keeps them, got {type(error).__name__}"


def _kept(folder: Path) -> _Kept:
    settings = json.loads((folder / "judge" / "judge.json").read_text())
    entries = dict(_replies(folder / "judge" / "replies.jsonl"))
    threshold = float(settings.get(_THRESHOLD, JudgeSettings.model_fields[_THRESHOLD].default))
    return _Kept(settings["model"], settings["prompt_version"], threshold, entries)


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


def _said(entry: Mapping[str, Any], *, concealed: bool) -> Status:
    """The status that follows from the replies of an entry; only where golds are left out may a reply be, too."""
    replies = entry.get("replies") or [""]
    if concealed and str(replies[-1]).startswith(LEFT_OUT):
        return _status(entry.get("status"))
    if entry.get("reason"):
        return "unjudged"
    verdict = read_verdict(Reply(str(replies[-1]), True, None, None))
    return "unjudged" if verdict is None else _STATUS_OF[verdict]


def _status(word: Any) -> Status:
    return word if word in ("accepted", "rejected") else "unjudged"
