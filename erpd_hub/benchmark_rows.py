"""The problems of a benchmark outside of a run: from the user's file, or its dataset as an endpoint has it."""

from pathlib import Path

from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.benchmarks import Benchmark, load_problems
from erpd_hub.hub.connecting import connect
from erpd_hub.inputs import OutsideInputs, ResolvedInput
from erpd_hub.nodes import Edge
from erpd_hub.prompts import Problem
from erpd_hub.references import PathRef


def fetch_problems(
    benchmark: Benchmark, endpoint: str, rows: Path | None = None, *, revision: str | None = None
) -> list[Problem]:
    """All problems.

    Args:
        rows: The dataset's file, or a folder that holds the dataset, in place of the endpoint's.
        revision: The commit that an evaluation read, in place of the entry's own.

    Raises:
        ArtifactError: there is no such file or dataset, or it is not as the benchmark says.
        ConfigError: a column is missing.
    """
    return load_problems(benchmark, fetch_folder(benchmark, endpoint, rows, revision=revision))


def fetch_folder(
    benchmark: Benchmark, endpoint: str, rows: Path | None = None, *, revision: str | None = None
) -> Path | None:
    """Where the dataset lies on this machine now; None for a generated benchmark (see `fetch_problems`)."""
    if rows is not None and benchmark.reference is not None:
        if not rows.exists():
            raise ArtifactError(f"{rows}: expected the rows of {benchmark.name}, found no such file or folder")
        return rows
    found = find_dataset(benchmark, endpoint, revision=revision)
    return found.fetch() if found else None


def find_dataset(benchmark: Benchmark, endpoint: str, *, revision: str | None = None) -> ResolvedInput | None:
    """The dataset pinned to its commit, or the user's file to its bytes; None for a generated benchmark."""
    reference = benchmark.reference
    if reference is None:
        return None
    kind = "external" if isinstance(reference, PathRef) else "dataset"
    if revision is not None and not isinstance(reference, PathRef):
        reference = type(reference)(reference.repo_id, revision)
    edge = Edge(f"benchmark:{benchmark.name}", (kind,), reference, files=benchmark.files)
    found = OutsideInputs(connect(endpoint)).resolve(benchmark.name, edge)
    assert found is not None, "it is not optional"
    return found
