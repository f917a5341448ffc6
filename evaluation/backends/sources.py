"""Where stored samples come from: details on a Hub or in a folder, with their golds and the benchmark they are of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erpd_hub.artifacts import LINEAGE, InputRecord, LineageRecord, read_lineage
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.evaluation.answers import Extract
from erpd_hub.evaluation.benchmarks import Benchmark, get_benchmark, load_problems
from erpd_hub.evaluation.details import is_concealed, reveal
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
    rows: Callable[[], Iterator[Row]]
    fingerprint: str | None
    dataset: Callable[[], Path]
    """Pulls the benchmark's dataset at the recorded commit, or names the user's file."""

    @property
    def is_programs(self) -> bool:
        """Whether samples are programs, which tests judge, and not answers."""
        return self.benchmark is not None and self.benchmark.grader == "code"


def open_details(endpoint: str, reference: str, *, benchmark_files: Sequence[Path] = ()) -> Stored:
    """Details by REF (`namespace/name/folder[@revision]`) or by the path of a folder with `data/*.parquet`.

    Args:
        benchmark_files: Say where the data of a user's own benchmark lie; needed only where its details leave golds
            out, since a file's path is recorded nowhere.

    Raises:
        ConfigError, ArtifactError: nothing there, no samples, or samples of several benchmarks.
    """
    from erpd_hub.benchmark_files import all_benchmarks

    own = all_benchmarks(benchmark_files) if benchmark_files else {}
    if reference.startswith(("./", "../", "/", "~")):
        folder = Path(reference).expanduser()
        record = read_lineage(folder / LINEAGE) if (folder / LINEAGE).is_file() else None
        return _stored(folder, record, endpoint, own)
    from erpd_hub.hub.connecting import connect
    from erpd_hub.lineage import locate

    hub = connect(endpoint)
    place = locate(hub, reference)
    record = hub.lineage(place.repo_type, place.repo_id, place.revision, place.folder)
    assert record is not None, "locate has read it"
    folder = hub.pull_artifact(record, place.repo_id, place.revision, place.folder)
    return _stored(folder, record, endpoint, own)


def require_answers(stored: Stored) -> None:
    """Raises ConfigError: the samples are programs, which other graders of answers know nothing about."""
    if stored.is_programs:
        raise ConfigError(
            f"{stored.name}: expected answers to compare with golds, got programs; of other harnesses only evalscope "
            "runs those: --backend evalscope, without --grader"
        )


def _stored(folder: Path, record: LineageRecord | None, endpoint: str, own: Mapping[str, Benchmark]) -> Stored:
    first = next(read_rows(folder), None) if shard_paths(folder) else None
    if first is None:
        raise ArtifactError(f"{folder.name}: expected samples in data/train-*.parquet, got none")
    name = first["benchmark"]
    benchmark = _benchmark(name, record)

    def dataset() -> Path:
        return _dataset(name, record, endpoint, own)

    told = {"thinking": True} if record and record.config.get("imported") and record.config.get("thinking") else {}
    concealed = benchmark is not None and benchmark.grader == "math" and is_concealed(first)
    problems = tuple(load_problems(benchmark, dataset())) if benchmark and concealed else ()

    def rows() -> Iterator[Row]:
        for row in reveal(read_rows(folder), problems) if problems else read_rows(folder):
            if row["benchmark"] != name:
                raise ConfigError(
                    f"{folder.name}: expected samples of one benchmark, got {name} and {row['benchmark']}"
                )
            yield {**row, **told}

    extract: Extract = benchmark.format.extract if benchmark else "boxed"
    return Stored(name, extract, benchmark, rows, record.fingerprint if record else None, dataset)


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


def _dataset(name: str, record: LineageRecord | None, endpoint: str, own: Mapping[str, Benchmark]) -> Path:
    """The data of a benchmark: its dataset at the recorded commit, or the file that the user's definition names.

    Raises:
        ArtifactError: there is no way to them.
    """
    from erpd_hub.references import PathRef

    item = next((item for item in record.inputs if item.role == f"benchmark:{name}"), None) if record else None
    if item is None:
        raise ArtifactError(f"{name}: expected its dataset in the lineage of the details, got none")
    if item.repo_id:
        return _pull(endpoint, item)
    reference = own[name].reference if name in own else None
    if not isinstance(reference, PathRef):
        raise ArtifactError(
            f"{name}: its details leave golds out, and its data are a local file, whose path is not recorded; "
            "say where with --benchmark-file"
        )
    return Path(reference.path).expanduser()


def _pull(endpoint: str, item: InputRecord) -> Path:
    """The dataset of a benchmark at its recorded commit."""
    from erpd_hub.hub.connecting import connect
    from erpd_hub.lineage import input_place

    hub, place = connect(endpoint), input_place(item)
    assert place is not None, "it names a repository"
    source = hub.upstream if item.upstream and hub.upstream else hub
    return source.pull(place.repo_type, place.repo_id, place.revision, place.folder, only=item.files)
