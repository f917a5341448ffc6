"""The unit tests of a prompt set: beside its problems, one row of `tests/train-*.parquet` a problem."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from erpd_hub.errors import ArtifactError, StageError
from erpd_hub.samples import write_rows

if TYPE_CHECKING:
    from erpd_hub.evaluation.code.grader import UnitTests
    from erpd_hub.evaluation.code.programs import Tests

TESTS_SCHEMA = pa.schema([("problem_id", pa.string()), ("tests", pa.string())])  # tests: as Tests.to_json writes them

_SHARD_BYTES = 256 << 20
_KEPT = 16  # decoded; the samples of a problem come together


def write_tests(out: Path, tests: Iterable[tuple[str, "Tests"]]) -> None:
    """Write the tests of problems, by their ids, into a prompt set."""
    for index, rows in enumerate(_shards(tests)):
        write_rows(out / "tests" / f"train-{index:05d}.parquet", rows, TESTS_SCHEMA)


class PromptTests:
    """The tests of a prompt set by problem id, decoded when they are asked for."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            StageError: the prompt set has none.
        """
        paths = sorted((folder / "tests").glob("train-*.parquet"))
        if not paths:
            raise StageError(
                f"{folder.name}: expected prompts with tests, got none, which reward unit_tests needs; use prompts of "
                "type code, or the generator program"
            )
        self._rows = pa.concat_tables(pq.read_table(path, memory_map=True) for path in paths)
        self._places: Mapping[str, int] = {name: row for row, name in enumerate(self._rows["problem_id"].to_pylist())}
        self._decoded = lru_cache(_KEPT)(self._decode)

    def __call__(self, problem_id: str) -> "Tests":
        """Raises KeyError: no such problem; ArtifactError: its tests cannot be read."""
        return self._decoded(problem_id)

    def _decode(self, problem_id: str) -> "Tests":
        from erpd_hub.evaluation.code.programs import Tests

        text = self._rows["tests"][self._places[problem_id]].as_py()
        try:
            return Tests.from_json(text)
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(f"{problem_id}: expected tests, got {error}") from None


def unit_tests(prompts: Path) -> "UnitTests":
    """The reward `unit_tests` on a prompt set.

    Raises:
        StageError: the prompt set has no tests, or programs cannot be run safely on this machine.
    """
    from erpd_hub.evaluation.code.grader import UnitTests

    return UnitTests(PromptTests(prompts))


def _shards(tests: Iterable[tuple[str, "Tests"]]) -> Iterator[list[dict[str, str]]]:
    rows: list[dict[str, str]] = []
    size = 0
    for problem_id, found in tests:
        text = found.to_json()
        if rows and size + len(text) > _SHARD_BYTES:
            yield rows
            rows, size = [], 0
        rows.append({"problem_id": problem_id, "tests": text})
        size += len(text)
    if rows:
        yield rows
