"""From completions to rows: grading, also beside sampling."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from erpd_hub.config import PromptFormat
from erpd_hub.evaluation.grading import Grade, Response, grade_many
from erpd_hub.samples import Sample
from erpd_hub.sampling.draws import Draw
from erpd_hub.sampling.engine import Completion
from erpd_hub.sampling.progress import Progress

Grading = Callable[[Sequence[tuple[Draw, Completion]]], list[Grade]]

_TOGETHER = 64
"""Samples in memory at once: of 100,000 tokens each, with their ids as Python numbers, that is some 200 MB."""


class BackgroundGrader:
    """Grades in a thread while the engine draws: what has come in since the last time, some of it at once."""

    def __init__(self, grade: Grading, progress: Progress, read: Callable[[int], Completion]) -> None:
        """
        Args:
            read: A sample by its seed; grading may be hours behind, and what waits for it is not held.
        """
        self.grades: dict[int, Grade] = {}
        self._grade = grade
        self._progress = progress
        self._read = read
        self._waiting: deque[Draw] = deque()
        self._running: tuple[list[int], Future[list[Grade]]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grading")

    def add(self, draw: Draw) -> None:
        """Raises what an earlier turn of grading raised, so that a missing package does not wait for the end."""
        self._waiting.append(draw)
        if self._running is None or self._running[1].done():
            self._turn()

    def finish(self) -> dict[int, Grade]:
        """The grade of every sample by its seed."""
        while self._waiting or self._running:
            self._turn()
        return self.grades

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _turn(self) -> None:
        """Take in what is graded, start on what waits."""
        if self._running is not None:
            seeds, future = self._running
            grades = future.result()
            self.grades |= zip(seeds, grades, strict=True)
            self._progress.add_grades(grades)
            self._running = None
        if self._waiting:
            draws = [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
            pairs = [(draw, replace(self._read(draw.seed), logprobs=None)) for draw in draws]
            self._running = ([draw.seed for draw, _ in pairs], self._thread.submit(self._grade, pairs))


def grade_pairs(pairs: Sequence[tuple[Draw, Completion]], format: PromptFormat) -> list[Grade]:
    """Grade completions of draws, in order."""
    responses = [
        Response(draw.prompt.problem.gold, completion.text, completion.finish_reason, draw.prompt.thinking)
        for draw, completion in pairs
    ]
    return grade_many(responses, extract=format.extract)


def regraded(draws: Sequence[Draw], rows: Sequence[dict[str, Any]], format: PromptFormat) -> list[dict[str, Any]]:
    """Stored rows of draws with what today's grader says; one that failed has nothing to grade."""
    responses = [
        Response(draw.prompt.problem.gold, row["text"], row["finish_reason"], draw.prompt.thinking)
        for draw, row in zip(draws, rows, strict=True)
    ]
    grades = grade_many(responses, extract=format.extract)
    return [
        row
        if row["finish_reason"] == "error"
        else {**row, "extracted": grade.extracted, "verdict": grade.verdict, "label": grade.label}
        for row, grade in zip(rows, grades, strict=True)
    ]


def sample_row(
    draw: Draw, completion: Completion, grade: Grade, benchmark: str, earlier: dict[str, Any] | None = None
) -> Sample:
    """The row of a sample.

    Args:
        earlier: Its row before it was continued; the log-probs of those tokens stand there.
    """
    logprobs = completion.logprobs
    if earlier is not None:
        before = earlier["sampler_logprobs"]
        logprobs = None if before is None or logprobs is None else [*before, *logprobs]
    return Sample(
        benchmark=benchmark,
        problem_id=draw.prompt.problem.problem_id,
        k=draw.k,
        seed=draw.seed,
        prompt_ids=list(draw.prompt.prompt_ids) or None,
        response_ids=completion.response_ids,
        sampler_logprobs=logprobs,
        finish_reason=completion.finish_reason,
        text=completion.text,
        gold=draw.prompt.problem.gold,
        extracted=grade.extracted,
        verdict=grade.verdict,
        label=grade.label,
        judge=None,
        num_tokens=completion.counted if completion.response_ids is None else None,
    )
