"""Grading a JSON Lines file of anyone's answers: rows `{output, gold}` in, the same rows with their grades out.

It streams: memory holds one chunk of rows. What is done is kept in a file beside the output, named after the settings,
and the next run goes on from there; the output appears when it is whole. A line that is no such row stays in the output
as ungradable, with its number and the reason, so that lines in and lines out are the same.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.evaluation.answer_rows import AnswerRow, bounded_integer, read_rows
from erpd_hub.evaluation.answers import Extract
from erpd_hub.evaluation.grading import GRADER_VERSION, SECONDS, Grade, Response, grade_many

_CHUNK_ROWS = 1024
_CHUNK_CHARACTERS = 32 << 20
_NAMED = 10  # malformed lines that are named one by one
_ADDED = ("verdict", "label", "extracted", "grader", "ms", "reason")


@dataclass
class Report:
    """What grading a file came to."""

    rows: int = 0
    resumed: int = 0
    """Rows that an earlier run had graded."""
    verdicts: Counter[str] = field(default_factory=Counter)
    graders: Counter[str] = field(default_factory=Counter)
    malformed: list[str] = field(default_factory=list)
    """`line 3: ...`, the first ten."""
    num_malformed: int = 0
    unboxed: int = 0
    """Rows without an answer whose output is one short line: maybe bare answers."""
    closed: int = 0
    """Rows with a `</think>`."""
    unclosed: int = 0
    """Gradable rows without one, of prompts that are not said to have opened a think block: graded as they stand."""
    given: Counter[str] = field(default_factory=Counter)
    """Where the rows carry a label of their own: agree, false_positive, false_negative, ungradable."""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        graded = self.rows - self.verdicts["ungradable"]
        return {
            "schema": 1,
            "rows": self.rows,
            "resumed": self.resumed,
            "verdicts": dict(sorted(self.verdicts.items())),
            "graders": dict(sorted(self.graders.items())),
            "accuracy": self.verdicts["correct"] / graded if graded else None,
            "malformed": self.num_malformed,
            "malformed_lines": self.malformed,
            "unboxed_short": self.unboxed,
            "thinking_closed": self.closed,
            "thinking_unclosed": self.unclosed,
            "given_labels": dict(sorted(self.given.items())) or None,
            "versions": _versions(),
            "seconds": round(self.seconds, 3),
        }


def grade_file(
    path: Path, output: Path, *, extract: Extract = "boxed", text_key: str = "output", gold_key: str = "gold",
    seconds: float = SECONDS, thinking: bool = False,
) -> Report:  # fmt: skip
    """Grade the rows of `path` into `output`; an output that is there is replaced when the new one is whole.

    Args:
        thinking: Whether the prompts opened a think block; a row's own `thinking` (true or false) goes first.

    Raises:
        ConfigError: input and output are the same file, or there is no input.
        ArtifactError: what an earlier run left belongs to another input.
    """
    if not path.is_file():
        raise ConfigError(f"grade: expected a JSON Lines file, got {path}; there is none")
    if output.exists() and output.samefile(path):
        raise ConfigError("--output: expected another file than the input, got the same; name another")
    started, report = time.monotonic(), Report()
    settings = json.dumps([GRADER_VERSION, extract, text_key, gold_key, seconds, thinking, _versions()])
    partial = output.with_name(f"{output.name}.{hashlib.sha256(settings.encode()).hexdigest()[:12]}.partial")
    output.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as lines, partial.open("ab+") as done:
        rows = read_rows(lines, text_key, gold_key, thinking=thinking)
        _resume(rows, done, report, partial)
        for chunk in _chunks(rows):
            responses = [row.response for row in chunk if row.response is not None]
            grades = iter(grade_many(responses, extract=extract, seconds=seconds))
            for row in chunk:
                graded = _graded(row, None if row.response is None else next(grades))
                done.write(json.dumps(graded).encode() + b"\n")
                _count(report, graded, row.response)
            done.flush()
        os.fsync(done.fileno())
    partial.replace(output)
    report.seconds = time.monotonic() - started
    return report


def _chunks(rows: Iterator[AnswerRow]) -> Iterator[list[AnswerRow]]:
    chunk: list[AnswerRow] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.response.text) if row.response else 0
        if len(chunk) >= _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _graded(row: AnswerRow, grade: Grade | None) -> dict[str, Any]:
    """The row with its grade; what it already has under our names goes on as `given_...`."""
    if grade is None:
        grade = Grade("ungradable", None, None, row.problem, "none")
    added = {name: getattr(grade, name) for name in _ADDED}
    added["ms"] = round(grade.ms, 3)
    return _kept(row) | added


def _kept(row: AnswerRow) -> dict[str, Any]:
    """What a row brings; of one that was graded before, what was given then and not that grade."""
    given = {f"given_{key}": row.data[key] for key in _ADDED if key in row.data}
    return given | {key: value for key, value in row.data.items() if key not in _ADDED}


def _count(report: Report, graded: dict[str, Any], response: Response | None) -> None:
    report.rows += 1
    report.verdicts[graded["verdict"]] += 1
    report.graders[graded["grader"]] += 1
    if response is None:
        report.num_malformed += 1
        if len(report.malformed) < _NAMED:
            report.malformed.append(str(graded["reason"]))
    elif "</think>" in response.text:
        report.closed += 1
    elif not response.thinking and graded["verdict"] in ("correct", "wrong"):
        report.unclosed += 1
    if response is not None and graded["verdict"] == "no_answer" and _is_short_line(response.text):
        report.unboxed += 1
    given = graded.get("given_label")
    if given in (0, 1) and response is not None:
        report.given[_agreement(int(given), graded["label"])] += 1


def _is_short_line(text: str) -> bool:
    return len(text) <= 200 and "\n" not in text.strip()


def _agreement(given: int, label: int | None) -> str:
    if label is None:
        return "ungradable"
    return "agree" if given == label else "false_positive" if label else "false_negative"


def _resume(rows: Iterator[AnswerRow], done: IO[bytes], report: Report, partial: Path) -> None:
    """Count what an earlier run graded, cut off a line that it did not finish, and leave `rows` after those.

    Raises:
        ArtifactError: they are not the rows of this input.
    """
    done.seek(0)
    kept = 0
    for line in done:
        if not line.endswith(b"\n"):
            break
        row = next(rows, None)
        graded = json.loads(line, parse_int=bounded_integer)
        if row is None or _kept(row) != {key: value for key, value in graded.items() if key not in _ADDED}:
            raise ArtifactError(f"{partial}: expected rows of this input, got others; remove it to start afresh")
        _count(report, graded, row.response)
        kept += len(line)
    report.resumed = report.rows
    done.truncate(kept)
    done.seek(0, os.SEEK_END)


def _versions() -> dict[str, str]:
    found = {"grader": str(GRADER_VERSION)}
    try:
        found["math-verify"] = version("math-verify")
    except PackageNotFoundError:
        found["math-verify"] = "none"
    return found
