"""Which rows the judge is asked about: those it may raise, and a sample of those it may not."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from erpd_hub.evaluation.judge import OPEN_VERDICTS
from erpd_hub.evaluation.judge.prompt import Question, is_shown_whole

Row = Mapping[str, Any]


def is_asked(row: Row) -> bool:
    """Whether the rule's no may be mended: there is a gold and an answer, the judge would see the whole of both, and
    the text ended by itself."""
    answered = bool(row["gold"]) and bool(row["extracted"]) and row["finish_reason"] == "stop"
    return (
        answered
        and row["verdict"] in OPEN_VERDICTS
        and is_shown_whole(row["extracted"])
        and is_shown_whole(row["gold"])
    )


def question_of(row: Row, problems: Mapping[str, str]) -> Question:
    """The comparison behind a row; `problems` are texts by id."""
    problem_id = row["problem_id"]
    return Question(f"{row['benchmark']}/{problem_id}", problems.get(problem_id), row["gold"], row["extracted"])


def by_question(rows: Iterable[Row], problems: Mapping[str, str]) -> dict[Question, list[Row]]:
    """The rows behind each different question, in order."""
    found: dict[Question, list[Row]] = {}
    for row in rows:
        found.setdefault(question_of(row, problems), []).append(row)
    return found


def draw(questions: Iterable[Question], *, count: int, seed: int) -> list[Question]:
    """`count` of them by a hash: the same whichever order they come in."""
    return sorted(questions, key=lambda question: _place(question, seed))[:count]


def _place(question: Question, seed: int) -> str:
    return hashlib.sha256(json.dumps([seed, question.problem_id, question.gold, question.answer]).encode()).hexdigest()
