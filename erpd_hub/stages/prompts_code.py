"""Programming problems with their tests, from JSON lines as inclusionAI/AReaL-boba-2-RL-Code has them.

The file is read line by line, once for the problems and once for the tests of those that were drawn, so that its 6.9 GB
never are in memory. A row is {query_id, question, input_output: JSON of {inputs, outputs}, metadata: {fn_name}}; with
a function's name an input is one JSON argument a line and an output is JSON. Nothing of a row is executed here.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub.config import CodePrompts
from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.code.programs import Tests
from erpd_hub.prompts import Problem, problem_key


class CodeRow(NamedTuple):
    """One row: a problem and where its tests are, or the reason why it is none."""

    row: int
    """Its number over all files, from 0."""
    path: Path
    offset: int
    length: int
    """Bytes of the line."""
    problem: Problem
    reason: str | None
    columns: Mapping[str, Any]
    """Of those that a filter looks at."""


def read_code_rows(config: CodePrompts, folder: Path, source: str) -> Iterator[CodeRow]:
    """Every row, without its tests.

    Raises:
        ArtifactError: a file is not there.
    """
    wanted = {item.column for item in config.filters}
    number = 0
    for name in config.files:
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"prompts: expected the file {name} in {source}, got none; set `files`")
        for offset, line in _lines(path):
            problem, reason, columns = _read(line, config, source)
            kept = {name: value for name, value in columns.items() if name in wanted}
            yield CodeRow(number, path, offset, len(line), problem, reason, kept)
            number += 1


def tests_at(rows: Iterable[CodeRow], config: CodePrompts) -> Iterator[tuple[str, Tests]]:
    """The tests of rows that have been read before, by problem id."""
    for row in rows:
        with row.path.open("rb") as file:
            file.seek(row.offset)
            yield row.problem.problem_id, parse_tests(json.loads(file.read(row.length)), config)


def parse_tests(row: Mapping[str, Any], config: CodePrompts) -> Tests:
    """The tests of a row.

    Raises:
        ValueError: they are not of the form, or too large; the message says what is wrong.
    """
    packed = row.get(config.tests_column)
    if not isinstance(packed, str):
        raise ValueError(f"expected JSON text in {config.tests_column}, got {type(packed).__name__}")
    if len(packed) > config.max_test_bytes:
        raise ValueError(f"tests of {len(packed)} bytes, more than max_test_bytes")
    found = json.loads(packed)
    if not isinstance(found, dict):
        raise ValueError(f"expected an object in {config.tests_column}, got {type(found).__name__}")
    metadata = row.get("metadata")
    function = (metadata.get("fn_name") if isinstance(metadata, dict) else None) or found.get("fn_name") or None
    inputs, outputs = found.get("inputs"), found.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise ValueError("expected as many inputs as outputs")
    if not all(isinstance(text, str) for text in (*inputs, *outputs)):
        raise ValueError("expected text in inputs and outputs")
    return Tests.of(function, zip(inputs, outputs, strict=True))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of each that is not empty."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield offset, line
            offset += len(line)


def _read(line: bytes, config: CodePrompts, source: str) -> tuple[Problem, str | None, Mapping[str, Any]]:
    """A row's problem, what is wrong with it, and its columns."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Problem("", source, "", ""), f"no JSON: {error}", {}
    if not isinstance(row, dict):
        return Problem("", source, "", ""), "no object", {}
    text = str(row.get(config.problem_column) or "").strip()
    problem_id = str(row.get(config.id_column) or "") or problem_key(text)
    language = str(row.get("language") or "python")
    if language.casefold() not in ("python", "python3"):
        return Problem(problem_id, source, text, ""), f"a problem for {language[:40]}", row
    try:
        tests = parse_tests(row, config)
    except (ValueError, RecursionError) as error:
        return Problem(problem_id, source, text, ""), str(error), row
    if tests.function and tests.function not in text:
        text += f"\n\nThe function is called `{tests.function}`."
    return Problem(problem_id, source, text, tests.gold), None if text else "no problem", row
