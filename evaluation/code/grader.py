"""Unit tests as the judge of samples: what `evaluate` and `rollout` hand to the sampler in place of a gold answer."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from erpd_hub.config import PromptFormat
from erpd_hub.evaluation.code.extraction import extract_program
from erpd_hub.evaluation.code.programs import Graders, ProgramGrade, Tests
from erpd_hub.evaluation.code.protection import protection
from erpd_hub.evaluation.code.sandbox import Limits
from erpd_hub.evaluation.grading import Grade

if TYPE_CHECKING:
    from erpd_hub.rewards import Pair

TestsOf = Callable[[str], Tests]

_SHOWN_PROGRAM = 20_000
_SHOWN_DETAIL = 200
_UNCUT: dict[str, Literal["no_answer", "timeout"]] = {"no program": "no_answer", "timeout": "timeout"}


class UnitTests:
    """Grades samples by running the programs in them: 1 only if every test passes. A reward function's interface."""

    path = "unit_tests"

    def __init__(self, tests: TestsOf, *, limits: Limits | None = None, workers: int | None = None) -> None:
        """
        Args:
            tests: Of a problem by its id; KeyError for one without, which is ungradable.
            workers: Programs at once; None takes one a core.

        Raises:
            StageError: programs cannot be run safely on this machine.
        """
        self._tests, self._limits = tests, limits or Limits()
        protection()
        self._graders = Graders(workers)

    def grade(self, pairs: "Sequence[Pair]", format: PromptFormat) -> list[Grade]:
        """Grades of samples, in order."""
        grades = [self._without_running(pair) for pair in pairs]
        open_pairs = [index for index, grade in enumerate(grades) if grade is None]
        programs = {index: _program(pairs[index]) for index in open_pairs}
        tests = self._tests_of(pairs, open_pairs)
        runnable = [index for index in open_pairs if index in tests]
        outcomes = self._graders.grade([(programs[index], tests[index]) for index in runnable], self._limits)
        for index, outcome in zip(runnable, outcomes, strict=True):
            grades[index] = _grade(programs[index], outcome)
        missing = Grade("ungradable", None, None, "no tests", "function")
        return [grade or missing for grade in grades]

    def close(self) -> None:
        self._graders.close()

    def _without_running(self, pair: "Pair") -> Grade | None:
        if pair[1].finish_reason == "error":
            return Grade("ungradable", None, None, "the engine failed", "none")
        if pair[1].finish_reason == "length":
            return Grade("truncated", 0, _shown(_program(pair)), None, "none")
        return None

    def _tests_of(self, pairs: "Sequence[Pair]", wanted: list[int]) -> dict[int, Tests]:
        """One object a problem, so that equal programs are known as such."""
        known: dict[str, Tests | None] = {}
        for index in wanted:
            problem_id = pairs[index][0].prompt.problem.problem_id
            if problem_id not in known:
                try:
                    known[problem_id] = self._tests(problem_id)
                except KeyError:
                    known[problem_id] = None
        found = ((index, known[pairs[index][0].prompt.problem.problem_id]) for index in wanted)
        return {index: tests for index, tests in found if tests is not None}


def _program(pair: "Pair") -> str | None:
    draw, completion = pair
    return extract_program(completion.text, thinking=draw.prompt.thinking)


def _grade(program: str | None, outcome: ProgramGrade) -> Grade:
    shown = _shown(program)
    if outcome.outcome == "passed":
        return Grade("correct", 1, shown, None, "function")
    if outcome.outcome == "sandbox failed":
        return Grade("ungradable", None, shown, outcome.detail, "function")
    reason = f"{outcome.outcome} at test {(outcome.failed or 0) + 1} of {outcome.total}"
    if outcome.detail:
        reason += f": {outcome.detail[-_SHOWN_DETAIL:]}"
    return Grade(_UNCUT.get(outcome.outcome, "wrong"), 0, shown, reason, "function")


def _shown(program: str | None) -> str | None:
    return None if program is None else program[:_SHOWN_PROGRAM]
