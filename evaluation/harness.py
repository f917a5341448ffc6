"""Which harness made a score: versions of the package, the benchmark and what graded it."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from erpd_hub import __version__
from erpd_hub.evaluation.benchmarks import Benchmark

SANDBOX_GRADER = "unit_tests"


def harness(benchmark: Benchmark) -> dict[str, Any]:
    """For the details record; the commit of the code stands in the record itself."""
    found: dict[str, Any] = {"erpd-hub": __version__, "benchmark": f"{benchmark.name} v{benchmark.version}"}
    if benchmark.grader == "code":
        return found | {"grader": SANDBOX_GRADER}
    from erpd_hub.evaluation.grade_file import GRADER_VERSION

    return found | {"grader": f"math v{GRADER_VERSION}", "math-verify": _version("math-verify")}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
