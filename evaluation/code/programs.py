"""Grading programs by tests: 1 only if every test passes.

A program meets one test at a time, in a fresh process each, and the first that fails ends it: no test sees another's
state, and a program that has not passed a test never sees the next one's input. What it should print stays here.
Programs are graded in parallel; how many at once does not change a grade, since time is CPU time.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from threading import local
from typing import Literal, NamedTuple

from erpd_hub.errors import StageError
from erpd_hub.evaluation.code.matching import same_output, same_value
from erpd_hub.evaluation.code.protection import protection
from erpd_hub.evaluation.code.sandbox import Limits, Run, Sandbox
from erpd_hub.launching.machine import available_cores

Outcome = Literal[
    "passed",
    "wrong answer",
    "timeout",
    "memory",
    "runtime error",
    "compile error",
    "output limit",
    "no program",
    "sandbox failed",
]
Kind = Literal["stdin", "call"]


class Case(NamedTuple):
    """One test."""

    input: str
    """What is on standard input; for a call one JSON argument a line."""
    expected: str
    """What it prints; for a call the JSON of what it returns."""


@dataclass(frozen=True)
class Tests:
    """The tests of one problem."""

    kind: Kind
    cases: tuple[Case, ...]
    function: str | None = None
    """Name of the method of class Solution, or of the function, that is called."""

    def __post_init__(self) -> None:
        if (self.kind == "call") != (self.function is not None):
            raise ValueError(f"tests: expected a function for calls alone, got {self.kind} with {self.function!r}")

    @cached_property
    def sha256(self) -> str:
        """Of kind, function and cases: stands for the tests where they are too large to be written."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def of(cls, function: object, pairs: Iterable[tuple[str, str]]) -> "Tests":
        """Tests from a dataset, of a whole program or, where it names one, of a function.

        Raises:
            ValueError: there are none, the name is none, or a test of a function is no JSON.
        """
        if function is None:
            tests = cls("stdin", tuple(Case(*pair) for pair in pairs))
        else:
            name = str(function)
            if not name.isidentifier() or name.startswith("_"):
                raise ValueError(f"expected the name of a function, got {name[:80]!r}")
            tests = cls("call", tuple(_call_case(*pair) for pair in pairs), name)
        if not tests.cases:
            raise ValueError("expected tests, got none")
        return tests

    @property
    def gold(self) -> str:
        """What stands in place of a gold answer."""
        return f"sha256:{self.sha256}"

    def to_json(self) -> str:
        """One line, the same for equal tests."""
        return json.dumps({"kind": self.kind, "function": self.function, "cases": self.cases}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Tests":
        """Raises ValueError, TypeError or KeyError where it is not what `to_json` wrote."""
        data = json.loads(text)
        cases = tuple(Case(str(given), str(expected)) for given, expected in data["cases"])
        return cls(data["kind"], cases, data["function"])


@dataclass(frozen=True)
class ProgramGrade:
    """The outcome of one program on its tests."""

    outcome: Outcome
    failed: int | None
    """Index of the first test that failed."""
    passed: int
    """Tests passed before it."""
    total: int
    detail: str
    """The program's own last words, or why it was ended; hostile text."""
    seconds: float
    """CPU time of all its runs."""


def grade_program(
    source: str | None, tests: Tests, limits: Limits | None = None, *, sandbox: Sandbox | None = None
) -> ProgramGrade:
    """Grade one program; `sandbox failed` only where the sandbox would fail any program.

    Args:
        source: None where a response has no program.
        sandbox: One that is warm; closed by its owner.

    Raises:
        ValueError: an expected value of a call is no JSON, or there are no tests.
    """
    if not tests.cases:
        raise ValueError("tests: expected at least one, got none")
    total = len(tests.cases)
    if source is None or not source.strip():
        return ProgramGrade("no program", 0, 0, total, "", 0.0)
    if sandbox is None:
        with Sandbox() as own:
            return grade_program(source, tests, limits, sandbox=own)
    seconds = 0.0
    for index, case in enumerate(tests.cases):
        try:
            run = sandbox.run(source, stdin=case.input, function=tests.function, limits=limits)
        except StageError as error:
            return ProgramGrade("sandbox failed", index, index, total, str(error), seconds)
        seconds += run.cpu_seconds
        outcome = _outcome(run, case, tests.kind)
        if outcome != "passed":
            return ProgramGrade(outcome, index, index, total, run.detail, seconds)
    return ProgramGrade("passed", None, total, total, "", seconds)


class Graders:
    """Warm sandboxes, a thread each, for many calls of `grade`."""

    def __init__(self, workers: int | None = None) -> None:
        self._threads = ThreadPoolExecutor(workers or available_cores(), thread_name_prefix="programs")
        self._own = local()
        self._sandboxes: list[Sandbox] = []

    def __enter__(self) -> "Graders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def grade(self, programs: Sequence[tuple[str | None, Tests]], limits: Limits | None = None) -> list[ProgramGrade]:
        """Grades in order; equal programs with equal tests are run once."""
        if programs:
            protection()  # tried once, before the threads would try it together
        different = {(source, id(tests)): (source, tests) for source, tests in programs}
        futures = {
            key: self._threads.submit(self._grade, source, tests, limits) for key, (source, tests) in different.items()
        }
        return [futures[source, id(tests)].result() for source, tests in programs]

    def close(self) -> None:
        """Waits for what is running."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for sandbox in self._sandboxes:
            sandbox.close()

    def _grade(self, source: str | None, tests: Tests, limits: Limits | None) -> ProgramGrade:
        if not hasattr(self._own, "sandbox"):
            self._own.sandbox = Sandbox()
            self._sandboxes.append(self._own.sandbox)
        return grade_program(source, tests, limits, sandbox=self._own.sandbox)


def _call_case(given: str, expected: str) -> Case:
    """A test of a function.

    Raises:
        ValueError: a line of the input, or the expected value, is no JSON: every program would fail it.
    """
    given = given.removesuffix("\n")
    for text in (*given.split("\n"), expected):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(f"expected JSON in the test of a function, got {text[:80]!r}") from None
    return Case(given, expected)


def _outcome(run: Run, case: Case, kind: Kind) -> Outcome:
    if run.status != "ok":
        return run.status
    if kind == "stdin":
        return "passed" if same_output(case.expected, run.stdout) else "wrong answer"
    if not run.result:
        return "runtime error"  # it ended before its function returned
    return "passed" if same_value(case.expected, run.result) else "wrong answer"
