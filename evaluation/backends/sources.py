"""Where stored samples come from: details on a Hub or in a folder, with their golds and the benchmark they are of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erpd_hub.artifacts import LINEAGE, InputRecord, LineageRecord, read_lineage
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.evaluation.answers import Extract
from erpd_hub.evaluation.benchmarks import Benchmark, get_benchmark, load_problems
from erpd_hub.evaluation.details import is_concealed, reveal
from erpd_hub.prompts import Problem
from erpd_hub.samples import read_rows, shard_paths

Row = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """Samples of one benchmark; `rows` reads them anew each time, golds in place."""

    name: str
    """Of the benchmark, as the samples say."""
    extract: Extract
    benchmark: Benchmark | None
    """None where no registered or recorded benchmark has that name."""
    problems: tuple[Problem, ...] | None
    """None where the samples carry their golds and the dataset is not at hand."""
    rows: Callable[[], Iterator[Row]]
    fingerprint: str | None


def open_details(endpoint: str, reference: str, *, benchmark_files: tuple[Path, ...] = ()) -> Stored:
    """Details by REF (`namespace/name/folder[@revision]`) or by the path of a folder with `data/*.parquet`.

    Raises:
        ConfigError, ArtifactError: nothing there, no samples, or samples of several benchmarks or of a code benchmark.
    """
    if reference.startswith(("./", "../", "/", "~")):
        folder = Path(reference).expanduser()
        record = read_lineage(folder / LINEAGE) if (folder / LINEAGE).is_file() else None
        return _stored(folder, record, lambda item: _pull(endpoint, item))
    from erpd_hub.hub.client import connect
    from erpd_hub.lineage import locate

    hub = connect(endpoint)
    place = locate(hub, reference)
    record = hub.lineage(place.repo_type, place.repo_id, place.revision, place.folder)
    assert record is not None, "locate has read it"
    folder = hub.pull_artifact(record, place.repo_id, place.revision, place.folder)
    return _stored(folder, record, lambda item: _pull(endpoint, item))


def _stored(folder: Path, record: LineageRecord | None, pull: Callable[[InputRecord], Path]) -> Stored:
    first = next(read_rows(folder), None) if shard_paths(folder) else None
    if first is None:
        raise ArtifactError(f"{folder.name}: expected samples in data/train-*.parquet, got none")
    name = first["benchmark"]
    benchmark = _benchmark(name, record)
    if benchmark is not None and benchmark.grader != "math":
        raise ConfigError(f"{name}: expected answers to compare with golds, got programs; unit tests grade those")
    problems = _problems(benchmark, record, pull) if is_concealed(first) else None

    def rows() -> Iterator[Row]:
        for row in reveal(read_rows(folder), problems or ()):
            if row["benchmark"] != name:
                raise ConfigError(
                    f"{folder.name}: expected samples of one benchmark, got {name} and {row['benchmark']}"
                )
            yield row

    extract: Extract = benchmark.format.extract if benchmark else "boxed"
    return Stored(name, extract, benchmark, problems, rows, record.fingerprint if record else None)


def _benchmark(name: str, record: LineageRecord | None) -> Benchmark | None:
    """By the definition of the evaluation itself, or of those that ship.

    Raises:
        ArtifactError: its definition is not one that can be read, so that nobody knows how it was graded.
    """
    from pydantic import TypeAdapter, ValidationError

    from erpd_hub.config.benchmarks import BenchmarkEntry

    recorded = (record.config.get("definitions") or {}) if record else {}
    mine = {name: recorded[name]} if isinstance(recorded, dict) and name in recorded else {}
    try:
        return get_benchmark(name, TypeAdapter(dict[str, BenchmarkEntry]).validate_python(mine))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        raise ArtifactError(
            f"{name}: expected a definition as this version reads it, got {where}: {first['msg']}"
        ) from None
    except ConfigError:
        return None


def _problems(
    benchmark: Benchmark | None, record: LineageRecord | None, pull: Callable[[InputRecord], Path]
) -> tuple[Problem, ...]:
    """Raises ArtifactError: there is no way to the golds."""
    wanted = f"benchmark:{benchmark.name}" if benchmark else None
    item = next((item for item in record.inputs if item.role == wanted), None) if record else None
    if benchmark is None or item is None:
        raise ArtifactError("details: expected golds, or the benchmark's dataset in their lineage, got neither")
    return tuple(load_problems(benchmark, pull(item)))


def _pull(endpoint: str, item: InputRecord) -> Path:
    """The dataset of a benchmark at its recorded commit."""
    from erpd_hub.hub.client import connect
    from erpd_hub.lineage import input_place

    hub, place = connect(endpoint), input_place(item)
    if place is None:
        raise ArtifactError(f"{item.role}: expected a Hub dataset, got a local file; its path is not recorded")
    source = hub.upstream if item.upstream and hub.upstream else hub
    return source.pull(place.repo_type, place.repo_id, place.revision, place.folder)
