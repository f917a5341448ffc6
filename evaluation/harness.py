"""Which harness made a score: versions of the package, the benchmark and what graded it."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from erpd_hub import __version__
from erpd_hub.evaluation.benchmarks import Benchmark
from erpd_hub.evaluation.grading import GRADER_VERSION

SANDBOX_GRADER = "unit_tests"


def harness(benchmark: Benchmark) -> dict[str, Any]:
    """For the details record; the commit of the code stands in the record itself."""
    found: dict[str, Any] = {"erpd-hub": __version__, "benchmark": f"{benchmark.name} v{benchmark.version}"}
    if benchmark.grader == "code":
        return found | {"grader": SANDBOX_GRADER}
    return found | {"grader": f"math v{GRADER_VERSION}", "math-verify": _version("math-verify")}


def drawn_otherwise(
    earlier: Mapping[str, Any], engine: Mapping[str, Any], harness: Mapping[str, Any]
) -> dict[str, Any]:
    """How an evaluation that samples are taken over from differs: its engine's type and dtype, what graded programs.

    Answers are compared with the golds afresh, so what graded them earlier does not matter.

    Args:
        earlier: Metrics of its record.
    """
    before, graded = earlier.get("engine") or {}, earlier.get("harness") or {}
    found: dict[str, Any] = {
        name: before[name] for name in ("type", "dtype") if name in before and before[name] != engine.get(name)
    }
    if harness["grader"] == SANDBOX_GRADER and graded.get("erpd-hub", harness["erpd-hub"]) != harness["erpd-hub"]:
        found["graded_by"] = graded["erpd-hub"]
    if above := earlier.get("taken_over_otherwise"):
        found["taken_over_otherwise"] = above
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
