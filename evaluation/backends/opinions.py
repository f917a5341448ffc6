"""The graders that `regrade` asks, each as a function from sample rows to opinions, in order.

`ours`, `math-verify` and `exact` judge the answer that our rule extracts. `evalscope` and `lighteval` judge the text by
rules of their own: what they are handed is the whole response, thinking included, as in their own runs.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any, Literal, NamedTuple, cast

from erpd_hub.evaluation.answers import Extract, extract_answer
from erpd_hub.evaluation.backends.environments import FOREIGN, HARNESSES, Harness, pinned_version, require_python
from erpd_hub.evaluation.backends.workers import Lost, Workers
from erpd_hub.evaluation.grading import Grade, Response, grade_many

GraderName = Literal["ours", "math-verify", "exact", "evalscope", "lighteval"]

Row = Mapping[str, Any]

SECONDS = 60.0
"""Wall time of one sample in another harness: its own limits (5 to 30 s a step) come first."""

_INTEGER_ONLY = ("aime_2024", "aime_2025")


class Opinion(NamedTuple):
    """What a grader makes of a sample."""

    label: Literal[0, 1] | None
    """None where it has no verdict: its gold does not parse, it failed, or it ran out of time."""
    answer: str | None
    """What it compared, as far as it says."""
    reason: str | None


def describe(grader: GraderName) -> str:
    """Name and version of what does the comparing."""
    if grader in HARNESSES:
        return f"{grader} {pinned_version(cast(Harness, grader))}"
    if grader == "exact":
        return "exact string"
    name = "erpd-hub" if grader == "ours" else "math-verify"
    return f"{name} {version(name)}"


class Foreign:
    """A harness's grader in processes of its own, which start with the first question; an equal one is asked once."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._known: dict[bytes, Opinion] = {}

    def ask(self, jobs: Sequence[dict[str, Any]]) -> list[Opinion]:
        """Opinions on jobs (`gold`, `text`, `integer`), in order."""
        keys = [hashlib.sha256(json.dumps(job, sort_keys=True).encode()).digest() for job in jobs]
        new = {key: job for key, job in zip(keys, jobs, strict=True) if key not in self._known}
        replies = self._workers.ask_all(list(new.values()))
        self._known |= {key: _opinion(reply) for key, reply in zip(new, replies, strict=True)}
        return [self._known[key] for key in keys]


@contextmanager
def opened(names: Iterable[str], *, seconds: float = SECONDS) -> Iterator[dict[Harness, Foreign]]:
    """The graders of those names that are harnesses'.

    Raises:
        ErpdError: an environment is not built.
    """
    with ExitStack() as stack:
        yield {name: stack.enter_context(foreign(name, seconds=seconds)) for name in HARNESSES if name in set(names)}


@contextmanager
def foreign(harness: Harness, *, seconds: float) -> Iterator[Foreign]:
    """One harness's grader; `seconds` of wall time for a sample.

    Raises:
        ErpdError: its environment is not built.
    """
    script = FOREIGN / f"grade_{harness}.py"
    workers = Workers(
        [str(require_python(harness)), "-s", str(script)], size=min(2, os.cpu_count() or 1), seconds=seconds
    )
    try:
        yield Foreign(workers)
    finally:
        workers.close()


def ask_foreign(grader: Foreign, rows: Sequence[Row], extract: Extract) -> list[Opinion]:
    """Opinions on whole responses; nothing is asked without a gold or a response."""
    opinions = [without_question(row) for row in rows]
    asked = [index for index, opinion in enumerate(opinions) if opinion is None]
    jobs = [_job(rows[index], seen_text(rows[index], extract)) for index in asked]
    answered = dict(zip(asked, grader.ask(jobs), strict=True))
    return [opinion or answered[index] for index, opinion in enumerate(opinions)]


def seen_text(row: Row, extract: Extract) -> str:
    """What a harness is handed: all of it, or the line that counts."""
    return str(row["text"] if extract == "boxed" else row["text"].split("\n", 1)[0])


def without_question(row: Row) -> Opinion | None:
    """The opinion on a sample that there is nothing to ask about."""
    if row["finish_reason"] == "error":
        return Opinion(None, None, "the engine failed")
    return None if row["gold"] else Opinion(None, None, "no gold answer")


def ask_about_answers(grader: Foreign, rows: Sequence[Row], answers: Sequence[str]) -> list[Opinion]:
    """Opinions on our extracted answers alone, each in a box: what is left is how the harness compares."""
    return grader.ask([_job(row, f"\\boxed{{{answer}}}") for row, answer in zip(rows, answers, strict=True)])


def our_answer(row: Row, extract: Extract) -> str | None:
    """The answer that our rule sees in a stored sample."""
    return extract_answer(row["text"], extract=extract, thinking=is_thinking(row))


def is_integer_only(benchmark: str) -> bool:
    """Whether evalscope compares this benchmark's answers as integers and no other way."""
    return benchmark in _INTEGER_ONLY


def _job(row: Row, text: str) -> dict[str, Any]:
    return {"gold": row["gold"] or "", "text": text, "integer": is_integer_only(row["benchmark"])}


def _opinion(reply: dict[str, Any] | Lost) -> Opinion:
    if isinstance(reply, Lost):
        return Opinion(None, None, reply.how)
    label = reply.get("label")
    return Opinion(label if label in (0, 1) else None, reply.get("extracted"), reply.get("reason"))


def ask_here(grader: GraderName, rows: Sequence[Row], extract: Extract) -> list[Opinion]:
    """Opinions of `ours`, `math-verify` or `exact`."""
    if grader == "exact":
        return [_exact(row, our_answer(row, extract)) for row in rows]
    responses = [Response(row["gold"] or "", row["text"], row["finish_reason"], is_thinking(row)) for row in rows]
    method: Literal["reader first", "math-verify"] = "reader first" if grader == "ours" else "math-verify"
    return [_from_grade(grade) for grade in grade_many(responses, extract=extract, method=method)]


def _exact(row: Row, answer: str | None) -> Opinion:
    if (none := without_question(row)) is not None:
        return none
    if row["finish_reason"] == "length":
        return Opinion(0, answer, "truncated")
    return Opinion(1 if answer == row["gold"].strip() else 0, answer, None)


def _from_grade(grade: Grade) -> Opinion:
    return Opinion(grade.label, grade.extracted, grade.reason or grade.verdict)


def is_thinking(row: Row) -> bool:
    """Whether the prompt opened a think block: as whoever imported the sample says (`thinking`), or as far as a stored
    one tells, which shows it only where none was closed."""
    if "thinking" in row:
        return bool(row["thinking"])
    return row["verdict"] in ("no_answer", "truncated") and row["extracted"] is None and "</think>" not in row["text"]
