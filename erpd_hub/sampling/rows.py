"""From completions to rows: grading, also beside sampling, and what the log shows meanwhile."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from erpd_hub.config import PromptFormat
from erpd_hub.evaluation.grading import Grade, Response, grade_many
from erpd_hub.samples import Sample
from erpd_hub.sampling.engine import Completion
from erpd_hub.sampling.plan import Draw

_LOG_SECONDS = 5.0

logger = logging.getLogger(__name__)

Grading = Callable[[Sequence[tuple[Draw, Completion]]], list[Grade]]


class Progress:
    """Throughput, accuracy and remaining time, for the log."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.samples = self.tokens = self.correct = self.graded = 0
        self._started = self._logged = time.monotonic()

    def drawn(self, tokens: int) -> None:
        """One sample more, with this many new tokens."""
        self.samples += 1
        self.tokens += tokens

    def add_grades(self, grades: Sequence[Grade]) -> None:
        labels = [grade.label for grade in grades if grade.label is not None]
        self.correct += sum(labels)
        self.graded += len(labels)

    def log(self, *, now: bool = False) -> None:
        """A line, unless the last one is only just gone."""
        time_now = time.monotonic()
        if not now and time_now - self._logged < _LOG_SECONDS:
            return
        self._logged = time_now
        seconds = max(time_now - self._started, 1e-9)
        left = (self.total - self.samples) * seconds / self.samples if self.samples else float("nan")
        accuracy = f"{self.correct / self.graded:.3f}" if self.graded else "-"
        logger.info(
            "%d/%d samples, accuracy %s, %.0f tokens/s, %.0f s to go at this rate",
            self.samples, self.total, accuracy, self.tokens / seconds, left,
        )  # fmt: skip


class BackgroundGrader:
    """Grades in a thread while the engine draws: all that has come in since the last time, at once."""

    def __init__(self, grade: Grading, progress: Progress) -> None:
        self.grades: dict[int, Grade] = {}
        self._grade = grade
        self._progress = progress
        self._waiting: list[tuple[Draw, Completion]] = []
        self._running: tuple[list[int], Future[list[Grade]]] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grading")

    def add(self, draw: Draw, completion: Completion) -> None:
        """Raises what an earlier turn of grading raised, so that a missing package does not wait for the end."""
        self._waiting.append((draw, replace(completion, logprobs=None)))
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
            pairs, self._waiting = self._waiting, []
            self._running = ([draw.seed for draw, _ in pairs], self._thread.submit(self._grade, pairs))


def grade_pairs(pairs: Sequence[tuple[Draw, Completion]], format: PromptFormat) -> list[Grade]:
    """Grade completions of draws, in order."""
    responses = [
        Response(draw.prompt.problem.gold, completion.text, completion.finish_reason, draw.prompt.thinking)
        for draw, completion in pairs
    ]
    return grade_many(responses, extract=format.extract)


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
        prompt_ids=list(draw.prompt.prompt_ids),
        response_ids=completion.response_ids,
        sampler_logprobs=logprobs,
        finish_reason=completion.finish_reason,
        text=completion.text,
        gold=draw.prompt.problem.gold,
        extracted=grade.extracted,
        verdict=grade.verdict,
        label=grade.label,
        judge=None,
    )
