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
from erpd_hub.evaluation.answers import Extract
from erpd_hub.evaluation.golds import normalise_gold
from erpd_hub.evaluation.grading import GRADER_VERSION, SECONDS, Grade, Response, grade_many
from erpd_hub.samples import FinishReason

_CHUNK_ROWS = 1024
_CHUNK_CHARACTERS = 32 << 20
_MAX_LINE = 64 << 20  # bytes
_NAMED = 10  # malformed lines that are named one by one
_ADDED = ("verdict", "label", "extracted", "grader", "ms", "reason")
_CUT_OFF = ("length", "max_tokens", "max_length", "max_new_tokens")
_FAILED = ("error", "abort", "aborted", "failed")


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


@dataclass(frozen=True)
class _Row:
    """A line of the input: what it holds, or why it is no row."""

    data: dict[str, Any]
    response: Response | None
    problem: str | None


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
        rows = _rows(lines, text_key, gold_key, thinking)
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


def _rows(lines: IO[bytes], text_key: str, gold_key: str, thinking: bool) -> Iterator[_Row]:
    number = 0
    while line := lines.readline(_MAX_LINE):
        number += 1
        size = len(line)
        while not line.endswith(b"\n") and (rest := lines.readline(_MAX_LINE)):  # the rest of a line that is too long
            size, line = size + len(rest), rest
        if size > _MAX_LINE:
            yield _malformed(number, f"expected at most {_MAX_LINE} bytes, got {size}")
        elif line.strip():
            yield _row(number, line, text_key, gold_key, thinking)
        else:
            yield _malformed(number, "expected a JSON object, got an empty line")


def _row(number: int, line: bytes, text_key: str, gold_key: str, thinking: bool) -> _Row:
    try:
        data = json.loads(line, parse_int=_integer)
    except (ValueError, RecursionError):
        return _malformed(number, "expected a JSON object, got what is no JSON")
    if not isinstance(data, dict):
        return _malformed(number, f"expected a JSON object, got {type(data).__name__}")
    for key in (text_key, gold_key):
        if key not in data:
            return _malformed(number, f"expected the key {key!r}, got none", data)
    text, gold = data[text_key], _gold(data[gold_key])
    if gold is None:
        return _malformed(number, f"{gold_key}: expected text or a number, got {type(data[gold_key]).__name__}", data)
    if not isinstance(text, str | int | float | None) or isinstance(text, bool):
        return _malformed(number, f"{text_key}: expected text, got {type(text).__name__}", data)
    said = data.get("thinking")  # another harness may keep the thoughts there: then it is text
    opened = said if isinstance(said, bool) else thinking
    response = Response(gold, "" if text is None else str(text), _finish_reason(data.get("finish_reason")), opened)
    return _Row(data, response, None)


def _integer(digits: str) -> int | str:
    """An integer; digits of one that Python would refuse to print again stay text."""
    return int(digits) if len(digits) < 4000 else digits


def _gold(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        return None
    return normalise_gold(value)


def _finish_reason(value: Any) -> FinishReason:
    if value in _CUT_OFF:
        return "length"
    return "error" if value in _FAILED else "stop"


def _malformed(number: int, problem: str, data: dict[str, Any] | None = None) -> _Row:
    return _Row(data if data is not None else {"line": number}, None, f"line {number}: {problem}")


def _chunks(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    chunk: list[_Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.response.text) if row.response else 0
        if len(chunk) >= _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _graded(row: _Row, grade: Grade | None) -> dict[str, Any]:
    """The row with its grade; what it already has under our names goes on as `given_...`."""
    if grade is None:
        grade = Grade("ungradable", None, None, row.problem, "none")
    added = {name: getattr(grade, name) for name in _ADDED}
    added["ms"] = round(grade.ms, 3)
    return _kept(row) | added


def _kept(row: _Row) -> dict[str, Any]:
    return {f"given_{key}" if key in _ADDED else key: value for key, value in row.data.items()}


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


def _resume(rows: Iterator[_Row], done: IO[bytes], report: Report, partial: Path) -> None:
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
        graded = json.loads(line, parse_int=_integer)
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
