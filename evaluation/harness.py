"""Which harness made a score: versions of the package, the benchmark and what graded it."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from erpd_hub import __version__
from erpd_hub.artifacts import LineageRecord
from erpd_hub.evaluation.benchmarks import Benchmark
from erpd_hub.evaluation.code.process import numpy_version
from erpd_hub.evaluation.code.protection import protection
from erpd_hub.evaluation.code.sandbox import SANDBOX_VERSION
from erpd_hub.evaluation.grading import GRADER_VERSION

SANDBOX_GRADER = "unit_tests"
GRADED_BY = ("grader", "math-verify", "sandbox", "protection", "numpy")
"""Of a harness: what may give the same response another verdict. Older records do not have all of them."""


def harness(benchmark: Benchmark) -> dict[str, Any]:
    """For the details record; the commit of the code stands in the record itself.

    Raises:
        StageError: a benchmark of programs, and none can be run here.
    """
    found: dict[str, Any] = {"erpd-hub": __version__, "benchmark": f"{benchmark.name} v{benchmark.version}"}
    if benchmark.grader == "code":
        sandbox = {"sandbox": SANDBOX_VERSION, "protection": protection().level, "numpy": numpy_version() or "none"}
        return found | {"grader": SANDBOX_GRADER} | sandbox
    return found | math_grader()


def math_grader() -> dict[str, Any]:
    """What compares answers with golds."""
    return {"grader": f"math v{GRADER_VERSION}", "math-verify": _version("math-verify")}


_DRAWN_BY = {"transformers": ("torch", "transformers"), "vllm": ("vllm",)}
"""Packages whose version a sample of an engine depends on."""

_RUN_BY = ("sandbox", "protection", "numpy")
"""Of a harness: what the verdict on a program depends on."""


def drawn_otherwise(
    earlier: LineageRecord, engine: Mapping[str, Any], harness: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, Any]:
    """How an evaluation that samples are taken over from differs: type, dtype and packages of its engine, what graded
    programs, and what it had itself taken over from such a one.

    Answers are compared with the golds afresh, so what graded them earlier does not matter.

    Args:
        engine: As it would be recorded now, like the harness and the environment.
    """
    before, graded = earlier.metrics.get("engine") or {}, earlier.metrics.get("harness") or {}
    found: dict[str, Any] = {
        name: before[name] for name in ("type", "dtype") if name in before and before[name] != engine.get(name)
    }
    told = ((name, earlier.environment.get(name)) for name in _DRAWN_BY.get(before.get("type", ""), ()))
    if versions := {name: version for name, version in told if version and version != environment.get(name)}:
        found["versions"] = versions
    if harness["grader"] == SANDBOX_GRADER and any(graded.get(key) != harness[key] for key in _RUN_BY):
        found["graded_by"] = ", ".join(f"{key} {graded.get(key, 'not recorded')}" for key in _RUN_BY)
    if above := earlier.metrics.get("taken_over_otherwise"):
        found["taken_over_otherwise"] = above
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
