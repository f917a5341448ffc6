"""What the sandbox adds to running a program: against a bare interpreter that does nothing, in turns.

The bare one is `python -I -S -c pass`, started and waited for. Each round measures the two directly after one another,
so that a crowded machine slows both; the ratio is of the medians.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from erpd_hub.evaluation.code.programs import Case, Graders, Tests
from erpd_hub.evaluation.code.protection import protection
from erpd_hub.evaluation.code.sandbox import Sandbox

_PROGRAM = "print(int(input()) + 1)"


class SandboxBench(NamedTuple):
    """What is measured."""

    repeats: int = 50
    workers: int = 2
    programs: int = 40
    """Of the measurement of throughput, each with `tests` tests."""
    tests: int = 5


def run(bench: SandboxBench) -> dict[str, Any]:
    """Milliseconds by what is run, their ratio, and tests a second with several workers."""
    standing = protection()
    bare, warm = [], []
    with Sandbox() as sandbox:
        sandbox.run(_PROGRAM, stdin="1")
        for _ in range(bench.repeats):
            bare.append(_milliseconds(_bare))
            warm.append(_milliseconds(lambda: sandbox.run(_PROGRAM, stdin="1")))
    return {
        "protection": standing.text,
        "bare_ms": statistics.median(bare),
        "program_ms": statistics.median(warm),
        "ratio": statistics.median(warm) / statistics.median(bare),
        "cold_ms": _milliseconds(_cold),
        "workers": bench.workers,
        "tests_per_second": _throughput(bench),
        "repeats": bench.repeats,
    }


def render(report: dict[str, Any]) -> str:
    return (
        f"layers           {report['protection']}\n"
        f"bare interpreter {report['bare_ms']:8.1f} ms\n"
        f"a program        {report['program_ms']:8.1f} ms, {report['ratio']:.2f} times that\n"
        f"the first one    {report['cold_ms']:8.1f} ms\n"
        f"throughput       {report['tests_per_second']:8.0f} tests a second with {report['workers']} workers"
    )


def _milliseconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def _bare() -> None:
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)


def _cold() -> None:
    with Sandbox() as sandbox:
        sandbox.run(_PROGRAM, stdin="1")


def _throughput(bench: SandboxBench) -> float:
    tests = Tests("stdin", tuple(Case(str(n), str(n + 1)) for n in range(bench.tests)))
    programs: list[tuple[str | None, Tests]] = [(f"{_PROGRAM}  # {n}", tests) for n in range(bench.programs)]
    with Graders(bench.workers) as graders:
        graders.grade(programs[: bench.workers])
        start = time.perf_counter()
        graders.grade(programs)
        return bench.programs * bench.tests / (time.perf_counter() - start)
