"""LiveCodeBench (`livecodebench/code_generation_lite`): problems, evalscope's prompt and tests, from JSON lines.

`datasets` no longer runs the loading script of this dataset, so its files are read here. `test5.jsonl` is the slice
v5, `test6.jsonl` v6; release_vN is all files up to N; a window is made of contest dates, which count as LiveCodeBench
counts them: from midnight of `start` to midnight of `end`.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.code.programs import Tests
from erpd_hub.evaluation.code.strings import packed_string
from erpd_hub.prompts import Problem

if TYPE_CHECKING:
    from erpd_hub.config.benchmarks import LiveCodeBenchSource

_WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters."
)
_WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows."
)
_COLUMNS = (
    "question_id",
    "question_content",
    "contest_date",
    "starter_code",
    "public_test_cases",
    "private_test_cases",
    "metadata",
)
_KEPT_TESTS = 16  # decoded; the K samples of a problem come together


class _Place(NamedTuple):
    """Where a problem's row is; rows have up to hundreds of MB of tests."""

    path: Path
    offset: int
    length: int


def load_problems(name: str, source: "LiveCodeBenchSource", folder: Path) -> list[Problem]:
    """The problems of the files, in their order, within the window; the gold is a hash of the tests as stored.

    Args:
        name: The benchmark's.
        folder: The dataset as pulled.

    Raises:
        ArtifactError: a file is missing or a row is not LiveCodeBench's.
    """
    rows = _rows(source, folder)
    problems = [Problem(str(row["question_id"]), name, prompt(row), f"sha256:{_tests_hash(row)}") for row, _ in rows]
    if len({problem.problem_id for problem in problems}) < len(problems):
        raise ArtifactError(f"{name}: expected a different question_id in each row, got some twice")
    return problems


class StoredTests:
    """Tests by problem id, decoded when they are asked for."""

    def __init__(self, source: "LiveCodeBenchSource", folder: Path) -> None:
        self._places = {str(row["question_id"]): place for row, place in _rows(source, folder)}
        self._decoded = lru_cache(_KEPT_TESTS)(self._decode)

    def __call__(self, problem_id: str) -> Tests:
        """Raises KeyError: no such problem; ArtifactError: its tests cannot be read."""
        return self._decoded(problem_id)

    def __len__(self) -> int:
        return len(self._places)

    def _decode(self, problem_id: str) -> Tests:
        place = self._places[problem_id]
        with place.path.open("rb") as file:
            file.seek(place.offset)
            return decode_tests(json.loads(file.read(place.length)))


def load_tests(source: "LiveCodeBenchSource", folder: Path) -> StoredTests:
    """The tests of the problems that `load_problems` gives."""
    return StoredTests(source, folder)


def prompt(row: dict[str, Any]) -> str:
    """evalscope's prompt, which is LiveCodeBench's for chat models."""
    starter = row["starter_code"]
    told = _WITH_STARTER if starter else _WITHOUT_STARTER
    code = starter or "# YOUR CODE HERE"
    return (
        f"### Question:\n{row['question_content']}\n\n### Format: {told}\n```python\n{code}\n```\n\n"
        " ### Answer: (use the provided format with backticks)\n\n"
    )


def decode_tests(row: dict[str, Any]) -> Tests:
    """Public tests, then private ones, which are JSON or base64(zlib(pickle(JSON))).

    Raises:
        ArtifactError: they are anything else.
    """
    where = str(row["question_id"])
    try:
        public = json.loads(row["public_test_cases"])
        private = _private(row["private_test_cases"])
        function = json.loads(row["metadata"]).get("func_name")
        pairs = [(str(test["input"]), str(test["output"])) for test in [*public, *private]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{where}: expected LiveCodeBench's tests, got {error}") from None
    try:
        return Tests.of(function, pairs)
    except ValueError as error:
        raise ArtifactError(f"{where}: {error}") from None


def _private(text: str) -> list[dict[str, Any]]:
    packed = not text.lstrip().startswith("[")
    tests: list[dict[str, Any]] = json.loads(packed_string(text) if packed else text)
    return tests


def _rows(source: "LiveCodeBenchSource", folder: Path) -> Iterator[tuple[dict[str, Any], _Place]]:
    for name in source.files:
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{source.dataset}: expected {name}, got no such file; see the source's `files`")
        offset = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                place = _Place(path, offset, len(line))
                offset += len(line)
                if line.strip():
                    row = _row(line, f"{source.dataset}: {name} line {number}")
                    if _in_window(row, source.start, source.end):
                        yield row, place


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        missing = [column for column in _COLUMNS if not isinstance(row[column], str)]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{where}: expected a row of LiveCodeBench, got {error!r}") from None
    if missing:
        raise ArtifactError(f"{where}: expected text in {missing[0]}, got {type(row[missing[0]]).__name__}")
    return dict(row)


def _in_window(row: dict[str, Any], start: date | None, end: date | None) -> bool:
    held = datetime.fromisoformat(row["contest_date"])
    after = start is None or held >= datetime(start.year, start.month, start.day)
    return after and (end is None or held <= datetime(end.year, end.month, end.day))


def _tests_hash(row: dict[str, Any]) -> str:
    parts = [row[column] for column in ("public_test_cases", "private_test_cases", "metadata")]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
